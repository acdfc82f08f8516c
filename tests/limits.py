"""Behaviours of the model server that refuse calls beyond a limit, as providers do."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from tests import model_server as server
from tests.model_server import ModelServer


class InFlight:
    """Answers so many calls at once, each in `seconds`, and refuses the rest with 429."""

    def __init__(self, models: ModelServer, limit: int, seconds: float, **headers: str) -> None:
        self.refused_at: list[float] = []
        self.served_at: list[float] = []
        self.seconds: list[float] = []
        self._models, self._limit, self._seconds = models, limit, seconds
        self._refuse = server.error(429, "too many requests", **headers)

    async def __call__(self, request: web.Request, sent: dict[str, Any]) -> web.Response:
        if self._models.in_flight > self._limit:
            self.refused_at.append(time.monotonic())
            refused: web.Response = self._refuse(request, sent)
            return refused
        began = time.monotonic()
        await asyncio.sleep(self._seconds)
        self.served_at.append(time.monotonic())
        self.seconds.append(self.served_at[-1] - began)
        return server.good(request, sent)

    def busy(self, first: int) -> float:
        """Return the share of the places that were in use from the `first` answer on."""
        elapsed = self.served_at[-1] - self.served_at[first]
        return sum(self.seconds[first:]) / (elapsed * self._limit)


class Window:
    """Answers `limit` calls a window of `window` seconds, and says in headers what is left of it."""

    def __init__(self, limit: int, window: float, seconds: float, spell: Callable[[int, int, float], dict[str, str]]):
        self.refused = self.served = 0
        self._limit, self._window, self._seconds, self._spell = limit, window, seconds, spell
        self._opened_at, self._used = 0.0, 0

    async def __call__(self, request: web.Request, sent: dict[str, Any]) -> web.Response:
        now = time.monotonic()
        if now >= self._opened_at + self._window:
            self._opened_at, self._used = now, 0
        refuse = self._used >= self._limit
        self._used += not refuse
        self.refused += refuse
        self.served += not refuse
        told = self._spell(self._limit, self._limit - self._used, self._opened_at + self._window - now)
        return await _answer(request, sent, told, seconds=self._seconds, refuse=refuse)


class Bucket:
    """Refills `rate` calls a second up to `limit`, and says in headers what is left, as OpenAI does.

    Its reset is the time until the bucket is full.
    """

    def __init__(self, limit: int, rate: float, seconds: float, spell: Callable[[int, int, float], dict[str, str]]):
        self.refused = self.served = 0
        self._limit, self._rate, self._seconds, self._spell = limit, rate, seconds, spell
        self._level, self._at = float(limit), time.monotonic()

    async def __call__(self, request: web.Request, sent: dict[str, Any]) -> web.Response:
        now = time.monotonic()
        self._level, self._at = min(self._limit, self._level + (now - self._at) * self._rate), now
        refuse = self._level < 1
        self._level -= not refuse
        self.refused += refuse
        self.served += not refuse
        told = self._spell(self._limit, int(self._level), (self._limit - self._level) / self._rate)
        return await _answer(request, sent, told, seconds=self._seconds, refuse=refuse)


async def _answer(
    request: web.Request, sent: dict[str, Any], told: dict[str, str], *, seconds: float, refuse: bool
) -> web.Response:
    """Refuse a call at once, or answer it after so many seconds; either way with these headers."""
    if refuse:
        refused: web.Response = server.error(429, "rate limit reached", **told)(request, sent)
        return refused
    await asyncio.sleep(seconds)
    answered = server.good(request, sent)
    answered.headers.update(told)
    return answered


def openai_headers(limit: int, remaining: int, reset: float) -> dict[str, str]:
    """Return what OpenAI says of its requests."""
    return {
        "x-ratelimit-limit-requests": str(limit),
        "x-ratelimit-remaining-requests": str(remaining),
        "x-ratelimit-reset-requests": f"{reset * 1000:.0f}ms" if reset < 1 else f"{reset:.3f}s",
    }


def anthropic_headers(limit: int, remaining: int, reset: float) -> dict[str, str]:
    """Return what Anthropic says of its requests."""
    at = datetime.now(UTC) + timedelta(seconds=reset)
    return {
        "anthropic-ratelimit-requests-limit": str(limit),
        "anthropic-ratelimit-requests-remaining": str(remaining),
        "anthropic-ratelimit-requests-reset": f"{at:%Y-%m-%dT%H:%M:%SZ}",
    }
