"""Several models in one run, over HTTP: shares, and what fallbacks take over."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiohttp import web
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.short_text_matching import generate_short_text_pairs
from flows.telling import call
from tasks.core.errors import PairmillError
from tasks.core.page import report_page
from tasks.core.report import RunReport
from tasks.core.wording import model_rows
from tests.bucket import count_rows, lines, put
from tests.model_server import Behaviour, ModelServer, answer, error, good

A, B, C = "openai/a", "openai/b", "openai/c"
Run = Callable[..., RunReport]


class Models:
    """A server of several models; each answers as it is told to, and `asked` counts the prompts of each."""

    def __init__(self) -> None:
        self.behaviours: dict[str, Behaviour] = {}
        self.asked: dict[str, Counter[str]] = {}

    def __call__(self, request: web.Request, sent: dict[str, Any]) -> Any:
        prompt = sent["messages"][0]["content"]
        self.asked.setdefault(f"openai/{sent['model']}", Counter())[prompt] += 1
        behave: Behaviour = self.behaviours.get(f"openai/{sent['model']}", good)
        return behave(request, sent)

    def calls(self, name: str) -> int:
        """Calls that reached a model so far."""
        return self.asked.get(name, Counter()).total()


@pytest.fixture
def models(model_server: ModelServer) -> Models:
    found = Models()
    model_server.default = found
    return found


@pytest.fixture
def run(bucket: str, model_server: ModelServer, models: Models, prefect_api: str) -> Iterator[Run]:
    """Run the flow over 40 descriptions, with model A unless it is told otherwise."""
    put(bucket, "tasks/a.jsonl", lines(40))

    def start(**options: Any) -> RunReport:
        given = {"source": f"{bucket}/tasks", "destination": f"{bucket}/out", "model_name": A}
        report: RunReport = call(generate_short_text_pairs, **{**given, "api_base": model_server.api_base, **options})
        assert report.accepted + report.rejected == report.judged
        assert sum(one.judged for one in report.by_model.values()) == report.judged
        return report

    with temporary_settings({PREFECT_API_URL: prefect_api}):
        yield start


def writers(bucket: str, name: str = "pairs") -> dict[str, int]:
    return count_rows(f"{bucket}/out/{name}", "model_name")


def refuse_some(share: int, fault: Behaviour) -> Behaviour:
    """Turn down every description whose number can be divided by `share`."""

    def behave(request: web.Request, sent: dict[str, Any]) -> Any:
        number = int(sent["messages"][0]["content"].partition("match thing ")[2].split()[0])
        return (fault if number % share == 0 else good)(request, sent)

    return behave


@pytest.mark.runs
def test_each_model_of_a_mix_writes_its_share_and_the_same_again_costs_nothing(
    run: Run, bucket: str, models: Models
) -> None:
    first = run(model_mix=[f"{B}=0.4"], pairs_per_task=2)
    found = writers(bucket)
    assert found == {name: models.calls(name) for name in (A, B)}
    assert found[A] + found[B] == first.accepted == 80
    assert 15 <= found[B] <= 50
    assert {name: (one.judged, one.taken_over) for name, one in first.by_model.items()} == {
        name: (count, 0) for name, count in found.items()
    }
    redo = run(model_mix=[f"{B}=0.4"], pairs_per_task=2, on_published="redo")
    assert (redo.cached, redo.paid, writers(bucket)) == (80, 0, found)
    # With one model alone it is another order: only what that model did not write is asked for.
    alone = run(pairs_per_task=2, on_published="redo")
    assert (alone.cached, alone.paid) == (found[A], found[B])


@pytest.mark.runs
def test_the_lane_of_each_model_is_in_the_log_of_its_run(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="prefect")
    run(model_mix=[f"{B}=0.4"])
    said = [record.getMessage() for record in caplog.records]
    for name in (A, B):
        assert [line.startswith(f"{name}: fast lane: ") for line in said].count(True) == 1


FAULTS: dict[str, tuple[Behaviour, str]] = {
    "content_policy": (error(400, "your request was rejected", "content_policy_violation"), "content_policy"),
    "context_window": (error(400, "too long", "context_length_exceeded"), "context_window"),
    "bad_request": (error(422), "bad_request"),
    "filtered": (answer("half a te", finish_reason="content_filter"), "refused"),
    "declined": (answer("I'm sorry, but I cannot write that."), "refused"),
    "failed": (error(503), "call_failed"),
}


# The others take as many runs; a call is given up after half a minute of pauses.
QUICK = {"bad_request"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.runs]) for name in FAULTS]
)
def test_what_a_model_turns_down_is_taken_over_and_paid_for_once(
    run: Run, bucket: str, models: Models, name: str
) -> None:
    fault, reason = FAULTS[name]
    models.behaviours[A] = refuse_some(10, fault)
    order = {"fallback_models": [B, C], "max_attempts_per_pair": 1}
    first = run(**order)
    assert (first.accepted, first.rejected, first.turned_down) == (40, 0, 4)
    assert (models.calls(B), models.calls(C)) == (4, 0)
    assert writers(bucket) == {A: 36, B: 4}
    assert first.by_model[A].turned_down == {reason: 4}
    assert first.by_model[B].taken_over == 4
    calls = models.calls(A)
    assert run(**order).requests == 0
    redo = run(**order, on_published="redo")
    assert (redo.judged, redo.cached, redo.paid, redo.accepted) == (40, 40, 0, 40)
    assert redo.by_model[A].turned_down == {reason: 4}
    assert writers(bucket) == {A: 36, B: 4}
    assert (models.calls(A), models.calls(B)) == (calls, 4)


@pytest.mark.runs
def test_the_last_fallback_that_turns_a_request_down_ends_it_with_its_reason(
    run: Run, bucket: str, models: Models
) -> None:
    models.behaviours = {name: refuse_some(10, error(422)) for name in (A, B)}
    models.behaviours[B] = refuse_some(20, answer("I'm sorry, but no."))
    first = run(fallback_models=[B], max_attempts_per_pair=1)
    assert (first.accepted, first.rejected, first.reasons["refused"], first.turned_down) == (38, 2, 2, 4)
    assert writers(bucket, "rejected") == {B: 2}
    assert (run(fallback_models=[B], max_attempts_per_pair=1).requests, models.calls(B)) == (0, 4)
    # A further fallback has what the others turned down; nobody else is asked again.
    more = run(fallback_models=[B, C], max_attempts_per_pair=1)
    assert (more.accepted, more.paid, more.cached, writers(bucket)) == (2, 2, 0, {A: 36, B: 2, C: 2})
    assert (models.calls(A), models.calls(B), models.calls(C)) == (40, 4, 2)


@pytest.mark.runs
def test_a_fallback_that_is_named_later_takes_over_what_was_refused_before(
    run: Run, bucket: str, models: Models
) -> None:
    models.behaviours[A] = refuse_some(10, error(422))
    assert run(max_attempts_per_pair=1).shortfall == 4
    assert run(max_attempts_per_pair=1).requests == 0
    later = run(max_attempts_per_pair=1, fallback_models=[B])
    assert (later.accepted, later.shortfall, models.calls(A), models.calls(B)) == (4, 0, 40, 4)


@pytest.mark.runs
def test_a_redo_asks_no_fallback(run: Run, bucket: str, models: Models) -> None:
    models.behaviours[A] = refuse_some(10, error(422))
    run(max_attempts_per_pair=1)
    redo = run(max_attempts_per_pair=1, fallback_models=[B], on_published="redo")
    assert (redo.judged, redo.rejected, redo.paid, models.calls(B)) == (40, 4, 0, 0)
    fresh = run(max_attempts_per_pair=1, fallback_models=[B], on_published="redo", seed=43)
    assert (fresh.judged, fresh.rejected, fresh.paid, models.calls(B)) == (40, 4, 36, 0)


# So many wait out their pauses at the same time, which grow to half a minute.
AT_ONCE = 10


@pytest.mark.faults
def test_a_model_that_is_down_leaves_the_rest_to_its_fallback(run: Run, bucket: str, models: Models) -> None:
    models.behaviours[A] = error(503)
    first = run(fallback_models=[B], concurrency=AT_ONCE)
    assert (first.accepted, first.by_model[B].taken_over) == (40, 40)
    assert first.by_model[A].turned_down == {"call_failed": 40}
    assert (writers(bucket), models.calls(B)) == ({B: 40}, 40)
    # Twenty in a row, five attempts each, and those of what was in flight.
    assert 100 <= models.calls(A) <= 100 + 5 * AT_ONCE
    calls = models.calls(A)
    models.behaviours.clear()
    redo = run(fallback_models=[B], concurrency=AT_ONCE, on_published="redo")
    assert (redo.cached, redo.paid, models.calls(A), models.calls(B)) == (40, 0, calls, 40)


@pytest.mark.runs
@pytest.mark.parametrize("name", ["filtered", "declined"])
def test_a_model_that_turns_down_its_first_requests_leaves_the_rest_to_its_fallback(
    run: Run, bucket: str, models: Models, name: str
) -> None:
    models.behaviours[A], reason = FAULTS[name]
    first = run(fallback_models=[B], concurrency=4, pairs_per_task=2)
    assert (first.accepted, first.by_model[B].taken_over, writers(bucket)) == (80, 80, {B: 80})
    assert first.by_model[A].turned_down[reason] >= 50
    assert 50 <= models.calls(A) <= 54


@pytest.mark.parametrize("broken", [A, B])
def test_a_wrong_key_or_name_of_any_model_stops_the_run_and_names_it(run: Run, models: Models, broken: str) -> None:
    models.behaviours = {A: error(422), broken: error(404)}
    with pytest.raises(PairmillError, match=f"^{broken}: no such model or address"):
        run(fallback_models=[B])
    assert models.calls(broken) == 1


def test_what_a_killed_run_paid_for_at_either_model_is_not_paid_for_again(
    run: Run, bucket: str, models: Models
) -> None:
    models.behaviours = {A: refuse_some(2, error(422)), B: refuse_some(4, error(401))}
    with pytest.raises(PairmillError, match=f"^{B}: the provider refuses the key"):
        run(fallback_models=[B], concurrency=4)
    paid = {name: dict(models.asked.get(name, {})) for name in (A, B)}
    models.behaviours[B] = good
    second = run(fallback_models=[B])
    assert (second.accepted, writers(bucket)) == (40, {A: 20, B: 20})
    assert set(models.asked[A].values()) == {1}
    # What met the wrong key was not answered, and is asked for again.
    refused = [prompt for prompt, count in models.asked[B].items() if count > 1]
    assert len(refused) <= 4
    assert all(prompt in paid[B] for prompt in refused)


@pytest.mark.runs
def test_the_report_compares_models_only_where_there_are_several(run: Run, models: Models) -> None:
    models.behaviours[B] = refuse_some(3, answer("no json"))
    alone = run(limit=3)
    assert (list(alone.by_model), model_rows(alone)) == ([A], [])
    assert "<h2>Models</h2>" not in report_page(alone)
    both = run(
        model_mix=[f"{B}=0.5"], max_attempts_per_pair=1, input_cost_per_token=0.000001, output_cost_per_token=0.00001
    )
    ours, theirs = both.by_model[A], both.by_model[B]
    assert (ours.rejected, theirs.rejected > 0) == (0, True)
    assert ours.cost_per_pair == pytest.approx(0.0006)
    assert (theirs.cost_usd, theirs.cost_per_pair, both.cost_usd) == (None, None, None)
    (first, *_), (second, *_) = model_rows(both)
    assert (first, second) == (A, B)
    assert "<h2>Models</h2>" in report_page(both)
