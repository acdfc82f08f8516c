"""The loop around the batch API, in virtual time, against a provider in memory."""

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tasks.clients import storage
from tasks.clients.batch_collecting import Collector
from tasks.clients.batch_records import Records
from tasks.clients.batch_sending import Desk, Sender
from tasks.clients.batching import Batching
from tasks.clients.budget import Budget
from tasks.clients.outcome import CallFault, Reply
from tasks.clients.patience import Patience
from tasks.core.batching import ATTEMPTS, POLL_SECONDS, Job, next_pause
from tasks.core.errors import ModelError, StoppedError, StorageError
from tasks.core.price import Price

HOUR = 3600.0
PRICE = Price(1e-6, 1e-5)
GOOD = Reply("a text", "stop", "answering", 200, 40, 0.001)
COST = 200e-6 + 400e-6


@dataclass
class Clock:
    """Virtual time."""

    at: float = 1_000_000.0

    def now(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += seconds


# What becomes of a batch: by its keys, the job as it is seen, and the outcomes of lines.
Ends = Callable[[list[str]], tuple[str, dict[str, Reply | CallFault]]]


def all_good(keys: list[str]) -> tuple[str, dict[str, Reply | CallFault]]:
    return "completed", dict.fromkeys(keys, GOOD)


def half(status: str) -> Ends:
    def end(keys: list[str]) -> tuple[str, dict[str, Reply | CallFault]]:
        return status, dict.fromkeys(keys[: len(keys) // 2], GOOD)

    return end


@dataclass
class Provider:
    """Takes batches, and ends each `hours` later as `ends` says, the last for all that follow."""

    clock: Clock
    ends: list[Ends] = field(default_factory=lambda: [all_good])
    hours: float = 1.0
    problem: str = ""
    # Raised by the operation of this name, one each time.
    faults: dict[str, list[CallFault]] = field(default_factory=dict)
    loses_the_reply: bool = False
    files: dict[str, list[str]] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    results: dict[str, dict[str, Reply | CallFault]] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    looks: list[float] = field(default_factory=list)
    _ends: dict[str, Ends] = field(default_factory=dict)

    def _fail(self, operation: str) -> None:
        if self.faults.get(operation):
            raise self.faults[operation].pop(0)

    def upload(self, path: Path) -> str:
        self._fail("upload")
        name = f"file-{len(self.files)}"
        self.files[name] = [json.loads(line)["key"] for line in path.read_text().splitlines()]
        return name

    def create(self, file_id: str, name: str) -> Job:
        self._fail("create")
        job = Job(f"job-{len(self.jobs)}", name, "validating", self.clock.now(), input_file=file_id)
        self.jobs[job.id] = job
        self._ends[job.id] = self.ends.pop(0) if len(self.ends) > 1 else self.ends[0]
        if self.loses_the_reply:
            self.loses_the_reply = False
            raise CallFault("transient", "reset", billed=True)
        return job

    def retrieve(self, job_id: str) -> Job:
        self._fail("retrieve")
        self.looks.append(self.clock.now())
        job = self.jobs[job_id]
        late = self.clock.now() >= job.created_at + self.hours * HOUR
        if not job.ended and (late or job_id in self.cancelled):
            keys = self.files[job.input_file]
            status, results = self._ends[job_id](keys)
            if job_id in self.cancelled and not late:
                status, results = "cancelled", dict.fromkeys(keys[:1], GOOD)
            output = f"results-{job_id}" if results else ""
            self.results[output] = results
            problem = self.problem if status == "failed" else ""
            job = replace(job, status=status, answered=len(results), output_file=output, problem=problem)
            self.jobs[job_id] = job
        return job

    def cancel(self, job_id: str) -> None:
        self.cancelled.append(job_id)

    def find(self, names: Collection[str], since: float) -> dict[str, Job]:
        self._fail("find")
        return {job.name: job for job in self.jobs.values() if job.name in names and job.created_at >= since}

    def download(self, file_id: str, path: Path, most_bytes: int) -> None:
        self._fail("download")
        path.write_text(file_id)

    def delete(self, file_id: str) -> None:
        self.deleted.append(file_id)

    # As lines.

    def write(self, key: str, prompt: str) -> bytes:
        return json.dumps({"key": key}).encode() + b"\n"

    def read(self, path: Path) -> Iterator[tuple[str, Reply | CallFault]]:
        yield from reversed(self.results[path.read_text()].items())

    def sent(self) -> list[list[str]]:
        """Return the keys of each batch."""
        return [self.files[job.input_file] for job in self.jobs.values()]


class Kept:
    """The journal, in memory."""

    def __init__(self) -> None:
        self.completions: dict[str, dict[str, Any]] = {}
        self.flushed = 0

    def append(self, request_key: str, completion: dict[str, Any]) -> None:
        assert request_key not in self.completions, "it was paid for twice"
        self.completions[request_key] = completion

    def flush(self) -> None:
        self.flushed = len(self.completions)


def keys(first: int, count: int) -> list[str]:
    return [f"{number:032x}" for number in range(first, first + count)]


@dataclass
class Night:
    """One source's runs: what lasts from one to the next."""

    provider: Provider
    uri: str
    folder: Path
    clock: Clock
    kept: Kept = field(default_factory=Kept)
    notes: list[str] = field(default_factory=list)
    runs: int = 0
    check: Callable[[], None] = lambda: None

    def run(
        self, wanted: list[str], hours: float = 24.0, lines: int = 50_000, budget: Budget | None = None
    ) -> set[str]:
        """Have what the journal does not answer answered in batches; return what is left for live calls."""
        self.runs += 1
        folder = self.folder / str(self.runs)
        folder.mkdir()
        rows = pl.DataFrame({"request_key": [key for key in wanted if key not in self.kept.completions]}, schema=KEYS)
        rows.with_columns(task=pl.lit("t"), language=pl.lit("English"), sample_index=0).write_parquet(
            folder / "r.parquet"
        )
        desk = Desk(
            api=self.provider,
            lines=self.provider,
            records=Records(self.uri),
            folder=folder,
            recipe_id="recipe",
            max_tokens=40,
            price=PRICE,
            budget=budget,
            patience=Patience(self.clock.now, self.clock.sleep, self.check),
            note=self.notes.append,
        )
        sender = Sender(desk)
        sender.most_lines = lines
        batching = Batching(desk, sender, Collector(desk, self.kept))
        batching.answer(folder / "r.parquet", self.clock.now() + hours * HOUR)
        answered = pl.concat([pl.read_parquet(one) for one in folder.glob("answered-*")] or [pl.DataFrame(schema=KEYS)])
        assert set(answered["request_key"]) <= set(self.kept.completions)
        return set(wanted) - set(self.kept.completions)

    def records(self) -> list[str]:
        """Return the kinds of objects that are left of batches."""
        return sorted(item.uri.partition(".")[2] for item in storage.list_objects(self.uri))


KEYS = {"request_key": pl.String}


@pytest.fixture
def night(bucket: str, tmp_path: Path) -> Night:
    clock = Clock()
    return Night(Provider(clock), f"{bucket}/journal/recipe=r/batches/source-s", tmp_path, clock)


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
