"""Simulated providers, in virtual time: what they allow, refuse and say, to the call."""

import asyncio
import math
import random
from collections.abc import Callable, Coroutine
from typing import Any

from tasks.clients.pacing import Limiter
from tests import virtual_time
from tests.limits import openai_headers

Clock = Callable[[], float]
Spell = Callable[[int, int, float], dict[str, str]]


class Provider:
    """A simulated provider: answers in `seconds`, or refuses at once where it has to.

    `rate_allowed` are the calls a second that it allows, beside `burst` at the start.
    """

    burst, rate_allowed = 0, math.inf

    def __init__(self, clock: Clock, seconds: float = 1.0) -> None:
        self.clock, self.seconds = clock, seconds
        self.in_flight = self.most = 0
        self.served: list[float] = []
        self.refused: list[float] = []
        self.tokens: list[int] = []

    def refuses(self) -> bool:
        return False

    def headers(self) -> dict[str, str]:
        return {}

    async def call(self, limiter: Limiter, retry_after: float | None) -> bool:
        """Make one call under the limiter; whether it was answered."""
        place = await limiter.acquire()
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        refused, headers = self.refuses(), self.headers()
        tokens = None if refused else random.randint(100, 500)
        (self.refused if refused else self.served).append(self.clock())
        if not refused:
            await asyncio.sleep(self.seconds * random.uniform(0.5, 1.5))
            self.tokens.append(tokens or 0)
        self.in_flight -= 1
        limiter.rates.settle(place, tokens)
        limiter.rates.heed(place, headers, self.clock())
        if refused:
            assert limiter.throttled(place, retry_after)
        else:
            limiter.succeeded(place)
        limiter.release()
        return not refused


class InFlight(Provider):
    """Allows so many calls at once."""

    allowed = 8
    rate_allowed = 8.0

    def refuses(self) -> bool:
        return self.in_flight > self.allowed


class Window(Provider):
    """Allows so many calls in each window, and says so."""

    allowed, window = 100, 60.0
    # What is given at once, and from then on.
    burst, rate_allowed = 100, 100 / 60.0
    spell: Spell = staticmethod(openai_headers)

    def __init__(self, clock: Clock, seconds: float = 1.0) -> None:
        super().__init__(clock, seconds)
        self.opened, self.used = -math.inf, 0

    def refuses(self) -> bool:
        if self.clock() >= self.opened + self.window:
            self.opened, self.used = self.clock(), 0
        self.used += 1
        return self.used > self.allowed

    def headers(self) -> dict[str, str]:
        return self.spell(self.allowed, max(0, self.allowed - self.used), self.opened + self.window - self.clock())


class Bucket(Provider):
    """Refills its allowance all the time, and says when it will be full."""

    allowed, rate = 100, 5.0
    burst, rate_allowed = 100, 5.0
    spell: Spell = staticmethod(openai_headers)

    def __init__(self, clock: Clock, seconds: float = 1.0) -> None:
        super().__init__(clock, seconds)
        self.level, self.at = float(self.allowed), 0.0

    def refuses(self) -> bool:
        now = self.clock()
        self.level, self.at = min(self.allowed, self.level + (now - self.at) * self.rate), now
        if self.level < 1:
            return True
        self.level -= 1
        return False

    def headers(self) -> dict[str, str]:
        return self.spell(self.allowed, int(self.level), (self.allowed - self.level) / self.rate)


async def work(provider: Provider, limiter: Limiter, calls: int, retry_after: float | None = None) -> None:
    """Have so many calls answered, with a worker for each place under the ceiling."""
    left = iter(range(calls))

    async def worker() -> None:
        for _ in left:
            while not await provider.call(limiter, retry_after):
                pass

    await asyncio.gather(*(worker() for _ in range(limiter.ceiling)))


def simulate(main: Callable[[Clock], Coroutine[Any, Any, Any]]) -> Any:
    random.seed(7)
    return virtual_time.run(main)
