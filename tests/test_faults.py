"""Every fault that a provider can show, what each costs, and what becomes of the request.

One table, run for each dialect and for both lanes. Without the marker `faults` only
the first of them runs.
"""

import email.utils
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from tasks.clients.attempts import ATTEMPTS, Attempts, Request
from tasks.clients.calls import ModelClient
from tasks.clients.lane import SETTING, open_lane
from tasks.core.errors import RESUME, ModelError, UsageError
from tasks.core.requests import Recipe
from tests import model_server as server
from tests.benchmarks import pacing
from tests.dialects import DIALECTS, Dialect
from tests.kept import Kept
from tests.model_server import Behaviour, ModelServer
from tests.tally import tally

IN_FLIGHT = 8
DEADLINE_SECONDS = 3.0


@dataclass(frozen=True)
class Case:
    """One row of the table.

    again: the fault, then a good reply, which is what counts; waits: likewise,
    after at least `value` seconds, and the fault is no attempt; row: paid for (or
    refused) once, and kept with `value` in `column`; stop: no other call is made,
    and the message says `value`.
    """

    becomes: Literal["again", "waits", "row", "stop"]
    fault: Callable[[Dialect], Behaviour]
    value: Any = None
    column: str = "error"


def in_seconds(dialect: Dialect, seconds: float) -> Behaviour:
    """Answer 429 with an HTTP date, made when the request arrives."""

    def refuse(request: Any, sent: Any) -> Any:
        date = email.utils.formatdate(time.time() + seconds, usegmt=True)
        return dialect.error(429, **{"Retry-After": date})(request, sent)

    return refuse


def answer_status(status: int) -> Callable[[Dialect], Behaviour]:
    """Answer with an error of this status."""
    return lambda dialect: dialect.error(status)


CASES: dict[str, Case] = {
    "429": Case("waits", lambda d: d.error(429), 0.0),
    "429, retry-after in seconds": Case("waits", lambda d: d.error(429, **{"Retry-After": "1"}), 1.0),
    # A date has whole seconds: of 2 at least 1 is left.
    "429, retry-after as a date": Case("waits", lambda d: in_seconds(d, 2), 0.9),
    "429, retry-after-ms": Case("waits", lambda d: d.error(429, **{"retry-after-ms": "300"}), 0.3),
    "429, quota": Case("stop", lambda d: d.says("quota"), "quota is used up"),
    **{str(status): Case("again", answer_status(status)) for status in (408, 409, 500, 502, 503, 504, 529)},
    "reset before the body": Case("again", lambda d: server.reset),
    "reset in the body": Case("again", lambda d: server.reset_in_body),
    "dripping body": Case("again", lambda d: server.drip),
    "hang": Case("again", lambda d: server.hang),
    "html with 200": Case("again", lambda d: server.body(200, "<html><body>Welcome</body></html>", "text/html")),
    "truncated json": Case("again", lambda d: server.body(200, '{"id": "x", "choi')),
    "200 with an error body": Case("again", lambda d: d.error(200, "it failed", "server_error")),
    "no choices": Case("row", lambda d: d.no_choices(), None, "text"),
    "null content": Case("row", lambda d: d.answer(None), None, "text"),
    "length": Case("row", lambda d: d.answer("cut", "length"), "length", "finish_reason"),
    "content filter": Case("row", lambda d: d.answer(None, "content_filter"), "content_filter", "finish_reason"),
    "refusal": Case("row", lambda d: d.refusal(), None, "text"),
    "400": Case("row", lambda d: d.error(400), "bad_request"),
    "400, context window": Case("row", lambda d: d.says("context"), "context_window"),
    "400, content policy": Case("row", lambda d: d.says("policy"), "content_policy"),
    "422": Case("row", lambda d: d.error(422), "bad_request"),
    "400, unsupported parameter": Case("stop", lambda d: d.says("parameter"), "does not take a parameter"),
    "401": Case("stop", lambda d: d.error(401), "refuses the key"),
    "402": Case("stop", lambda d: d.error(402), "quota is used up"),
    "403": Case("stop", lambda d: d.error(403), "may not use this model"),
    "404": Case("stop", lambda d: d.error(404), "no such model or address"),
}

WAYS = [
    ("openai", "stock"),
    ("openai", "fast"),
    ("hosted_vllm", "stock"),
    ("hosted_vllm", "fast"),
    ("anthropic", "stock"),
]


