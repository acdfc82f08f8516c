"""How many calls may be in flight, and when a run has seen enough failures."""

import asyncio
import time
from collections.abc import Callable

CUT = 0.7
# A storm of refusals that lasts this long without one good reply ends the run.
PATIENCE_SECONDS = 600.0
FAILURE_STREAK = 20
EQUAL_REFUSALS = 50


class Limiter:
    """Adaptive concurrency: additive increase, multiplicative decrease (AIMD).

    A throttled call cuts the limit to 0.7 of itself, at most once a round trip;
    a round trip without one raises it by one, never above `ceiling`. A pause
    that one call was told holds for all. For use in one event loop.
    """

    def __init__(self, ceiling: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.ceiling = ceiling
        self.limit = float(ceiling)
        self.in_flight = 0
        self.throttled_since: float | None = None
        self._paused_until = 0.0
        self._cut_at = 0.0
        self._changed = asyncio.Condition()

    async def acquire(self) -> float:
        """Wait for a place and return the time at which it was given."""
        async with self._changed:
            while True:
                pause = self._paused_until - self._clock()
                if pause > 0:
                    self._changed.release()
                    try:
                        await asyncio.sleep(pause)
                    finally:
                        await self._changed.acquire()
                elif self.in_flight < max(1, int(self.limit)):
                    self.in_flight += 1
                    return self._clock()
                else:
                    await self._changed.wait()

    async def release(self) -> None:
        """Give the place back."""
        async with self._changed:
            self.in_flight -= 1
            self._changed.notify(2)

    def succeeded(self) -> None:
        """Note a call that was not throttled: one more place after a round trip of them."""
        self.throttled_since = None
        if self.limit < self.ceiling:
            self.limit = min(self.ceiling, self.limit + 1 / self.limit)

    def throttled(self, started: float, pause: float) -> bool:
        """Note a call that was throttled; False when patience with the provider is over."""
        now = self._clock()
        self._paused_until = max(self._paused_until, now + pause)
        if started >= self._cut_at:
            self.limit = max(1.0, self.limit * CUT)
            self._cut_at = now
        if self.throttled_since is None:
            self.throttled_since = now
        return now - self.throttled_since < PATIENCE_SECONDS


class Breaker:
    """Says when going on would only burn money: reasons stop the run, resumable."""

    def __init__(self) -> None:
        self._streak = 0
        self._first: list[str] = []

    def note(self, failure: str | None) -> str | None:
        """Note one finished request, in order of completion, and return why to stop, if so.

        Args:
            failure: The reason of a call that failed for good, None for a reply.
        """
        self._streak = self._streak + 1 if failure == "call_failed" else 0
        if self._streak >= FAILURE_STREAK:
            return f"{self._streak} calls in a row failed after all their attempts"
        if len(self._first) < EQUAL_REFUSALS:
            self._first.append(failure or "")
            if len(self._first) == EQUAL_REFUSALS and failure and set(self._first) == {failure}:
                return f"the provider refused each of the first {EQUAL_REFUSALS} requests for one reason, {failure}"
        return None
