"""What a provider's response headers say is left of its rate limits."""

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

# Limits are counted by the minute where a header does not say when they are renewed.
RENEWAL_SECONDS = 60.0
LONGEST_SECONDS = 3600.0
# No reset is longer; thousands of digits would keep the expression below busy for seconds.
MOST_CHARACTERS = 40
# As OpenAI and those that speak its API write them, and as Anthropic does.
SPELLINGS = ("x-ratelimit-{what}-{resource}", "anthropic-ratelimit-{resource}-{what}")
RESOURCES = ("requests", "tokens", "input-tokens", "output-tokens")

_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


class Allowance(NamedTuple):
    """What is left of one resource; `limit` is the whole of it, None where it is not said.

    `reset_seconds` from now it is whole again.
    """

    resource: str
    remaining: float
    limit: float | None
    reset_seconds: float


def read_allowances(headers: Mapping[str, str], now: float) -> Iterator[Allowance]:
    """Yield each allowance that `headers` (names in lower case) state.

    Args:
        headers: Of one response.
        now: Unix time in seconds, for resets given as a time.
    """
    for resource in RESOURCES:
        for spelling in SPELLINGS:
            remaining = _number(headers.get(spelling.format(what="remaining", resource=resource)))
            if remaining is not None:
                reset = read_reset(headers.get(spelling.format(what="reset", resource=resource), ""), now)
                limit = _number(headers.get(spelling.format(what="limit", resource=resource)))
                yield Allowance(resource, remaining, limit, RENEWAL_SECONDS if reset is None else reset)
                break


def read_reset(text: str, now: float) -> float | None:
    """Return the seconds until a reset: a span (6m0s, 20ms), seconds, a Unix time or an ISO time."""
    text = text.strip().lower()[:MOST_CHARACTERS]
    spans = _SPAN.findall(text)
    seconds = _number(text)
    if spans and "".join(number + unit for number, unit in spans) == text:
        seconds = sum(float(number) * _UNITS[unit] for number, unit in spans)
    elif seconds is not None and seconds > 1e9:
        seconds = (seconds / 1000 if seconds > 1e12 else seconds) - now
    elif seconds is None:
        try:
            seconds = seconds_until(datetime.fromisoformat(text.upper()), now)
        except ValueError:
            return None
    return min(max(seconds, 0.0), LONGEST_SECONDS)


def seconds_until(time: datetime, now: float) -> float:
    """Return the seconds from `now`, a Unix time, to `time`; without a zone of its own it is in UTC, as HTTP has it."""
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() - now


def _number(text: str | None) -> float | None:
    try:
        # A header that is there twice is one with a comma: the first counts.
        number = float((text or "").partition(",")[0])
    except ValueError:
        return None
    return number if math.isfinite(number) else None
