import asyncio
import email.utils
import json
import time
from typing import Any

import pytest

from tasks.clients import llm
from tasks.clients.faults import classify, parse_retry_after
from tasks.clients.outcome import CallFault, Reply
from tasks.core.errors import ModelError, UsageError
from tasks.core.prompts import RESPONSE_SCHEMA
from tasks.core.requests import Recipe
from tests.model_server import Behaviour, ModelServer, answer, body, completion, error

PRICED = "openai/gpt-4o-mini"
NOW = 1_795_478_400.0


def ask(server: ModelServer, prompt: str = "a prompt", **recipe: Any) -> Reply:
    """Send one prompt, exactly once."""

    async def once() -> Reply:
        call = llm.connect(Recipe(**{"model_name": PRICED, **recipe}), server.api_base)
        try:
            return await call(prompt)
        finally:
            await llm.disconnect()

    return asyncio.run(once())


def fault_of(server: ModelServer, behaviour: Behaviour, **recipe: Any) -> CallFault:
    """Return the fault of one attempt that `behaviour` meets."""
    server.default = behaviour
    with pytest.raises(CallFault) as caught:
        ask(server, **recipe)
    assert len(server.prompts) == 1
    return caught.value


def test_a_prompt_is_sent_as_one_user_turn(model_server: ModelServer) -> None:
    ask(model_server, "match these")
    assert model_server.bodies[0]["messages"] == [{"role": "user", "content": "match these"}]


def test_the_sampling_parameters_are_sent(model_server: ModelServer) -> None:
    ask(model_server, temperature=0.7, top_p=0.9, max_tokens=77)
    sent = model_server.bodies[0]
    assert (sent["temperature"], sent["top_p"], sent["max_tokens"]) == (0.7, 0.9, 77)


def test_the_model_is_asked_for_without_its_provider(model_server: ModelServer) -> None:
    ask(model_server)
    assert model_server.bodies[0]["model"] == "gpt-4o-mini"


def test_the_key_of_the_environment_is_sent(model_server: ModelServer) -> None:
    ask(model_server)
    assert model_server.keys == ["Bearer test-key"]


