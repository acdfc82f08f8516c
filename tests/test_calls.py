from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from tasks.clients import llm
from tasks.clients.calls import ATTEMPTS, ModelClient, Request
from tasks.core.errors import ModelError, PairmillError
from tasks.core.requests import Recipe
from tests import model_server as server
from tests.model_server import ModelServer

RECIPE = Recipe(model_name="openai/test-model")


class Kept:
    """Keeps completions in memory."""

    def __init__(self) -> None:
        self.lost: PairmillError | None = None
        self.keys: list[str] = []

    def append(self, request_key: str, completion: Mapping[str, Any]) -> None:
        self.keys.append(request_key)


def complete(models: ModelServer, prompts: list[str], kept: Kept, concurrency: int = 8) -> list[dict[str, Any]]:
    connect = partial(llm.connect, RECIPE, models.api_base)
    client = ModelClient(
        connect, kept, concurrency, close_call=llm.disconnect, deadline_seconds=5, backoff_seconds=0.01
    )
    with client as model:
        return model.complete([Request(prompt, prompt) for prompt in prompts])


TRANSIENT = {
    **{str(status): server.error(status) for status in (408, 409, 500, 502, 503, 504, 529)},
    "reset": server.reset,
    "reset in the body": server.reset_in_body,
    "html": server.body(200, "<html>", "text/html"),
    "truncated": server.body(200, '{"id": "x", "choi'),
}
ANSWERED: dict[str, tuple[server.Behaviour, str, str]] = {
    "no choices": (server.answer("x", choices=[]), "error", "no_choices"),
    "length": (server.answer("x", finish_reason="length"), "finish_reason", "length"),
    "content filter": (server.answer("x", finish_reason="content_filter"), "finish_reason", "content_filter"),
    "400": (server.error(400), "error", "bad_request"),
    "422": (server.error(422), "error", "bad_request"),
    "context": (
        server.error(400, "This model's maximum context length is 10 tokens", "context_length_exceeded"),
        "error",
        "context_window",
    ),
}


@pytest.mark.parametrize("name", list(TRANSIENT))
def test_a_transient_fault_is_tried_again(model_server: ModelServer, name: str) -> None:
    model_server.script("p", [TRANSIENT[name], server.good])
    kept = Kept()
    (completion,) = complete(model_server, ["p"], kept)
    assert (completion["attempts"], len(model_server.prompts), kept.keys) == (2, 2, ["p"])


def test_a_call_that_keeps_failing_is_a_row_and_not_in_the_journal(model_server: ModelServer) -> None:
    model_server.script("p", [server.error(500)])
    kept = Kept()
    (completion,) = complete(model_server, ["p"], kept)
    assert (completion["error"], len(model_server.prompts), kept.keys) == ("call_failed", ATTEMPTS, [])


def test_a_rate_limited_call_is_no_attempt(model_server: ModelServer) -> None:
    model_server.script("p", [server.error(429, **{"Retry-After": "0"})] * 7 + [server.good])
    (completion,) = complete(model_server, ["p"], Kept())
    assert (completion["attempts"], completion["throttled"]) == (1, 7)


@pytest.mark.parametrize("name", list(ANSWERED))
def test_an_answer_that_is_no_pair_is_paid_for_once(model_server: ModelServer, name: str) -> None:
    behaviour, column, value = ANSWERED[name]
    model_server.script("p", [behaviour])
    kept = Kept()
    (completion,) = complete(model_server, ["p"], kept)
    assert (completion[column], len(model_server.prompts), kept.keys) == (value, 1, ["p"])


@pytest.mark.parametrize(
    "fault",
    [
        server.error(401),
        server.error(403),
        server.error(404),
        server.error(429, "You exceeded your current quota", "insufficient_quota"),
    ],
)
def test_what_no_call_survives_stops_all_within_those_in_flight(
    model_server: ModelServer, fault: server.Behaviour
) -> None:
    model_server.default = fault
    with pytest.raises(ModelError):
        complete(model_server, [f"p{number}" for number in range(200)], Kept(), concurrency=8)
    assert len(model_server.prompts) <= 8


def test_one_user_turn_with_the_schema_is_sent(model_server: ModelServer) -> None:
    complete(model_server, ["p"], Kept())
    (body,) = model_server.bodies
    assert [message["role"] for message in body["messages"]] == ["user"]
    assert body["response_format"]["type"] == "json_schema"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:10 GMT"}, 8.0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_every_spelling(headers: dict[str, str], seconds: float | None) -> None:
    assert llm.parse_retry_after(headers, 2.0) == seconds
