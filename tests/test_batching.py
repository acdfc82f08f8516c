"""The loop around the batch API, in virtual time, against a provider in memory."""

from pathlib import Path

import pytest

from tasks.clients import storage
from tasks.clients.budget import Budget
from tasks.clients.outcome import CallFault, Reply
from tasks.clients.patience import Patience
from tasks.core.batching import ATTEMPTS, POLL_SECONDS, next_pause
from tasks.core.errors import ModelError, StoppedError, StorageError
from tests.batch_provider import COST, GOOD, HOUR, PRICE, Clock, Night, Provider, all_good, half, keys


@pytest.fixture
def night(bucket: str, tmp_path: Path) -> Night:
    clock = Clock()
    return Night(Provider(clock), f"{bucket}/journal/recipe=r/batches/source-s", tmp_path, clock)


def test_a_wait_is_as_long_as_it_should_be_when_the_clock_is_set_back() -> None:
    slept: list[float] = []
    patience = Patience(now=lambda: 1e9 - 3600 * len(slept), sleep=slept.append)
    patience.wait(1.0)
    assert sum(slept) == pytest.approx(1.0)


def test_requests_go_in_plan_order_in_batches_of_a_size_and_come_back_in_any(night: Night) -> None:
    wanted = keys(0, 25)
    assert night.run(wanted, lines=10) == set()
    assert night.provider.sent() == [wanted[:10], wanted[10:20], wanted[20:]]
    completion = night.kept.completions[wanted[0]]
    assert completion["cost_usd"] == pytest.approx(COST / 2)
    assert (completion["text"], completion["attempts"], completion["latency_s"]) == ("a text", 1, None)
    assert night.records() == ["done.json"] * 3
    assert sorted(night.provider.deleted) == sorted([*night.provider.files, *night.provider.results])


@pytest.mark.parametrize("status", ["completed", "expired", "failed", "cancelled"])
def test_only_what_a_batch_has_not_answered_is_sent_again(night: Night, status: str) -> None:
    night.provider.ends = [half(status), all_good]
    wanted = keys(0, 20)
    assert night.run(wanted) == set()
    assert night.provider.sent() == [wanted, wanted[10:]]
    assert night.kept.completions[wanted[-1]]["attempts"] == 2


def test_what_fails_again_and_again_is_left_for_live_calls(night: Night) -> None:
    night.provider.ends = [
        lambda keys: ("completed", dict.fromkeys(keys[1:], GOOD) | {keys[0]: CallFault("transient", "500")})
    ]
    wanted = keys(0, 5)
    assert night.run(wanted) == {wanted[0]}
    assert night.provider.sent() == [wanted] + [wanted[:1]] * (ATTEMPTS - 1)
    # A later run tries it again, in a batch of another name.
    night.provider.ends = [all_good]
    assert night.run(wanted) == set()
    assert len({job.name for job in night.provider.jobs.values()}) == ATTEMPTS + 1


def test_a_refused_line_is_a_completion_with_its_reason_and_costs_nothing(night: Night) -> None:
    refused = CallFault("refused", "too long", reason="context_window")
    night.provider.ends = [lambda keys: ("completed", dict.fromkeys(keys, refused))]
    budget = Budget(1.0, PRICE, 40)
    assert night.run(keys(0, 3), budget=budget) == set()
    assert {one["error"] for one in night.kept.completions.values()} == {"context_window"}
    assert (budget.spent, budget.reserved) == (0.0, 0.0)


def test_lines_that_were_not_asked_for_are_counted_and_left_out(night: Night) -> None:
    strange: dict[str, Reply | CallFault] = {"../../x": GOOD, "f" * 32: GOOD}
    night.provider.ends = [lambda keys: ("completed", dict.fromkeys(keys, GOOD) | strange)]
    assert night.run(keys(0, 3)) == set()
    assert list(night.kept.completions) == keys(0, 3)[::-1]
    assert any("2 lines answer what it was not asked" in note for note in night.notes)