@pytest.mark.parametrize("key", ["test-key\n", " test-key"])
def test_a_key_that_cannot_be_sent_is_found_before_a_request(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is mounted from a file often ends in a line break."""
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ModelError, match="OPENAI_API_KEY has a space or a line break") as caught:
        llm.connect(Recipe(model_name=PRICED), "")
    assert "test-key" not in str(caught.value)


@pytest.mark.parametrize("model_name", [PRICED, "hosted_vllm/some-model"])
def test_a_structured_recipe_asks_for_its_json_schema(model_server: ModelServer, model_name: str) -> None:
    ask(model_server, model_name=model_name, structured_output=True)
    assert model_server.bodies[0]["response_format"] == RESPONSE_SCHEMA


def test_an_unstructured_recipe_asks_for_no_format(model_server: ModelServer) -> None:
    ask(model_server, structured_output=False)
    assert "response_format" not in model_server.bodies[0]


def test_a_model_that_takes_no_schema_is_not_asked_for_one(model_server: ModelServer) -> None:
    ask(model_server, model_name="openai/gpt-3.5-turbo-16k", structured_output=True)
    assert "response_format" not in model_server.bodies[0]


def test_a_reply_is_read_in_our_words(model_server: ModelServer) -> None:
    model_server.default = answer("a text", finish_reason="length")
    reply = ask(model_server)
    assert reply.cost_usd == pytest.approx(200 * 0.15e-6 + 40 * 0.6e-6)
    assert reply == Reply(
        text="a text",
        finish_reason="length",
        model_answered="answering-model-1",
        input_tokens=200,
        output_tokens=40,
        cost_usd=reply.cost_usd,
    )


def test_the_cost_of_a_model_without_a_price_is_unknown(model_server: ModelServer) -> None:
    assert ask(model_server, model_name="openai/no-such-price").cost_usd is None


def test_a_reply_without_usage_has_no_tokens_and_no_cost(model_server: ModelServer) -> None:
    model_server.default = answer("a text", usage=None)
    reply = ask(model_server)
    assert (reply.input_tokens, reply.output_tokens, reply.cost_usd) == (None, None, None)


def test_half_a_surrogate_pair_in_a_reply_is_replaced(model_server: ModelServer) -> None:
    model_server.default = answer("a \ud83d half")
    assert ask(model_server).text == "a \ufffd half"


@pytest.mark.parametrize("text", ["two\nlines", "a \u2028 line", "nul \0 nul", "🎉", "", "  "])
def test_a_replys_text_is_not_touched(model_server: ModelServer, text: str) -> None:
    model_server.default = answer(text)
    assert ask(model_server).text == text


def test_a_missing_key_is_found_before_a_request(model_server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ModelError, match="set OPENAI_API_KEY"):
        ask(model_server)
    assert model_server.prompts == []


@pytest.mark.parametrize("model_name", ["no-such-provider/model", "model-without-provider", ""])
def test_an_unknown_provider_is_a_wrong_parameter(model_server: ModelServer, model_name: str) -> None:
    with pytest.raises(UsageError, match="provider"):
        ask(model_server, model_name=model_name)
    assert model_server.prompts == []


CODES = {
    "context_length_exceeded": "context_window",
    "content_policy_violation": "content_policy",
    "content_filter": "content_policy",
    "invalid_value": "bad_request",
}


@pytest.mark.parametrize("model_name", [PRICED, "hosted_vllm/some-model"])
@pytest.mark.parametrize("code", CODES)
def test_the_providers_code_says_why_a_request_is_refused(
    model_server: ModelServer, model_name: str, code: str
) -> None:
    fault = fault_of(model_server, error(400, "no", code), model_name=model_name)
    assert (fault.kind, fault.reason) == ("refused", CODES[code])


WORDINGS = {
    "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens.": "context_window",
    "Your request was rejected as a result of our safety system.": "content_policy",
    "temperature must be at most 2": "bad_request",
}


@pytest.mark.parametrize("wording", WORDINGS)
def test_without_a_code_the_wording_says_it(model_server: ModelServer, wording: str) -> None:
    assert fault_of(model_server, error(400, wording)).reason == WORDINGS[wording]


@pytest.mark.parametrize("model_name", [PRICED, "hosted_vllm/some-model"])
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"Retry-After": "9", "Retry-After-Ms": "1500"}, 1.5),
        ({}, None),
    ],
)
def test_a_429_carries_the_wait_of_its_headers(
    model_server: ModelServer, model_name: str, headers: dict[str, str], seconds: float | None
) -> None:
    fault = fault_of(model_server, error(429, **headers), model_name=model_name)
    assert (fault.kind, fault.retry_after) == ("throttled", seconds)


def test_a_429_carries_the_wait_of_an_http_date(model_server: ModelServer) -> None:
    date = email.utils.formatdate(time.time() + 1800, usegmt=True)
    waits = fault_of(model_server, error(429, **{"Retry-After": date})).retry_after
    assert waits == pytest.approx(1800, abs=120)


def test_a_503_carries_the_wait_of_its_headers(model_server: ModelServer) -> None:
    fault = fault_of(model_server, error(503, **{"Retry-After": "7"}))
    assert (fault.kind, fault.retry_after) == ("transient", 7.0)


def test_a_fatal_faults_message_names_the_model_and_what_was_said(model_server: ModelServer) -> None:
    message = fault_of(model_server, error(404, "The model does not exist")).message
    assert PRICED in message
    assert "The model does not exist" in message
    assert "--model-name" in message


def test_a_faults_message_never_holds_the_key(model_server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-this-test")
    assert "sk-secret" not in fault_of(model_server, error(401, "Incorrect API key provided")).message


@pytest.mark.parametrize("status", [200, 500])
def test_a_long_body_makes_a_short_message(model_server: ModelServer, status: int) -> None:
    fault = fault_of(model_server, body(status, "<html>" + "x" * (1 << 16), "text/html"))
    assert fault.kind == "transient"
    assert len(fault.message) < 500


def test_an_exception_of_an_unknown_kind_is_transient() -> None:
    assert classify(RuntimeError(), PRICED).kind == "transient"


class SaidError(Exception):
    """What litellm makes of an answer: its status and text."""

    def __init__(self, status: int, text: str, **headers: str) -> None:
        super().__init__(text)
        self.status_code, self.litellm_response_headers = status, {"date": "today", **headers}


@pytest.mark.parametrize(
    ("status", "billed"), [(408, True), (502, True), (504, True), (524, True), (500, False), (503, False), (529, False)]
)
def test_a_call_that_a_gateway_lost_sight_of_may_be_billed(status: int, billed: bool) -> None:
    assert classify(SaidError(status, "it failed"), PRICED).billed == billed


QUOTA = "You exceeded your current quota, please check your plan and billing details."


@pytest.mark.parametrize(
    ("text", "kind", "seconds"),
    [
        (f"{QUOTA} * Quota exceeded for metric: requests, limit: 15\nPlease retry in 23.5s.", "throttled", 23.5),
        (f"{QUOTA} Please retry in 5h2m1.5s.", "throttled", 3600.0),
        (QUOTA, "fatal", None),
    ],
)
def test_a_quota_that_is_renewed_soon_is_a_rate_limit(text: str, kind: str, seconds: float | None) -> None:
    """Gemini says the same of a minute's limit as OpenAI of an account without credit, but for the wait."""
    fault = classify(SaidError(429, text), PRICED)
    assert (fault.kind, fault.retry_after) == (kind, seconds)


NESTED = '{"error":' + '{"a":' * 5000 + "1" + "}" * 5001


# Each took minutes, or raised.
@pytest.mark.parametrize("text", [NESTED, "a" + " " * 300_000 + "b", "Error: " * 50_000, "Handle with " * 30_000])
def test_whatever_an_error_says_is_read_in_no_time(text: str) -> None:
    fault = classify(RuntimeError(text), PRICED)
    assert (fault.kind, len(fault.message) < 500) == ("transient", True)


def test_a_gateway_is_asked_for_its_own_key_and_never_sent_openais(
    model_server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = Recipe(model_name="litellm_proxy/some")
    monkeypatch.delenv("LITELLM_PROXY_API_KEY", raising=False)
    with pytest.raises(ModelError, match="LITELLM_PROXY_API_KEY"):
        llm.connect(gateway, model_server.api_base)
    monkeypatch.setenv("LITELLM_PROXY_API_KEY", "of the gateway")
    llm.connect(gateway, model_server.api_base)


def test_a_completion_answered_for_another_model_keeps_that_name(model_server: ModelServer) -> None:
    model_server.default = body(200, json.dumps(completion("x", model="gpt-4o-mini-2024-07-18")))
    assert ask(model_server).model_answered == "gpt-4o-mini-2024-07-18"


RETRY_AFTER: list[tuple[dict[str, str], float | None]] = [
    ({}, None),
    ({"retry-after": "3"}, 3.0),
    ({"retry-after": " 2.5 "}, 2.5),
    ({"retry-after": "0"}, 0.0),
    ({"retry-after": "7, 9"}, 7.0),
    ({"retry-after-ms": "1500, 9"}, 1.5),
    ({"retry-after-ms": "250"}, 0.25),
    ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
    ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
    ({"retry-after-ms": "", "retry-after": "9"}, 9.0),
    ({"retry-after": email.utils.formatdate(NOW + 90, usegmt=True)}, 90.0),
    ({"retry-after": email.utils.formatdate(NOW - 90, usegmt=True)}, 0.0),
    ({"retry-after": "-5"}, 0.0),
    ({"retry-after-ms": "-5"}, 0.0),
    ({"retry-after": "3600"}, 3600.0),
    ({"retry-after": "3601"}, 3600.0),
    ({"retry-after": "inf"}, 3600.0),
    ({"retry-after": "nan"}, None),
    ({"retry-after-ms": "nan", "retry-after": "9"}, 9.0),
    ({"retry-after": "in a while"}, None),
    ({"retry-after": "Mon, 99 Foo 2026"}, None),
    ({"retry-after": ""}, None),
]


@pytest.mark.parametrize(("headers", "seconds"), RETRY_AFTER, ids=str)
def test_retry_after_is_read_in_seconds(headers: dict[str, str], seconds: float | None) -> None:
    assert parse_retry_after(headers, NOW) == seconds


@pytest.mark.parametrize("date", ["Sun Nov  6 08:49:37 1994", "Sun, 06 Nov 1994 08:49:37 -0000"])
def test_an_http_date_without_a_zone_is_in_utc_wherever_the_machine_is(far_from_utc: None, date: str) -> None:
    assert parse_retry_after({"retry-after": date}, 784_111_777 - 90) == 90
