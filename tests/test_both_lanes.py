import asyncio
import gzip
import json
import math
import re
import socket
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from tasks.clients import llm
from tasks.clients.lane import open_lane
from tasks.clients.outcome import CallFault, Reply
from tasks.clients.wire import HEADER_SETTINGS
from tasks.core.allowances import read_allowances
from tasks.core.requests import Recipe
from tests import model_server as server
from tests.lanes import MODELS, call, outcome
from tests.model_server import Behaviour, ModelServer

pytestmark = pytest.mark.usefixtures("lane_as_it_is")

# Prices of tiers of service, of a gateway, and of more than 272,000 tokens.
PRICED = ["openai/gpt-5.1", "litellm_proxy/openai/gpt-5", "openai/gpt-5.4"]
LIMIT = "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens."


def ask_both(api_base: str, model_name: str, prompt: str, **recipe: Any) -> list[Reply | CallFault]:
    """Send one prompt in the fast lane, then in the stock lane."""

    async def ask() -> list[Reply | CallFault]:
        chosen = Recipe(model_name=model_name, **recipe)
        fast = open_lane(chosen, api_base)
        assert fast.name == "fast", fast.why
        stock = llm.connect(chosen, api_base)
        try:
            return [await outcome(fast.call, prompt), await outcome(stock, prompt)]
        finally:
            await fast.close()
            await llm.disconnect()

    return asyncio.run(ask())


def usage(**details: Any) -> dict[str, Any]:
    return {"prompt_tokens": 200, "completion_tokens": 40, "total_tokens": 240, **details}


def message(content: str | None, **changes: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content, **changes}}
    return {"choices": [choice]}


def twice(behaviour: Behaviour, name: str, *values: str) -> Behaviour:
    """Answer with one header more, which is there with each value."""

    def answer(request: web.Request, sent: dict[str, Any]) -> web.Response:
        response: web.Response = behaviour(request, sent)
        for value in values:
            response.headers.add(name, value)
        return response

    return answer