@pytest.fixture(
    params=[pytest.param(way, marks=pytest.mark.faults if way != WAYS[0] else (), id="-".join(way)) for way in WAYS]
)
def dialect(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Dialect:
    name, lane = request.param
    monkeypatch.setenv(SETTING, lane)
    monkeypatch.setenv(DIALECTS[name].key, "test-key")
    return DIALECTS[name]


def complete(
    models: ModelServer, dialect: Dialect, prompts: list[str], kept: Kept, deadline: float = 60.0, **recipe: Any
) -> list[dict[str, Any]]:
    """Ask for completions with real calls to the test server."""
    lane = open_lane(Recipe(**{"model_name": dialect.model_name, **recipe}), dialect.api_base(models))
    attempts = Attempts(lane.call, kept, IN_FLIGHT, deadline_seconds=deadline, backoff_seconds=0.01)
    with ModelClient(attempts, close_call=lane.close) as model:
        return model.complete([Request(prompt, prompt) for prompt in prompts])


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.becomes in ("again", "waits")])
def test_a_passing_fault_costs_one_more_request(model_server: ModelServer, dialect: Dialect, name: str) -> None:
    case, kept = CASES[name], Kept()
    deadline = 60.0
    if name in ("hang", "dripping body"):
        # A process's first call imports for seconds.
        complete(model_server, dialect, ["the first"], Kept())
        model_server.forget()
        deadline = DEADLINE_SECONDS
    model_server.script("p", [case.fault(dialect), server.good])
    (completion,) = complete(model_server, dialect, ["p"], kept, deadline)
    assert (completion["text"], kept.keys) == (server.good_text("p"), ["p"])
    waits, asked = case.becomes == "waits", len(model_server.prompts)
    if deadline == DEADLINE_SECONDS:
        # On a machine that is held up it ends good calls, too.
        assert 2 <= asked <= completion["attempts"]
    else:
        assert (asked, completion["attempts"], completion["throttled"]) == ((2, 1, 1) if waits else (2, 2, 0))
    if waits:
        first, second = model_server.times
        assert second - first >= case.value
    tally["faults injected"] += 1


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.becomes == "row"])
def test_what_no_other_attempt_would_mend_is_paid_for_once_and_kept(
    model_server: ModelServer, dialect: Dialect, name: str
) -> None:
    case, kept = CASES[name], Kept()
    model_server.script("p", [case.fault(dialect), server.good])
    (completion,) = complete(model_server, dialect, ["p"], kept)
    assert completion[case.column] == case.value
    assert (len(model_server.prompts), kept.keys, completion["attempts"]) == (1, ["p"], 1)
    tally["faults injected"] += 1


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.becomes == "stop"])
def test_what_no_call_survives_stops_the_run_at_the_first(
    model_server: ModelServer, dialect: Dialect, name: str
) -> None:
    case, kept = CASES[name], Kept()
    model_server.default = case.fault(dialect)
    with pytest.raises(ModelError) as caught:
        complete(model_server, dialect, [f"p{number}" for number in range(200)], kept)
    assert (len(model_server.prompts), kept.keys) == (1, [])
    assert str(case.value) in str(caught.value)
    assert RESUME in str(caught.value)
    tally["faults injected"] += 1


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.becomes == "stop"])
def test_in_the_middle_of_a_run_it_costs_at_most_the_calls_in_flight(
    model_server: ModelServer, dialect: Dialect, name: str
) -> None:
    case, kept = CASES[name], Kept()
    model_server.latency_seconds = 0.02
    good = 40
    model_server.script("p", [*[server.good] * good, case.fault(dialect)])
    with pytest.raises(ModelError):
        complete(model_server, dialect, [f"p{number}" for number in range(200)], kept)
    assert len(kept.keys) <= good < len(model_server.prompts) <= good + IN_FLIGHT
    tally["faults injected"] += len(model_server.prompts) - good


def test_an_address_where_nobody_answers_stops_the_run_at_the_first_calls(dialect: Dialect) -> None:
    # Nothing listens on the port of the discard service.
    lane = open_lane(Recipe(model_name=dialect.model_name), f"http://127.0.0.1:9{dialect.path}")
    with ModelClient(Attempts(lane.call, Kept(), IN_FLIGHT, backoff_seconds=0.01), close_call=lane.close) as model:
        with pytest.raises(ModelError, match=r"No call reached the model .* Check the network, and --api-base"):
            model.complete([Request(f"p{number}", "p") for number in range(200)])
        assert ATTEMPTS - 1 <= model.attempts.retried < IN_FLIGHT * ATTEMPTS
    tally["faults injected"] += ATTEMPTS


