"""Measures calls alone: nothing is planned, judged or written."""

import asyncio
import json
import time
import urllib.request
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from tests.benchmarks.figures import MODEL, Figures, description, resident_mb

Call = Callable[[str], Awaitable[Any]]
WARM_UP = 20


def take(provider: str) -> Figures:
    """Return the provider's count of calls, their first and last time, and start it anew."""
    with urllib.request.urlopen(f"{provider}/take") as reply:
        figures: Figures = json.loads(reply.read())
    return figures


def bare(*, provider: str, latency: int, rows: int, concurrency: int) -> Figures:
    """Post the same request with aiohttp alone and read the text: the limit."""
    import aiohttp

    from tasks.core.prompts import RESPONSE_SCHEMA

    async def opened() -> Any:
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        url = f"{provider}/{latency}/v1/chat/completions"
        asked = {"model": "benchmark", "max_tokens": 512, "response_format": RESPONSE_SCHEMA}

        async def call(prompt: str) -> str:
            body = {**asked, "messages": [{"role": "user", "content": prompt}]}
            async with session.post(url, json=body) as response:
                reply = await response.json()
            return str(reply["choices"][0]["message"]["content"])

        return call, session.close

    return _time(provider, rows, concurrency, opened)


def stock(*, provider: str, latency: int, rows: int, concurrency: int) -> Figures:
    """Call litellm.acompletion as its manual says."""
    import litellm

    from tasks.core.prompts import RESPONSE_SCHEMA

    async def opened() -> Any:
        call = partial(
            litellm.acompletion,
            model=MODEL,
            api_base=f"{provider}/{latency}/v1",
            max_tokens=512,
            response_format=RESPONSE_SCHEMA,
            max_retries=0,
        )
        return lambda prompt: call(messages=_turn(prompt)), litellm.close_litellm_async_clients

    return _time(provider, rows, concurrency, opened)


def lane(*, provider: str, latency: int, rows: int, concurrency: int) -> Figures:
    """Call our lane; PAIRMILL_LANE says which."""
    from tasks.clients.beginning import Beginnings
    from tasks.clients.lane import open_lane
    from tasks.core.garbage import collect_seldom
    from tasks.core.requests import Recipe

    async def opened() -> Any:
        # As the loop of a run's calls has it.
        asyncio.get_running_loop().set_default_executor(Beginnings())
        collect_seldom()
        taken = open_lane(Recipe(model_name=MODEL), f"{provider}/{latency}/v1")
        return taken.call, taken.close

    return _time(provider, rows, concurrency, opened)


def growth(*, provider: str, latency: int, rows: int, concurrency: int) -> Figures:
    """Call the fast lane, and say by how much memory grew over the last three quarters of the calls."""
    from tasks.clients.lane import open_lane
    from tasks.core.requests import Recipe

    async def run() -> Figures:
        taken = open_lane(Recipe(model_name=MODEL), f"{provider}/{latency}/v1")
        await _in_flight(taken.call, rows // 4, concurrency)
        before, cpu = resident_mb(), time.process_time()
        await _in_flight(taken.call, rows - rows // 4, concurrency)
        cpu = time.process_time() - cpu
        await taken.close()
        return {"rows": rows, "mb": resident_mb() - before, "cpu_ms": 1000 * cpu / (rows - rows // 4)}

    return asyncio.run(run())


def _turn(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


async def _in_flight(call: Call, rows: int, concurrency: int) -> None:
    from tasks.core.prompts import build_prompt

    prompts = (build_prompt(description(row), "English") for row in range(rows))

    async def work() -> None:
        for prompt in prompts:
            await call(prompt)

    await asyncio.gather(*(work() for _ in range(concurrency)))


def _time(provider: str, rows: int, concurrency: int, opened: Callable[[], Awaitable[Any]]) -> Figures:
    """Time `rows` calls of what `opened` returns, after a few to warm up."""

    async def run() -> Figures:
        call, close = await opened()
        await _in_flight(call, WARM_UP, 4)
        take(provider)
        before = time.process_time()
        await _in_flight(call, rows, concurrency)
        cpu = time.process_time() - before
        await close()
        taken = take(provider)
        if taken["calls"] != rows:
            raise RuntimeError(f"{taken['calls']} calls reached the provider, not {rows}")
        return {"rows": rows, "rows_s": rows / (taken["last"] - taken["first"]), "cpu_ms": 1000 * cpu / rows}

    return asyncio.run(run())
