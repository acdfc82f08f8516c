"""How well the adaptive limit finds what a provider allows.

    python -m tests.benchmarks.pacing

Against providers that allow 8 calls in flight or so many a second, each with a
ceiling of 64: calls a second as a share of what the provider can give, and the
share of requests refused; first simulated in virtual time, which gives the same
figures everywhere, then against a server on loopback. The first half of a run
against one that does not say its limits is left out: the limit settles in it.
"""

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from tasks.clients import llm
from tasks.clients.attempts import Attempts, Request
from tasks.clients.calls import ModelClient
from tasks.clients.pacing import Limiter
from tasks.clients.rates import Rates
from tasks.core.errors import PairmillError
from tasks.core.requests import Recipe
from tests import providers
from tests.limits import Bucket, InFlight, Window, openai_headers
from tests.model_server import ModelServer

CEILING = 64
ALLOWED = 8
SECONDS = 0.2
RECIPE = Recipe(model_name="hosted_vllm/some-model")


class Figures(NamedTuple):
    """Calls answered as a share of what the server could give, share of requests refused, and where it settled."""

    given: float
    refused: float
    limit: int


class Unkept:
    """A journal that keeps nothing."""

    def __init__(self) -> None:
        self.lost: PairmillError | None = None

    def append(self, request_key: str, completion: Mapping[str, Any]) -> None:
        """Keep nothing."""


def run(models: ModelServer, calls: int, concurrency: int = CEILING, rates: Rates | None = None) -> tuple[float, int]:
    """Make so many calls and return the seconds they took and where the limit stood at the end."""
    attempts = Attempts(llm.connect(RECIPE, models.api_base), Unkept(), concurrency, rates=rates)
    with ModelClient(attempts, close_call=llm.disconnect) as model:
        model.complete([Request("first", "first")])
        started = time.monotonic()
        model.complete([Request(str(number), f"call {number}") for number in range(calls)])
        return time.monotonic() - started, model.limit


def in_flight(models: ModelServer, calls: int, retry_after: str = "") -> Figures:
    """Measure how much of a server's 8 places is used, against how much a client of exactly 8 uses."""
    best = models.default = InFlight(models, ALLOWED, SECONDS)
    run(models, 40 * ALLOWED, ALLOWED)
    told = {"Retry-After": retry_after} if retry_after else {}
    server = models.default = InFlight(models, ALLOWED, SECONDS, **told)
    _, limit = run(models, calls)
    half = calls // 2
    refused = sum(at > server.served_at[half] for at in server.refused_at)
    return Figures(server.busy(half) / best.busy(ALLOWED), refused / (calls - half + refused), limit)


def in_virtual_time(kind: type[providers.Provider], calls: int, retry_after: float | None = None) -> Figures:
    """Simulate a provider whose calls take 1 s on average, where no machine is slow or busy."""

    async def simulated(clock: providers.Clock) -> Figures:
        provider = kind(clock)
        limiter = Limiter(CEILING, clock=clock)
        await providers.work(provider, limiter, calls, retry_after)
        half = calls // 2 if kind is providers.InFlight else 0
        took = provider.served[-1] - provider.served[half]
        refused = sum(at > provider.served[half] for at in provider.refused)
        share = (calls - half - provider.burst) / took / provider.rate_allowed
        return Figures(share, refused / (calls - half + refused), int(limiter.limit))

    figures: Figures = providers.simulate(simulated)
    return figures


def window(models: ModelServer, calls: int, limit: int = 100, seconds: float = 4.0) -> Figures:
    """Measure a server that allows `limit` calls in each window and says so, from the first call on."""
    server = models.default = Window(limit, seconds, SECONDS, openai_headers)
    took, settled = run(models, calls)
    return Figures(calls / took / (limit / seconds), server.refused / (server.served + server.refused), settled)


def bucket(models: ModelServer, calls: int, limit: int = 50, rate: float = 25.0) -> Figures:
    """Measure a server whose allowance refills all the time and that says so, from the first call on."""
    server = models.default = Bucket(limit, rate, SECONDS, openai_headers)
    took, settled = run(models, calls)
    # Full at the start, it gives so much more than it refills.
    return Figures((calls - limit) / took / rate, server.refused / (server.served + server.refused), settled)


def capped(models: ModelServer, calls: int, requests_per_minute: int = 1500) -> Figures:
    """Measure a server that says nothing, with the flow's parameter set to what it allows."""
    server = models.default = Bucket(25, requests_per_minute / 60, SECONDS, lambda *_: {})
    took, settled = run(models, calls, rates=Rates(requests_per_minute))
    share = calls / took / (requests_per_minute / 60)
    return Figures(share, server.refused / (server.served + server.refused), settled)


SIMULATED: dict[str, Callable[[], Figures]] = {
    "8 in flight, 429 without Retry-After": partial(in_virtual_time, providers.InFlight, 4000),
    "8 in flight, 429 with Retry-After: 1": partial(in_virtual_time, providers.InFlight, 4000, 1.0),
    "100 calls in each minute, stated in headers": partial(in_virtual_time, providers.Window, 3000),
    "5 calls a second refilled, stated in headers": partial(in_virtual_time, providers.Bucket, 3000),
}
MEASURES: dict[str, Callable[[ModelServer], Figures]] = {
    "8 in flight, 429 without Retry-After": partial(in_flight, calls=1200),
    "8 in flight, 429 with Retry-After: 1": partial(in_flight, calls=2500, retry_after="1"),
    "100 calls in each 4 s, stated in headers": partial(window, calls=500),
    "25 calls a second refilled, stated in headers": partial(bucket, calls=500),
    "25 calls a second, requests_per_minute 1500": partial(capped, calls=300),
}


def main() -> None:
    """Print the figures."""
    os.environ.setdefault("HOSTED_VLLM_API_KEY", "none")
    _show("simulated, in virtual time", SIMULATED)
    with ModelServer() as models:
        _show("a server on loopback", {name: partial(measure, models) for name, measure in MEASURES.items()})


def _show(title: str, measures: Mapping[str, Callable[[], Figures]]) -> None:
    table = Table(title, "of what it can give", "refused", "limit at the end")
    for name, measure in measures.items():
        figures = measure()
        table.add_row(name, f"{figures.given:.0%}", f"{figures.refused:.1%}", str(figures.limit))
    Console().print(table)


if __name__ == "__main__":
    main()
