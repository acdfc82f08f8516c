"""The pace of calls: what we were told to keep to, and what the provider says is left."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from tasks.core.allowances import RENEWAL_SECONDS, read_allowances

# A late timer may be caught up with, so that the pace holds on a busy machine.
CATCH_UP_SECONDS = 0.1
# Resets are often rounded down: a call that comes early is refused.
RESET_MARGIN_SECONDS = 0.05
# How much one reply moves the mean that the next calls' tokens are guessed from.
LEARNING = 0.1


@dataclass
class _Left:
    """What is left of one resource that the provider counts; times are monotonic seconds."""

    left: float
    limit: float
    reset_at: float


class Rates:
    """Says how long the next call must wait so that no rate limit is met.

    `requests_per_minute` and `tokens_per_minute` space calls evenly (0: no cap).
    What a response's headers say is left is used up, less what calls in flight
    may still take, and then waited for.
    """

    def __init__(
        self,
        requests_per_minute: int = 0,
        tokens_per_minute: int = 0,
        tokens_a_call: float = 0.0,
    ) -> None:
        self._request_seconds = 60 / requests_per_minute if requests_per_minute else 0.0
        self._token_seconds = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._guess, self._guessed = tokens_a_call, True
        self._next_request = self._next_token = 0.0
        self._left: dict[str, _Left] = {}

    def delay(self, now: float) -> float:
        """Return the seconds that a call has to wait at `now`, 0 or less where it may start."""
        delay = max(
            self._next_request - now if self._request_seconds else 0.0,
            self._next_token - now if self._token_seconds else 0.0,
        )
        for resource, left in self._left.items():
            cost = self._cost(resource)
            if left.left < cost:
                if now >= left.reset_at:
                    # A limit below one call would be waited for without end.
                    left.left, left.reset_at = max(left.limit, cost), now + RENEWAL_SECONDS
                else:
                    delay = max(delay, left.reset_at - now)
        return delay

    def take(self, now: float) -> float:
        """Count one call that starts at `now`, and return the tokens that it was guessed to take."""
        if self._request_seconds:
            self._next_request = max(self._next_request, now - CATCH_UP_SECONDS) + self._request_seconds
        if self._token_seconds:
            self._next_token = max(self._next_token, now - CATCH_UP_SECONDS) + self._guess * self._token_seconds
        for resource, left in self._left.items():
            left.left -= self._cost(resource)
        return self._guess

    def settle(self, guessed: float, tokens: int | None) -> None:
        """Put the tokens that a call took in the place of its guess; None where it took none."""
        self._next_token += ((tokens or 0) - guessed) * self._token_seconds
        if tokens:
            # The first reply is a better guess than ours.
            self._guess += (tokens - self._guess) * (1.0 if self._guessed else LEARNING)
            self._guessed = False

    def heed(self, headers: Mapping[str, str], now: float, others: int) -> None:
        """Note what a response says is left, while `others` calls are in flight.

        Those may or may not be counted in it yet: taken off, what remains is safe.
        """
        for told in read_allowances(headers, time.time()):
            before = self._left.get(told.resource)
            limit = told.limit or max(told.remaining, before.limit if before else 0.0)
            left = told.remaining - others * self._cost(told.resource)
            self._left[told.resource] = _Left(left, limit, now + told.reset_seconds + RESET_MARGIN_SECONDS)

    def _cost(self, resource: str) -> float:
        return 1.0 if resource == "requests" else self._guess
