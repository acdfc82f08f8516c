"""Shares of several models, and which one a request belongs to."""

import hashlib
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate

from tasks.core.errors import UsageError

# Shares that differ from 1 by less were rounded by who wrote them.
ROUNDING = 1e-6


def read_mix(model_name: str, given: Sequence[str]) -> dict[str, float]:
    """Return each model's share of the requests, 1 in all; `model_name` has what `given` leaves.

    Args:
        model_name: The main model.
        given: Of the form name=share.

    Raises:
        UsageError: Another form, a name twice, no share above 0, or nothing left for `model_name`.
    """
    shares: dict[str, float] = {}
    for one in given:
        name, _, said = one.rpartition("=")
        name, share = name.strip(), _read_share(said)
        if not name or not 0 < share <= 1:
            raise UsageError(
                f"--model-mix holds {one!r}. Write name=share with a share between 0 and 1, openai/gpt-4.1-mini=0.7."
            )
        if name in shares:
            raise UsageError(f"--model-mix names {name} twice. Give each model one share.")
        shares[name] = share
    left = 1.0 - math.fsum(shares.values())
    if left < -ROUNDING or (left < ROUNDING and model_name not in shares):
        raise UsageError(
            f"The shares of --model-mix add up to {1.0 - left:.9g}. They are parts of 1, and what they leave is for "
            f"{model_name}: lower them, or give it one too."
        )
    return {model_name: shares.pop(model_name, 0.0) + max(0.0, left)} | shares


def _read_share(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def draw_model(shares: Mapping[str, float], *what: object) -> str:
    """Return the model that the hash of `what` falls to; the same in whatever order they stand."""
    digest = hashlib.blake2b("\0".join(map(str, what)).encode(), digest_size=6).digest()
    place = int.from_bytes(digest, "big") / 2**48
    names = sorted(shares)
    ends = list(accumulate(shares[name] for name in names))
    return names[min(bisect_right(ends, place), len(names) - 1)]


def next_model(fallbacks: Sequence[str], tried: Sequence[str]) -> str | None:
    """Return the first fallback that was not `tried`, None where each was."""
    return next((name for name in fallbacks if name not in tried), None)
