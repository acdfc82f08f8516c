"""What one attempt at a call came to: a reply, or a fault and what it means."""

import email.utils
import json
import math
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, Self

from tasks.clients.concealment import conceal, one_line
from tasks.core.price import Price


@dataclass(frozen=True)
class Reply:
    """One reply that was paid for, good or not; None where the provider said nothing.

    `error` is NO_CHOICES for a reply without a completion. `headers` are the
    response's, names in lower case: rate limits are read from them.
    """

    text: str | None
    finish_reason: str | None
    model_answered: str | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    error: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, compare=False)

    def at_price(self, price: Price | None) -> Self:
        """Return it with what its tokens cost at a price of our own; as it is where one of the two is unknown."""
        if price is None or self.input_tokens is None or self.output_tokens is None:
            return self
        return replace(self, cost_usd=price.of(self.input_tokens, self.output_tokens))


def no_reply(reason: str) -> Reply:
    """Return what stands for the reply to a request that gets none, for `reason`."""
    return Reply(None, None, None, None, None, None, reason)


def make_completion(reply: Reply, latency_s: float | None, attempts: int, throttled: int) -> dict[str, Any]:
    """Return a reply that arrives now as a row with the columns of COMPLETIONS."""
    return {
        "text": reply.text,
        "finish_reason": reply.finish_reason,
        "model_answered": reply.model_answered,
        "input_tokens": reply.input_tokens,
        "output_tokens": reply.output_tokens,
        "cost_usd": reply.cost_usd,
        "latency_s": latency_s,
        "attempts": attempts,
        "throttled": throttled,
        "error": reply.error,
        "completed_at": datetime.now(UTC),
    }


@dataclass
class CallFault(Exception):  # noqa: N818  (a fault may be no error: throttled)
    """One attempt that brought no reply.

    throttled: wait `retry_after` seconds, does not count as an attempt;
    transient: try again; refused: this request will never be answered, for
    `reason`; fatal: no request will be, `message` says what to set. `billed` says
    that the provider may have counted the call although its reply did not arrive, and
    `unreached` that nobody took the connection.
    """

    kind: Literal["throttled", "transient", "refused", "fatal"]
    message: str
    reason: str = ""
    retry_after: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    billed: bool = False
    unreached: bool = False

    def __post_init__(self) -> None:
        """Keep keys out of the message, whoever wrote it, and line breaks."""
        self.message = one_line(self.message)


Call = Callable[[str], Awaitable[Reply]]


_FATAL = {
    401: "the provider refuses the key ({}). Set the right API key and run again.",
    402: "the provider's quota is used up ({}). Add credit and run again.",
    403: "the key may not use this model ({}). Use another key or model.",
    404: "no such model or address ({}). Check --model-name and --api-base.",
}
# What a provider that is not paid says, each with a status that means something else too.
_UNPAID = (
    "insufficient_quota",
    "exceeded your current quota",
    "billing_not_active",
    "billing_hard_limit_reached",
    "credit balance is too low",
)
_UNSUPPORTED = ("unsupported_parameter", "unsupported_value", "unsupported parameter")
# Of httpx and aiohttp, below litellm's.
_UNREACHED = ("ConnectError", "ConnectTimeout", "ClientConnectorError", "ClientConnectorDNSError")
# What litellm puts before a provider's words, and after them.
_UNWRAPPED = re.compile(
    r"^(?:(?:litellm\.)?\w+Error: )*(?:\w+(?:Exception|Error) - )?"
    r"|\s*Handle with `litellm\.\w+`\.?$"
)
# litellm's own classes rest on the wording of the message; the provider's code is surer, and comes first.
_REFUSED = {
    "contextwindowexceedederror": "context_window",
    "context_length_exceeded": "context_window",
    "contentpolicyviolationerror": "content_policy",
    "content_policy_violation": "content_policy",
    "content_filter": "content_policy",
    "result of our safety system": "content_policy",
}


