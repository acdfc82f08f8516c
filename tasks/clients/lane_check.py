"""Whether litellm's insides are as `wire` knows them, tried with samples before the fast lane is taken."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace

from tasks.clients import llm
from tasks.clients.outcome import CallFault
from tasks.clients.wire import Wire

_PRICED = ("openai", "gpt-4o-mini")
_REPLY = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "answering",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "x"}}],
    "usage": {"prompt_tokens": 200, "completion_tokens": 40, "total_tokens": 240},
}
_TOLD = {llm.COST_HEADER: "0.125", "x-ratelimit-remaining-requests": "7"}
_NO = '{"error": {"message": "no"}}'
# By its wording alone: litellm's own class is what tells it apart.
_TOO_LONG = '{"error": {"message": "This model\'s maximum context length is 8192 tokens."}}'
# What a server says, and the fault that it is: kind, reason, seconds to wait, whether it may be billed.
_FAULTS: tuple[tuple[int, dict[str, str], str, tuple[str, str, float | None, bool]], ...] = (
    (400, {}, _NO, ("refused", "bad_request", None, False)),
    (400, {}, _TOO_LONG, ("refused", "context_window", None, False)),
    (401, {}, _NO, ("fatal", "", None, False)),
    (404, {}, _NO, ("fatal", "", None, False)),
    (429, {"Retry-After": "7"}, _NO, ("throttled", "", 7.0, False)),
    (500, {"Retry-After": "7"}, _NO, ("transient", "", 7.0, False)),
    (200, {}, '{"error": {"message": "no", "code": 503}}', ("transient", "", None, True)),
)


def check(line: Wire) -> None:
    """Let litellm read sample faults, and replies that it alone reads.

    Raises:
        LookupError: It makes something else of one of them.
    """
    for status, headers, text, expected in _FAULTS:
        fault = _find_fault(line, status, headers, text)
        found = fault and (fault.kind, fault.reason, fault.retry_after, fault.billed)
        if found != expected:
            raise LookupError(f"it makes {found} of {status} {text}, not {expected}")
    reply = json.dumps(_REPLY).encode()
    provider, name = _PRICED
    price = llm.find_price(f"{provider}/{name}")
    cost = replace(line, _provider=provider, _name=name).read(reply, {}).cost_usd
    if price is None or cost is None or not math.isclose(cost, price.of(200, 40)):
        raise LookupError(f"it makes a cost of {cost} of the price {price}")
    told = line.read(reply, _TOLD)
    if told.cost_usd != 0.125 or told.headers.get("x-ratelimit-remaining-requests") != "7":
        raise LookupError("it does not hand on a reply's headers")


def _find_fault(line: Wire, status: int, headers: Mapping[str, str], text: str) -> CallFault | None:
    if status != 200:
        return line.fault(status, headers, text)
    try:
        line.read(text.encode(), headers)
    except CallFault as fault:
        return fault
    return None
