"""The pace of calls: what we were told to keep to, and what the provider says is left."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tasks.core.allowances import RENEWAL_SECONDS, read_allowances

# A late timer may be caught up with, so that the pace holds on a busy machine.
CATCH_UP_SECONDS = 0.1
# Resets are often rounded down: a call that comes early is refused.
RESET_MARGIN_SECONDS = 0.05
# How much one reply moves the mean that the next calls' tokens are guessed from.
LEARNING = 0.1


class Place(NamedTuple):
    """Leave to have one call in flight.

    When it was given (monotonic seconds), its number, the tokens it was guessed to
    take, and those that all calls up to it were.
    """

    at: float
    number: int
    tokens: float
    tokens_so_far: float


@dataclass
class _Left:
    """What is left of one resource that the provider counts, as the call with `number` was told at `told_at`.

    `earlier` calls with smaller numbers were still in flight: the provider may or
    may not have counted them, so they are taken off until their replies arrive.
    Replies to calls from before `renewed_at` speak of what is over.
    """

    left: float
    limit: float
    reset_at: float
    number: int
    earlier: int
    told_at: float
    renewed_at: float = 0.0


class Rates:
    """Says how long the next call must wait so that no rate limit is met.

    `requests_per_minute` and `tokens_per_minute` space calls evenly (0: no cap).
    What a response's headers say is left is used up, less what calls that started
    later take, and then waited for.
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
        self._started, self._tokens = 0, 0.0
        self._in_flight: set[int] = set()
        self._left: dict[str, _Left] = {}

    def delay(self, now: float) -> float:
        """Return the seconds that a call has to wait at `now`, 0 or less where it may start."""
        delay = max(
            self._next_request - now if self._request_seconds else 0.0,
            self._next_token - now if self._token_seconds else 0.0,
        )
        for resource, left in self._left.items():
            cost = self._cost(resource)
            if left.left - left.earlier * cost < cost:
                if now >= left.reset_at:
                    # A limit below one call would be waited for without end.
                    left.left, left.reset_at, left.earlier = max(left.limit, cost), now + RENEWAL_SECONDS, 0
                    left.renewed_at = now
                else:
                    delay = max(delay, left.reset_at - now)
        return delay

    def take(self, now: float) -> Place:
        """Count one call that starts at `now`."""
        if self._request_seconds:
            self._next_request = max(self._next_request, now - CATCH_UP_SECONDS) + self._request_seconds
        if self._token_seconds:
            self._next_token = max(self._next_token, now - CATCH_UP_SECONDS) + self._guess * self._token_seconds
        for resource, left in self._left.items():
            left.left -= self._cost(resource)
        self._started += 1
        self._in_flight.add(self._started)
        self._tokens += self._guess
        return Place(now, self._started, self._guess, self._tokens)

    def settle(self, place: Place, tokens: int | None) -> None:
        """Note the end of a call, and the tokens that it took in the place of its guess; None where it took none."""
        self._in_flight.discard(place.number)
        for left in self._left.values():
            if left.earlier > 0 and place.number < left.number:
                left.earlier -= 1
        self._next_token += ((tokens or 0) - place.tokens) * self._token_seconds
        if tokens:
            # The first reply is a better guess than ours.
            self._guess += (tokens - self._guess) * (1.0 if self._guessed else LEARNING)
            self._guessed = False

    def heed(self, place: Place, headers: Mapping[str, str], now: float) -> None:
        """Note what the response to a call, settled before, says is left.

        Calls that started after it are not counted in that yet. Calls reach a provider
        in another order than they start: of those in flight at once the least counts.
        """
        for told in read_allowances(headers, time.time()):
            before = self._left.get(told.resource)
            since = self._started - place.number if told.resource == "requests" else self._tokens - place.tokens_so_far
            left, reset_at = told.remaining - since, now + told.reset_seconds + RESET_MARGIN_SECONDS
            if before and now < before.reset_at and place.at < max(before.told_at, before.renewed_at):
                if place.at >= before.renewed_at:
                    before.left, before.reset_at = min(before.left, left), max(before.reset_at, reset_at)
                continue
            earlier = sum(number < place.number for number in self._in_flight)
            limit = told.limit or max(told.remaining, before.limit if before else 0.0)
            self._left[told.resource] = _Left(left, limit, reset_at, place.number, earlier, now)

    def _cost(self, resource: str) -> float:
        return 1.0 if resource == "requests" else self._guess