SAID: dict[str, Callable[[Dialect], Behaviour]] = {
    "Incorrect API key provided": lambda d: d.error(401, "Incorrect API key provided.", "invalid_api_key"),
    "The model `x` does not exist": lambda d: d.error(404, "The model `x` does not exist", "model_not_found"),
    "page not found": lambda d: server.body(404, "page not found", "text/plain"),
    "Unsupported parameter: top_p": lambda d: d.error(400, "Unsupported parameter: top_p", "unsupported_parameter"),
}


@pytest.mark.parametrize("said", list(SAID))
def test_a_run_that_stops_says_the_providers_own_sentence(
    model_server: ModelServer, dialect: Dialect, said: str
) -> None:
    model_server.default = SAID[said](dialect)
    with pytest.raises(ModelError) as caught:
        complete(model_server, dialect, ["p"], Kept())
    assert f"({said})" in str(caught.value)
    assert "litellm" not in str(caught.value)


@pytest.mark.parametrize("packed", [False, True])
def test_a_reply_that_is_far_too_long_is_not_read_to_its_end(
    model_server: ModelServer, dialect: Dialect, *, packed: bool
) -> None:
    flood = server.Flood(packed)
    model_server.script("p", [flood, server.good])
    (completion,) = complete(model_server, dialect, ["p"], Kept())
    assert (completion["text"], completion["attempts"]) == (server.good_text("p"), 2)
    # Sockets hold some more than was read.
    assert flood.sent < 25_000_000
    tally["faults injected"] += 1


@pytest.mark.parametrize("name", ["500", "reset before the body", "truncated json"])
def test_a_fault_that_does_not_pass_is_a_row_and_not_kept(
    model_server: ModelServer, dialect: Dialect, name: str
) -> None:
    kept = Kept()
    model_server.script("p", [CASES[name].fault(dialect)])
    (completion,) = complete(model_server, dialect, ["p"], kept)
    assert (completion["error"], completion["attempts"]) == ("call_failed", ATTEMPTS)
    assert (len(model_server.prompts), kept.keys) == (ATTEMPTS, [])
    tally["faults injected"] += ATTEMPTS


def test_a_missing_key_is_found_before_a_request(
    model_server: ModelServer, dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(dialect.key)
    if dialect.needs_key:
        with pytest.raises(ModelError, match=f"set {dialect.key}"):
            complete(model_server, dialect, ["p"], Kept())
        assert model_server.prompts == []
    else:
        assert complete(model_server, dialect, ["p"], Kept())[0]["error"] is None


def test_an_unknown_provider_is_found_before_a_request(model_server: ModelServer, dialect: Dialect) -> None:
    with pytest.raises(UsageError, match="provider/model"):
        complete(model_server, dialect, ["p"], Kept(), model_name="nobody/some-model")
    assert model_server.prompts == []


def test_a_parameter_that_litellm_knows_the_model_does_not_take_is_found_before_a_request(
    model_server: ModelServer, dialect: Dialect
) -> None:
    if dialect.unsupported:
        with pytest.raises(ModelError, match="does not take a parameter"):
            complete(model_server, dialect, ["p"], Kept(), **dialect.unsupported)
        assert model_server.prompts == []
    else:
        assert complete(model_server, dialect, ["p"], Kept())[0]["error"] is None


@pytest.mark.faults
def test_a_server_that_allows_eight_calls_is_refused_few(
    model_server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTED_VLLM_API_KEY", "test-key")
    figures = pacing.in_flight(model_server, 500)
    # Of 64 calls in flight it would refuse seven in eight. How near the limit comes is measured in virtual time, in
    # test_pacing: here that is up to the machine.
    assert figures.refused <= 0.3
    assert pacing.ALLOWED / 2 <= figures.limit <= 2 * pacing.ALLOWED


@pytest.mark.faults
@pytest.mark.parametrize("kind", [pacing.window, pacing.bucket])
def test_a_server_that_states_its_limits_refuses_next_to_none(
    model_server: ModelServer, monkeypatch: pytest.MonkeyPatch, kind: Callable[..., pacing.Figures]
) -> None:
    monkeypatch.setenv("HOSTED_VLLM_API_KEY", "test-key")
    # Where it does not state them, it refuses one in five. In virtual time, in test_pacing, it is next to none.
    assert kind(model_server, 300).refused <= 0.1