def test_at_the_deadline_open_batches_are_ended_and_what_they_have_answered_is_collected(night: Night) -> None:
    night.provider.hours = 30.0
    wanted = keys(0, 30)
    assert night.run(wanted, hours=2, lines=10) == {key for at in (0, 10, 20) for key in wanted[at + 1 : at + 10]}
    assert len(night.provider.cancelled) == 3
    assert 2 * HOUR <= night.clock.now() - 1_000_000 <= 2 * HOUR + 2 * POLL_SECONDS[1]
    assert len(night.provider.sent()) == 3


def test_without_batches_wanted_open_ones_are_ended_and_none_is_sent(night: Night) -> None:
    die(night, keys(0, 10))
    assert night.run(keys(0, 20), hours=0) == set(keys(1, 19))
    assert len(night.provider.jobs) == 1


def die(night: Night, wanted: list[str], operation: str = "retrieve") -> None:
    """Begin a run that ends at its first such operation."""
    night.provider.faults = {operation: [CallFault("fatal", "killed")]}
    with pytest.raises(ModelError, match="killed"):
        night.run(wanted)
    night.provider.faults = {}


def test_a_later_run_collects_open_batches_first_and_sends_only_what_is_in_none(night: Night) -> None:
    die(night, keys(5, 10))
    # The source has grown, and lost some rows.
    assert night.run(keys(8, 20)) == set()
    assert night.provider.sent() == [keys(5, 10), keys(15, 13)]
    assert set(night.kept.completions) == set(keys(5, 23))


LOST = {"before it sends": 0.0, "while it waits": HOUR / 2, "when the first batch has ended": HOUR}


@pytest.mark.parametrize("when", list(LOST))
def test_a_run_that_lost_its_lease_sends_no_batch_any_more_and_the_next_one_goes_on(night: Night, when: str) -> None:
    lost_at = night.clock.now() + LOST[when]

    def check() -> None:
        if night.clock.now() >= lost_at:
            raise StorageError("another run may hold it")

    night.check = check
    night.provider.ends = [half("expired"), all_good]
    with pytest.raises(StorageError, match="another run may hold it"):
        night.run(keys(0, 10))
    sent = night.provider.sent()
    assert sent == [keys(0, 10)] * (lost_at > 1_000_000.0)
    assert night.clock.now() < lost_at + 1.0, "it waits no longer"
    night.check = lambda: None
    assert night.run(keys(0, 10)) == set()
    assert night.provider.sent() == ([*sent, keys(5, 5)] if sent else [keys(0, 10), keys(5, 5)])


def test_a_batch_of_which_nobody_knows_is_found_by_its_mark(night: Night) -> None:
    night.provider.loses_the_reply = True
    assert night.run(keys(0, 5)) == set()
    assert len(night.provider.jobs) == 1


def test_a_run_killed_before_it_knew_takes_the_batch_up(night: Night) -> None:
    die(night, keys(0, 5))
    names = [item.uri for item in storage.list_objects(night.uri) if item.uri.endswith(".sent.json")]
    storage.delete_objects(names)
    assert night.run(keys(0, 5)) == set()
    assert len(night.provider.jobs) == 1


def test_what_never_reached_the_provider_is_sent_once(night: Night) -> None:
    die(night, keys(0, 5))
    names = [item.uri for item in storage.list_objects(night.uri) if item.uri.endswith(".sent.json")]
    storage.delete_objects(names)
    night.provider.jobs = {}
    started = night.clock.now()
    assert night.run(keys(0, 5)) == set()
    assert len(night.provider.jobs) == 1
    assert night.clock.now() > started