def classify(error: Exception, model_name: str) -> CallFault:
    """Say what one failed attempt means; see the README's table of faults."""
    own = _find_fault(error)
    if own is not None:
        return own
    status = getattr(error, "status_code", None)
    status = status if isinstance(status, int) else 500
    text = conceal(str(error).strip()) or type(error).__name__
    name = type(error).__name__
    sentence = _find_sentence(text)[:300]
    said = f"{name}: {sentence}"
    clues = f"{name} {getattr(error, 'code', None)} {text}".casefold()
    headers = _error_headers(error)
    if status in (400, 429) and _says(clues, *_UNPAID):
        status = 402
    # What litellm makes of a 200 whose body is an error without a status.
    if _says(clues, "error in response object"):
        status = 500
    # A key that is missing surfaces as litellm's own 500, before any request.
    if name == "AuthenticationError" or _says(clues, "client option must be set", "missing credentials"):
        status = 401
    if status in _FATAL:
        return CallFault("fatal", f"{model_name}: {_FATAL[status].format(sentence)}")
    if name == "UnsupportedParamsError" or (status == 400 and _says(clues, *_UNSUPPORTED)):
        return CallFault("fatal", f"{model_name} does not take a parameter ({sentence}). Change it and run again.")
    if status == 429:
        return CallFault("throttled", said, retry_after=parse_retry_after(headers, time.time()), headers=headers)
    if 400 <= status < 500 and status not in (408, 409):
        reasons = (reason for clue, reason in _REFUSED.items() if clue in clues)
        return CallFault("refused", said, reason=next(reasons, "bad_request"))
    # A status of the provider's own comes with headers; else a reply was lost on the way, or is none.
    unreached = _is_unreached(error)
    billed = not unreached and (not headers or status < 400 or name == "APIConnectionError")
    retry_after = parse_retry_after(headers, time.time())
    return CallFault("transient", said, retry_after=retry_after, billed=billed, unreached=unreached)


def redirected(location: str) -> CallFault:
    """Say that a server answers with another address, which no call follows: key and prompt were given for this one."""
    where = f" to {' '.join(location.partition('?')[0].split())[:200]}" if location else ""
    return CallFault(
        "fatal",
        f"The address of the model redirects{where}, and a call follows no redirect, since it carries a key. "
        "Set --api-base to the address that answers itself.",
    )


def _find_fault(error: BaseException | None) -> CallFault | None:
    """Return the fault of ours, raised below litellm, that an error was made of."""
    while error is not None and not isinstance(error, CallFault):
        error = error.__cause__ or error.__context__
    return error


def _is_unreached(error: BaseException | None) -> bool:
    """Whether an error, or one that it was made of, says that no connection came about."""
    while error is not None:
        if type(error).__name__ in _UNREACHED:
            return True
        error = error.__cause__ or error.__context__
    return False


def _find_sentence(text: str) -> str:
    """Return what the provider itself says in the text of one of litellm's errors."""
    # Runs of spaces would keep the expression busy for minutes.
    own = _UNWRAPPED.sub("", " ".join(text.split()))
    with suppress(ValueError, RecursionError):
        told, _ = json.JSONDecoder().raw_decode(own[own.index("{") :])
        inner = told.get("error")
        said = inner.get("message") if isinstance(inner, dict) else inner or told.get("message")
        own = said if isinstance(said, str) and said else own
    return own.strip().rstrip(".")


def _error_headers(error: Exception) -> dict[str, str]:
    headers = getattr(error, "litellm_response_headers", None)
    headers = headers or getattr(getattr(error, "response", None), "headers", None) or {}
    return {str(name).lower(): str(value) for name, value in dict(headers).items()}


def parse_retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Read retry-after-ms or Retry-After (seconds or an HTTP date) at the time `now`."""
    readings = (
        (headers.get("retry-after-ms", ""), _read_milliseconds),
        (headers.get("retry-after", ""), float),
        (headers.get("retry-after", ""), lambda date: email.utils.parsedate_to_datetime(date).timestamp() - now),
    )
    for value, read in readings:
        try:
            seconds = read(value)
        except (ValueError, OverflowError):
            continue
        if not math.isnan(seconds):
            # A wait beyond an hour is a quota that a night cannot outlast.
            return min(max(seconds, 0.0), 3600.0)
    return None


def _read_milliseconds(value: str) -> float:
    return float(value) / 1000


def _says(clues: str, *phrases: str) -> bool:
    return any(phrase in clues for phrase in phrases)
