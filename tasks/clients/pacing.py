"""How many calls may be in flight."""

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from tasks.clients.rates import Place, Rates
from tasks.core.counting import counted
from tasks.core.errors import RESUME, StoppedError

CUT = 0.7
# The first call goes alone, since it may tell that none will do; then so many.
FIRST_CALLS = 16
# A limit that was refused is tried again after so many round trips and pauses.
CALM_ROUND_TRIPS = 20
# A storm of refusals that lasts this long without one good reply ends the run.
PATIENCE_SECONDS = 600.0
BACKOFF_SECONDS = 1.0
BACKOFF_CEILING_SECONDS = 60.0


class Ceiling:
    """The most calls in flight of all the limiters that share it; a place that falls free goes round among them."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.in_flight = 0
        self._limiters: list[Limiter] = []

    def join(self, limiter: "Limiter") -> None:
        """Count the calls of `limiter`, too."""
        self._limiters.append(limiter)

    def offer(self, last: "Limiter") -> None:
        """Let those that wait take what is free, the one whose call has ended last of all."""
        at = self._limiters.index(last) + 1
        for limiter in (*self._limiters[at:], *self._limiters[:at]):
            limiter.give_places()


class Limiter:
    """Adaptive concurrency: additive increase, multiplicative decrease (AIMD).

    The limit doubles each round trip until a call is throttled. From then on that
    cuts it to 0.7 of itself, at most once a round trip, and a round trip without
    it raises it by one, up to just below where the cut was; beyond that only after
    a calm while. After a storm it doubles again up to where the first cut left it.
    It is never above `ceiling`, which several may share. A pause that one call was told holds for all, and
    so does the pace of `rates`. For use in one event loop.
    """

    def __init__(
        self,
        ceiling: int | Ceiling,
        rates: Rates | None = None,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        backoff_seconds: float = BACKOFF_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rates = rates or Rates()
        self._shared = ceiling if isinstance(ceiling, Ceiling) else Ceiling(ceiling)
        self._shared.join(self)
        self.ceiling = self._shared.most
        self.limit = 1.0
        self.in_flight = self.peak = 0
        self._patience, self._backoff, self._clock = patience_seconds, backoff_seconds, clock
        self._round_trip = 0.0
        # Below the one the limit doubles each round trip; the other was refused.
        self._known = self._refused_at = math.inf
        self._calm_at = self._cut_at = self._paused_until = 0.0
        self._storm_since: float | None = None
        self._cuts = 0
        self._waiting: deque[asyncio.Future[Place]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._closed: StoppedError | None = None
        self._ended = asyncio.Event()

    async def acquire(self) -> Place:
        """Wait for a place, first come, first served.

        Raises:
            StoppedError: The provider says that a rate limit is used up for longer than the patience, or `close`.
        """
        if self._closed is not None:
            raise self._closed
        future: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self.give_places()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.release()
            raise

    def release(self) -> None:
        """Give the place back."""
        self.in_flight -= 1
        self._shared.in_flight -= 1
        if self._known == math.inf:
            self.limit = max(self.limit, min(self.ceiling, FIRST_CALLS))
        self._shared.offer(self)

    def close(self, error: StoppedError) -> None:
        """Let nobody wait any more: each gets `error` in the place of a place."""
        self._closed = error
        self._ended.set()
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(error)
        self._waiting.clear()

    async def pause(self, seconds: float) -> None:
        """Wait so long, or until `close`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ended.wait()

    def succeeded(self, place: Place) -> None:
        """Note a call that was answered."""
        now = self._clock()
        self._storm_since, self._cuts = None, 0
        self._round_trip += (now - place.at - self._round_trip) * (0.1 if self._round_trip else 1.0)
        if self.limit >= self.ceiling or self.in_flight < self.limit / 2:
            return
        grown = min(self.ceiling, self.limit + (1.0 if self.limit < self._known else 1 / self.limit))
        if int(grown) < self._refused_at or now >= self._calm_at:
            self.limit = grown

    def throttled(self, place: Place, retry_after: float | None) -> bool:
        """Note a call that was throttled; False when patience with the provider is over.

        Args:
            place: The call's.
            retry_after: Seconds that the provider asked to wait, None where it did not say.
        """
        now = self._clock()
        if self._storm_since is None:
            self._storm_since = now
        if self.rates.delay(now) > 0:
            # An allowance is used up, and waited for: no sign of too many calls in flight.
            pause = retry_after or 0.0
        elif place.at >= self._cut_at:
            self._cuts += 1
            pause = self._pause() if retry_after is None else retry_after
            if self._cuts == 1:
                # Refusals that go on without a good reply say nothing of the limit.
                self._refused_at, self._known = int(self.limit), self.limit * CUT
                self._calm_at = now + CALM_ROUND_TRIPS * (self._round_trip + pause)
            self.limit = max(1.0, self.limit * CUT)
            self._cut_at = now
        else:
            pause = retry_after or 0.0
        self._paused_until = max(self._paused_until, now + pause)
        return self._paused_until - self._storm_since < self._patience

    def _pause(self) -> float:
        """Return how long all wait where the provider does not say: not at all at first, as the limit was cut."""
        longest = min(BACKOFF_CEILING_SECONDS, self._backoff * 2.0 ** (self._cuts - 2))
        return random.uniform(0, longest) if self._cuts > 1 else 0.0  # noqa: S311

    def give_places(self) -> None:
        """Let those that wait have the places that are free."""
        free = self._shared
        while self._waiting and self.in_flight < max(1, int(self.limit)) and free.in_flight < free.most:
            if self._waiting[0].done():
                self._waiting.popleft()
                continue
            now = self._clock()
            delay = max(self._paused_until - now, self.rates.delay(now))
            if delay > self._patience and not self.in_flight:
                # No reply can come that says otherwise.
                self._waiting.popleft().set_exception(
                    StoppedError(
                        f"The provider's rate limit is used up for another {counted(round(delay), 'second')}, and a "
                        f"run waits {self._patience:,.0f} at most. {RESUME}"
                    )
                )
                continue
            if delay > 0:
                self._wake_in(delay)
                return
            self.in_flight += 1
            self.peak = max(self.peak, self.in_flight)
            self._shared.in_flight += 1
            self._waiting.popleft().set_result(self.rates.take(now))

    def _wake_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self.give_places)