def test_faults_of_the_batch_api_are_borne_and_then_stop_the_run(night: Night) -> None:
    busy = [CallFault("transient", "503") for _ in range(3)]
    night.provider.faults = {"upload": busy[:1], "create": [CallFault("throttled", "429", retry_after=30.0)]}
    night.provider.faults |= {"retrieve": list(busy), "download": list(busy)}
    assert night.run(keys(0, 5)) == set()
    assert len(night.provider.jobs) == 1
    night.provider.faults = {"retrieve": [CallFault("transient", "503") for _ in range(10_000)]}
    with pytest.raises(StoppedError, match="for 60 minutes: 503"):
        night.run(keys(5, 5))
    night.provider.faults = {}
    assert night.run(keys(5, 5)) == set()
    assert len(night.provider.jobs) == 2


@pytest.mark.parametrize("operation", ["upload", "create"])
def test_a_provider_that_takes_no_batch_stops_the_run_and_leaves_nothing(night: Night, operation: str) -> None:
    night.provider.faults = {operation: [CallFault("fatal", "x has no batch API.")]}
    with pytest.raises(ModelError, match=r"No batch was sent: x has no batch API\. Nothing is sent twice"):
        night.run(keys(0, 5))
    assert (night.records(), night.provider.jobs) == ([], {})


def test_a_batch_that_fails_whole_twice_stops_the_run(night: Night) -> None:
    night.provider.ends, night.provider.problem = [lambda keys: ("failed", {})], "invalid_model: none"
    with pytest.raises(ModelError, match=r"whole batch twice \(invalid_model: none\)\. Nothing of it was paid"):
        night.run(keys(0, 5))
    assert len(night.provider.jobs) == 2


def test_a_line_that_says_no_request_will_be_answered_stops_the_run_when_the_rest_is_kept(night: Night) -> None:
    fatal = CallFault("fatal", "the quota is used up.")
    night.provider.ends = [lambda keys: ("completed", dict.fromkeys(keys[:3], GOOD) | {keys[4]: fatal})]
    with pytest.raises(ModelError, match="quota is used up"):
        night.run(keys(0, 5))
    assert night.kept.flushed == 3
    night.provider.ends = [all_good]
    assert night.run(keys(0, 5)) == set()
    assert night.provider.sent()[1] == keys(3, 2)


def test_what_is_too_much_for_the_provider_waits_for_room(night: Night) -> None:
    def end(keys: list[str]) -> tuple[str, dict[str, Reply | CallFault]]:
        return ("failed", {}) if len(keys) > 300 else all_good(keys)

    night.provider.ends, night.provider.problem = [end], "token_limit_exceeded: enqueued"
    assert night.run(keys(0, 1000), lines=1000) == set()
    assert [len(sent) for sent in night.provider.sent()] == [1000, 500, 250, 250, 250, 250]


def test_too_much_even_in_small_is_left_for_live_calls(night: Night) -> None:
    night.provider.ends, night.provider.problem = [lambda keys: ("failed", {})], "token_limit_exceeded: enqueued"
    assert night.run(keys(0, 150), lines=1000) == set(keys(0, 150))


def test_a_budget_is_reserved_before_a_batch_is_sent_and_never_exceeded(night: Night) -> None:
    budget = Budget(1.0, PRICE, 40)
    with pytest.raises(StoppedError, match="--max-cost-usd"):
        night.run(keys(0, 5000), budget=budget)
    paid = sum(one["cost_usd"] for one in night.kept.completions.values())
    assert budget.spent == pytest.approx(paid)
    assert 0.9 < paid <= 1.0
    # What an earlier run has left counts when it is collected.
    assert set(night.kept.completions) == set(keys(0, len(night.kept.completions)))
    assert night.run(keys(0, 5000)) == set()


def test_looks_grow_rare(night: Night) -> None:
    night.provider.hours = 10.0
    night.run(keys(0, 5))
    pauses = [second - first for first, second in zip(night.provider.looks, night.provider.looks[1:], strict=False)]
    assert pauses[0] == pytest.approx(POLL_SECONDS[0])
    assert max(pauses) == pytest.approx(POLL_SECONDS[1])
    assert len(night.provider.looks) < 10 * HOUR / POLL_SECONDS[1] + 20
    assert next_pause(1000.0) == POLL_SECONDS[1]
