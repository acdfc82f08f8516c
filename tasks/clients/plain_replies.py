"""Replies of the plain shape, read without litellm as litellm reads them: in a fraction of its time."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from tasks.clients import llm
from tasks.clients.outcome import Reply
from tasks.clients.wire import Wire

# 32,768 tokens of any script are far below it; a server that says more says nonsense.
REPLY_BYTES = 4 << 20
# A server that answers with ever new model names must not fill the memory.
MANY_MODELS = 100
PLAIN_FINISHES = frozenset({"stop", "length", "content_filter"})
# Any other has a price of its own.
PLAIN_TIERS = (None, "auto", "default")


@dataclass(frozen=True)
class Tariff:
    """A model that answered, as litellm names it, and its price in US dollars per input and output token.

    `per_token` is None where litellm knows no price, and where the price is not so
    simple (`priced`): then litellm counts it for each reply.
    """

    model: str | None
    priced: bool
    per_token: tuple[float, float] | None


class PlainReplies:
    """Reads the replies to one recipe's calls."""

    def __init__(self, line: Wire) -> None:
        self._wire = line
        # What litellm makes of each model that answered.
        self._tariffs: dict[str, Tariff] = {}

    def read(self, content: bytes, headers: Mapping[str, str]) -> Reply:
        """Read a reply with status 200: one of the plain shape here, any other by litellm.

        Raises:
            CallFault: It is no reply.
        """
        try:
            reply = None if llm.COST_HEADER in headers else self._read_plain(orjson.loads(content), headers)
        except (ValueError, LookupError, TypeError, AttributeError):
            reply = None
        return reply or self._wire.read(content, headers)

    def _read_plain(self, reply: Any, headers: Mapping[str, str]) -> Reply | None:
        (choice,) = reply["choices"]
        message, usage = choice["message"], reply["usage"]
        text, finish_reason, model = message["content"], choice["finish_reason"], reply["model"]
        given, made = usage["prompt_tokens"], usage["completion_tokens"]
        plain = (
            type(text) is str
            and type(model) is str
            and not text.startswith("<")  # litellm takes a leading think block off
            and finish_reason in PLAIN_FINISHES
            and not message.get("tool_calls")
            and not message.get("annotations")  # a search on the web is paid for
            and not reply.get("error")
            and reply.get("service_tier") in PLAIN_TIERS
            and type(given) is int
            and type(made) is int
            and 0 < given < llm.MOST_TOKENS
            and 0 <= made < llm.MOST_TOKENS
            and usage["total_tokens"] == given + made
        )
        if not plain:
            return None
        tariff = self._tariffs.get(model) or self._find_tariff(model)
        if tariff.priced and (tariff.per_token is None or _has_details(usage)):
            return None
        return Reply(
            text=text,
            finish_reason=finish_reason,
            model_answered=tariff.model,
            input_tokens=given,
            output_tokens=made,
            headers={name.lower(): headers[name] for name in headers if "ratelimit" in name.lower()},
            cost_usd=given * tariff.per_token[0] + made * tariff.per_token[1] if tariff.per_token else None,
        )

    def check(self) -> None:
        """Read sample replies both ways.

        Raises:
            LookupError: litellm reads one of them otherwise, or not at all.
        """
        for sample in _SAMPLES:
            content = json.dumps(sample).encode()
            ours, theirs = self.read(content, {}), self._wire.read(content, {})
            if not _equal(ours, theirs):
                raise LookupError(f"it reads {theirs} where the fast lane reads {ours}")

    def _find_tariff(self, model: str) -> Tariff:
        """Let litellm price a few replies of `model`, and find the price per token in them."""

        def price(given: int, made: int) -> Reply:
            usage = {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
            return self._wire.read(json.dumps(_sample({"content": ""}, model=model, usage=usage)).encode(), {})

        first = price(1, 0)
        costs = first.cost_usd, price(0, 1).cost_usd
        per_token = None
        if costs[0] is not None and costs[1] is not None:
            per_token = costs[0], costs[1]
            for given, made in ((200, 40), (10_000, 1), (150_000, 9_000), (300_000, 300_000)):
                expected = given * costs[0] + made * costs[1]
                if not math.isclose(price(given, made).cost_usd or 0.0, expected, rel_tol=1e-9):
                    per_token = None
        if len(self._tariffs) >= MANY_MODELS:
            self._tariffs.clear()
        tariff = Tariff(first.model_answered, priced=costs != (None, None), per_token=per_token)
        self._tariffs[model] = tariff
        return tariff


def _has_details(usage: dict[str, Any]) -> bool:
    """Whether the usage holds more than three plain numbers: cached tokens, say, have a price of their own."""
    return any(
        any(value.values()) if isinstance(value, dict) else value
        for name, value in usage.items()
        if name not in ("prompt_tokens", "completion_tokens", "total_tokens")
    )


def _equal(ours: Reply, theirs: Reply) -> bool:
    costs = ours.cost_usd, theirs.cost_usd
    same_cost = costs[0] == costs[1] if None in costs else math.isclose(*costs, rel_tol=1e-6)  # type: ignore[arg-type]
    return same_cost and replace(ours, cost_usd=None) == replace(theirs, cost_usd=None)


def _sample(message: dict[str, Any], finish_reason: str = "stop", **changes: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "answering",
        "choices": [{"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", **message}}],
        "usage": {"prompt_tokens": 200, "completion_tokens": 40, "total_tokens": 240},
    } | changes


_DETAILS = {"prompt_tokens_details": {"cached_tokens": 100}, "completion_tokens_details": {"reasoning_tokens": 0}}
# What a server may say with status 200; how each is read is litellm's to say.
_SAMPLES = (
    _sample({"content": '{"input": "a", "positive_document": "ü 漢 🎉"}', "refusal": None, "tool_calls": []}),
    _sample({"content": " cut", "reasoning_content": None}, "length", prompt_logprobs=None),
    _sample({"content": ""}, "content_filter", system_fingerprint="x", service_tier=None),
    _sample({"content": "<think>so</think>{}"}),
    _sample({"content": None}),
    _sample({"content": "x"}, "end_turn"),
    _sample({"content": "x"}, usage={"prompt_tokens": 200, "completion_tokens": 40, "total_tokens": 240} | _DETAILS),
    # litellm heeds no cost that a usage tells of.
    _sample({"content": "x"}, usage={"prompt_tokens": 200, "completion_tokens": 40, "total_tokens": 240, "cost": 0.25}),
    _sample({"content": "x"}, usage={"prompt_tokens": 9, "completion_tokens": 0, "total_tokens": 9}),
)
