import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from tasks.clients import llm
from tasks.clients.beginning import Beginnings, begin
from tasks.core.requests import Recipe
from tests.model_server import ModelServer

MODEL = "openai/gpt-4o-mini"


async def thread_of_a_beginning(model_name: str, work: Callable[[Callable[[], None]], Any]) -> str:
    """Return the name of the thread in which a call of the model began; `work` notes it."""
    names: list[str] = []
    begin(model_name)
    with suppress(ValueError):
        found = await asyncio.get_running_loop().run_in_executor(
            None, work, lambda: names.append(threading.current_thread().name)
        )
        if asyncio.iscoroutine(found):
            await found
    return names[0]


def sends(note: Callable[[], None]) -> Awaitable[None]:
    """Begin as most providers of litellm do: what sends the request is a coroutine."""
    note()
    return asyncio.sleep(0)


def waits(note: Callable[[], None]) -> str:
    """Begin as some do, that have the reply when they are through."""
    note()
    return "a reply"


def fails(note: Callable[[], None]) -> None:
    """Begin with an error."""
    note()
    raise ValueError


def run(*calls: tuple[str, Callable[[Callable[[], None]], Any]]) -> list[bool]:
    """Return for each call, one after the other in one loop, whether it began in the pool."""

    async def all_of_them() -> list[str]:
        asyncio.get_running_loop().set_default_executor(Beginnings())
        return [await thread_of_a_beginning(*call) for call in calls]

    return [name.startswith("model-pool") for name in asyncio.run(all_of_them())]


def test_a_call_begins_in_the_thread_of_the_loop() -> None:
    assert run(("a", sends), ("a", sends)) == [False, False]


@pytest.mark.parametrize("work", [waits, fails])
def test_a_model_that_may_wait_for_its_reply_there_begins_in_the_pool_from_then_on(work: Any) -> None:
    assert run(("a", work), ("a", work), ("b", sends), ("a", work)) == [False, True, False, True]


def test_what_else_a_call_has_done_there_is_done_in_the_pool() -> None:
    async def found() -> list[bool]:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(Beginnings())

        async def look_up() -> str:
            return await loop.run_in_executor(None, lambda: threading.current_thread().name)

        begin("a")
        coroutine = await loop.run_in_executor(None, look_up)
        return [(await one).startswith("model-pool") for one in (coroutine, asyncio.create_task(look_up()))]

    assert asyncio.run(found()) == [True, True]


def test_litellm_begins_a_call_there_and_nowhere_else(model_server: ModelServer) -> None:
    """Also the contract with litellm: one that begins elsewhere would need no such pool."""
    threads: list[str] = []

    class Noting(Beginnings):
        def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
            def noted() -> Any:
                begun = work(*args, **kwargs)
                if asyncio.iscoroutine(begun):
                    threads.append(threading.current_thread().name)
                return begun

            return super().submit(noted)

    async def ask() -> None:
        asyncio.get_running_loop().set_default_executor(Noting())
        call = llm.connect(Recipe(model_name=MODEL), model_server.api_base)
        try:
            for prompt in ("one", "another"):
                await call(prompt)
        finally:
            await llm.disconnect()

    asyncio.run(ask())
    assert threads == [threading.current_thread().name] * 2