def packed(name: str, **changes: Any) -> Behaviour:
    """Answer with a completion that is packed with gzip, whose encoding is written so."""
    content = gzip.compress(json.dumps(server.completion("x", **changes)).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": name}
    return lambda request, sent: web.Response(body=content, headers=headers)


LEFT = {"x-ratelimit-remaining-requests": "7", "X-RateLimit-Reset-Requests": "2s"}
REPLIES: dict[str, Behaviour] = {
    "good": server.good,
    "another model": server.answer("x", model="gpt-4o-2024-08-06"),
    "no model": server.answer("x", model=None),
    "length": server.answer("cut of", finish_reason="length"),
    "content filter": server.answer("x", finish_reason="content_filter"),
    "another finish": server.answer("x", finish_reason="end_turn"),
    "a gateway's cost": server.body(200, json.dumps(server.completion("x")), **{"x-litellm-response-cost": "0.125"}),
    "rate limits": server.body(200, json.dumps(server.completion("x")), **LEFT),
    "what is left twice": twice(server.answer("x"), "x-ratelimit-remaining-requests", "9", "7"),
    "what is left twice, without a text": twice(server.answer(None), "x-ratelimit-remaining-requests", "9", "7"),
    "packed": packed("gzip"),
    "packed, in capitals": packed("GZIP"),
    "packed, and not plain": packed("gzip", service_tier="priority"),
    **{
        f"as it is, said {name!r}": server.body(200, json.dumps(server.completion("x")), **{"Content-Encoding": name})
        for name in ("", "identity", "Identity")
    },
    "no finish": server.answer("x", choices=[{"index": 0, "message": {"role": "assistant", "content": "x"}}]),
    "empty text": server.answer(""),
    "half a surrogate pair": server.answer("a \ud83d half"),
    "no text": server.answer(None),
    "no choices": server.answer("x", choices=[]),
    "two choices": server.answer("x", choices=[*message("first")["choices"], *message("second")["choices"]]),
    "refusal": server.answer(None, **message(None, refusal="I must not.")),
    "tool call": server.answer(
        None,
        **message(None, tool_calls=[{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]),
    ),
    "tool call beside a text": server.answer(
        "x",
        **message("x", tool_calls=[{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]),
    ),
    "no tool calls": server.answer("x", **message("x", tool_calls=[])),
    "reasoning apart": server.answer("x", **message("x", reasoning_content="so")),
    "reasoning within": server.answer("<think>so</think>{}"),
    "reasoning, cut": server.answer("<think>so", finish_reason="length"),
    "no usage": server.answer("x", usage=None),
    "empty usage": server.answer("x", usage={"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}),
    "cached tokens": server.answer("x", usage=usage(prompt_tokens_details={"cached_tokens": 128})),
    "no cached tokens": server.answer("x", usage=usage(prompt_tokens_details={"cached_tokens": 0})),
    "reasoning tokens": server.answer("x", usage=usage(completion_tokens_details={"reasoning_tokens": 30})),
    "other total": server.answer("x", usage=usage(total_tokens=300)),
    "many tokens": server.answer(
        "x", usage={"prompt_tokens": 150_000, "completion_tokens": 30_000, "total_tokens": 180_000}
    ),
    "nonsense tokens": server.answer(
        "x", usage={"prompt_tokens": 10**20, "completion_tokens": -5, "total_tokens": 10**20 - 5}
    ),
    "half a surrogate pair in the model": server.answer("x", model="a \ud83d"),
    "empty error": server.answer("x", error={"message": "", "code": None}),
}

CITED = {"type": "url_citation", "url_citation": {"url": "a", "title": "b", "start_index": 0, "end_index": 1}}
COSTS: dict[str, Behaviour] = {
    "plain": server.answer("x"),
    "annotations": server.answer("x", **message("x", annotations=[CITED])),
    "no annotations": server.answer("x", **message("x", annotations=[])),
    "a cost in the usage": server.answer("x", usage=usage(cost=0.25)),
    "many tokens": server.answer(
        "x", usage={"prompt_tokens": 300_000, "completion_tokens": 1, "total_tokens": 300_001}
    ),
    **{tier: server.answer("x", service_tier=tier) for tier in ("default", "auto", "flex", "priority")},
    **{
        f"a gateway's cost of {cost}": server.body(
            200, json.dumps(server.completion("x")), **{"X-LiteLLM-Response-Cost": cost}
        )
        for cost in ("0.5", "0", "-1", "nan", "inf", "1e999", "none")
    },
}

# Known to differ: the fast lane reads a reply of hosted_vllm without a `role`, one packed with deflate, and one with a
# byte in its headers that is no ASCII, where litellm or the stock lane's bounds raise what is tried again.
NESTED = '{"error":' + '{"a":' * 5000 + "1" + "}" * 5001
FAULTS: dict[str, Behaviour] = {
    **{
        str(status): server.error(status)
        for status in (400, 401, 402, 403, 404, 408, 409, 422, 500, 502, 503, 504, 529)
    },
    "context code": server.error(400, "no", "context_length_exceeded"),
    "context wording": server.error(400, LIMIT),
    "policy code": server.error(400, "no", "content_policy_violation"),
    "policy wording": server.error(400, "Your request was rejected as a result of our safety system."),
    "400 without JSON": server.body(400, "no", "text/plain"),
    "429": server.error(429),
    "429 and rate limits": server.error(429, **LEFT),
    "429 and seconds": server.error(429, **{"Retry-After": "7"}),
    "429 and milliseconds": server.error(429, **{"retry-after-ms": "1500"}),
    "429 and a date": server.error(429, **{"Retry-After": "Sun, 06 Nov 2094 08:49:37 GMT"}),
    "429 and the same header twice": twice(server.error(429), "Retry-After", "7", "9"),
    "429 and what is left twice": twice(server.error(429), "x-ratelimit-remaining-requests", "9", "7"),
    "429 without JSON": server.body(429, "slow down", "text/plain", **{"Retry-After": "3"}),
    "503 and seconds": server.error(503, **{"Retry-After": "7"}),
    "parameter": server.error(400, "Unsupported parameter: 'max_tokens'", "unsupported_parameter"),
    "quota": server.error(429, "You exceeded your current quota", "insufficient_quota"),
    "502 as HTML": server.body(502, "<html>Bad Gateway</html>", "text/html"),
    "200 as HTML": server.body(200, "<html>", "text/html"),
    "200 with an error": server.body(200, json.dumps({"error": {"message": "overloaded", "code": 503}})),
    "200 with an error beside a completion": server.answer("x", error={"message": "overloaded", "code": 503}),
    "200 and no quota": server.body(
        200, json.dumps({"error": {"message": "You exceeded your current quota", "type": "insufficient_quota"}})
    ),
    "200 with a text": server.body(200, '"done"'),
    "200 without choices": server.body(200, "{}"),
    "200 cut off": server.body(200, '{"id": "x", "choi'),
    "nothing": server.body(200, ""),
    "nested error": server.body(500, NESTED),
    "nested reply": server.body(200, NESTED),
    "reset": server.reset,
    "reset in the body": server.reset_in_body,
}


# What differs by who carries the request, not by what it asks for.
CARRIAGE = re.compile("host|connection|user-agent|accept(-encoding)?|content-length|x-stainless-.*")


def read_heads(models: ModelServer) -> list[tuple[str, dict[str, str]]]:
    """Return the path of each request and the headers that are the same in both lanes."""
    return [
        (path, {name: value for name, value in headers.items() if not CARRIAGE.fullmatch(name)})
        for path, headers in models.heads
    ]


@pytest.mark.parametrize("model_name", MODELS)
def test_both_lanes_send_the_same_request(model_server: ModelServer, model_name: str) -> None:
    for recipe in ({}, {"temperature": 0.7, "top_p": 0.9, "max_tokens": 77}, {"structured_output": False}):
        ask_both(model_server.api_base, model_name, 'a "prompt"\n漢字 🎉', **recipe)
    for sent in (model_server.bodies, read_heads(model_server)):
        assert sent[0::2] == sent[1::2]


def test_what_openai_is_told_of_its_customer_is_nothing_to_a_server_of_ones_own(
    model_server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in HEADER_SETTINGS:
        monkeypatch.setenv(name, "X-Team: mine")
    ask_both(model_server.api_base, "hosted_vllm/some", "a prompt")
    fast, stock = read_heads(model_server)
    assert fast == stock


@pytest.mark.parametrize("name", HEADER_SETTINGS)
@pytest.mark.parametrize("model_name", [one for one in MODELS if not one.startswith("hosted_vllm")])
def test_headers_that_a_setting_asks_for_are_sent(
    model_server: ModelServer, monkeypatch: pytest.MonkeyPatch, model_name: str, name: str
) -> None:
    monkeypatch.setenv(name, "X-Team: mine")
    found = call(model_server, model_name)
    assert isinstance(found, Reply), found
    ((_, headers),) = read_heads(model_server)
    assert "mine" in str(sorted(headers.values()))


@pytest.mark.parametrize("name", REPLIES)
@pytest.mark.parametrize("model_name", MODELS)
def test_both_lanes_read_the_same_reply(model_server: ModelServer, model_name: str, name: str) -> None:
    model_server.default = REPLIES[name]
    read_both(model_server, model_name)


def read_both(models: ModelServer, model_name: str) -> Reply:
    """Return the reply that both lanes read, each field the same."""
    fast, stock = ask_both(models.api_base, model_name, "a prompt")
    assert isinstance(stock, Reply), stock
    assert isinstance(fast, Reply), fast
    assert fast.cost_usd == (stock.cost_usd and pytest.approx(stock.cost_usd, rel=1e-9))
    assert replace(fast, cost_usd=None) == replace(stock, cost_usd=None)
    assert list(read_allowances(fast.headers, 0.0)) == list(read_allowances(stock.headers, 0.0))
    return fast


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("model_name", MODELS[:2] + PRICED)
def test_both_lanes_count_the_same_cost(model_server: ModelServer, model_name: str, name: str) -> None:
    model_server.default = COSTS[name]
    cost = read_both(model_server, model_name).cost_usd
    assert cost is None or 0 <= cost < math.inf
    if model_name.startswith("litellm_proxy/"):
        assert cost == {"a gateway's cost of 0.5": 0.5, "a gateway's cost of 0": 0.0}.get(name)


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("model_name", MODELS)
def test_both_lanes_meet_the_same_fault(model_server: ModelServer, model_name: str, name: str) -> None:
    model_server.default = FAULTS[name]
    fast, stock = ask_both(model_server.api_base, model_name, "a prompt")
    assert isinstance(stock, CallFault), stock
    assert isinstance(fast, CallFault), fast
    assert without_words(fast) == without_words(stock)
    assert list(read_allowances(fast.headers, 0.0)) == list(read_allowances(stock.headers, 0.0))
    assert len(fast.message) < 500
    assert len(model_server.prompts) == 2


@pytest.mark.parametrize("model_name", MODELS)
def test_both_lanes_tell_that_nobody_took_the_connection(model_name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
    fast, stock = ask_both(closed, model_name, "a prompt")
    assert isinstance(stock, CallFault), stock
    assert isinstance(fast, CallFault), fast
    assert without_words(fast) == without_words(stock)
    assert (fast.kind, fast.unreached, fast.billed) == ("transient", True, False)


def without_words(fault: CallFault) -> CallFault:
    return replace(fault, message="", headers={})


CODES = {
    "insufficient_quota": {400: "fatal", 422: "fatal", 429: "fatal"},
    "billing_not_active": {400: "fatal", 422: "fatal", 429: "fatal"},
    "unsupported_parameter": {400: "fatal", 429: "throttled"},
    "context_length_exceeded": {429: "throttled"},
    "content_policy_violation": {429: "throttled"},
}
REASONS = {"context_length_exceeded": "context_window", "content_policy_violation": "content_policy"}


@pytest.mark.parametrize("named", ["code", "type"])
@pytest.mark.parametrize("status", [400, 413, 422, 429])
@pytest.mark.parametrize("code", CODES)
def test_a_code_says_the_same_in_both_lanes_whatever_the_words(
    model_server: ModelServer, code: str, status: int, named: str
) -> None:
    model_server.default = server.body(status, json.dumps({"error": {"message": "no", named: code}}))
    fast, stock = ask_both(model_server.api_base, MODELS[0], "a prompt")
    assert isinstance(stock, CallFault), stock
    assert isinstance(fast, CallFault), fast
    assert without_words(fast) == without_words(stock)
    kind = CODES[code].get(status, "refused")
    assert (fast.kind, fast.reason) == (kind, REASONS.get(code, "bad_request") if kind == "refused" else "")
