"""What an error of one attempt at a call means: a wait, another try, a refused request, or the end of the run."""

import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime

from tasks.clients.concealment import conceal
from tasks.clients.outcome import CallFault
from tasks.core.allowances import read_reset, seconds_until

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
# Gemini's words for a limit of a minute are those of OpenAI for a quota that is used up, but for the wait.
_RETRY_IN = re.compile(r"retry in ([\dhms.]{1,40})")
# Of httpx and aiohttp, below litellm's; a proxy that refuses has not passed the call on.
_UNREACHED = {
    "ConnectError",
    "ConnectTimeout",
    "ClientConnectorError",
    "ConnectionTimeoutError",
    "ClientHttpProxyError",
}
# A gateway does not know what became of the call that it has passed on: the model may well have answered it.
_GATEWAYS = (408, 502, 504, 520, 524)
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
    clues = " ".join((name, *_find_codes(error), text)).casefold()
    headers = _error_headers(error)
    # 422 is what litellm makes of an error with status 200 that has a type.
    if status in (400, 422, 429) and _says(clues, *_UNPAID) and not _RETRY_IN.search(clues):
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
    retry_after = parse_retry_after(headers, time.time())
    if status == 429:
        named = _RETRY_IN.search(clues) if retry_after is None else None
        retry_after = read_reset(named[1].rstrip("."), time.time()) if named else retry_after
        return CallFault("throttled", said, retry_after=retry_after, headers=headers)
    if 400 <= status < 500 and status not in (408, 409):
        reasons = (reason for clue, reason in _REFUSED.items() if clue in clues)
        return CallFault("refused", said, reason=next(reasons, "bad_request"))
    # A status of the provider's own comes with headers; else a reply was lost on the way, or is none.
    unreached = is_unreached(error)
    lost = not headers or status < 400 or status in _GATEWAYS or name == "APIConnectionError"
    billed = lost and not unreached
    return CallFault("transient", said, retry_after=retry_after, billed=billed, unreached=unreached)


def _find_codes(error: BaseException | None) -> Iterator[str]:
    """Yield what a provider gives as code and type; litellm may keep them only in what it made an error of."""
    while error is not None:
        body = getattr(error, "body", None)
        if isinstance(body, dict):
            yield from (code for code in (body.get("code"), body.get("type")) if isinstance(code, str))
        error = error.__cause__ or error.__context__


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


def is_unreached(error: BaseException | None) -> bool:
    """Whether an error, or one that it was made of, says that no connection came about."""
    while error is not None:
        if not _UNREACHED.isdisjoint(kind.__name__ for kind in type(error).__mro__):
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
    """Read retry-after-ms or Retry-After (seconds or an HTTP date) at the time `now`, the first that it says."""
    readings = (
        (headers.get("retry-after-ms", ""), _read_milliseconds),
        (headers.get("retry-after", ""), _read_seconds),
        (headers.get("retry-after", ""), lambda date: seconds_until(parsedate_to_datetime(date), now)),
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


def _read_seconds(value: str) -> float:
    # A header that is there twice is one with a comma.
    return float(value.partition(",")[0])


def _read_milliseconds(value: str) -> float:
    return _read_seconds(value) / 1000


def _says(clues: str, *phrases: str) -> bool:
    return any(phrase in clues for phrase in phrases)
