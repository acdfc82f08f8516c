"""The crowd of calls inside the loop: shard after shard, equal requests once.

Everything here runs in the loop's own thread; `calls` is what other threads hold.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, cast

from tasks.clients.attempts import Attempts, Request
from tasks.core.errors import PairmillError


class Crowd:
    """Completes the requests of one shard after the other.

    Args:
        attempts: Gives a request its completion.
        others: By the name of each further model, the same; a request names its own.
        loop: Where this runs.
    """

    def __init__(self, attempts: Attempts, others: Mapping[str, Attempts], loop: asyncio.AbstractEventLoop) -> None:
        self._attempts, self._others, self._loop = attempts, others, loop
        self._in_flight: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._shards: set[asyncio.Task[Any]] = set()
        self._turns = {one: asyncio.Lock() for one in (attempts, *others.values())}

    @property
    def busy(self) -> bool:
        """Whether a shard waits for its completions."""
        return bool(self._shards)

    def cancel(self) -> None:
        """End every shard."""
        for task in self._shards:
            task.cancel()

    async def drain(self) -> None:
        """Wait until no shard and no call is left."""
        await asyncio.gather(*self._shards, *self._in_flight.values(), return_exceptions=True)

    async def complete(self, requests: list[Request]) -> list[dict[str, Any]]:
        """Return one completion for each request of a shard, in their order; see `ModelClient.complete`."""
        this = cast("asyncio.Task[Any]", asyncio.current_task())
        self._shards.add(this)
        completions: list[dict[str, Any]] = [{} for _ in requests]
        groups: defaultdict[Attempts, list[tuple[int, Request]]] = defaultdict(list)
        for position, request in enumerate(requests):
            groups[self._of(request)].append((position, request))
        asked = [asyncio.create_task(self._ask(one, group, completions)) for one, group in groups.items()]
        try:
            await asyncio.gather(*asked)
        except PairmillError as error:
            self._attempts.stop(error)
            raise self._attempts.stopped or error from None
        finally:
            await _end(asked)
            self._shards.discard(this)
        return completions

    async def _ask(self, model: Attempts, group: list[tuple[int, Request]], completions: list[dict[str, Any]]) -> None:
        """Put the completions of one model's requests into their places."""
        waiting = iter(group)
        handed_out = asyncio.Event()

        async def work() -> None:
            try:
                for position, request in waiting:
                    completions[position] = await self._single_flight(request)
            finally:
                handed_out.set()

        workers: list[asyncio.Task[None]] = []
        try:
            # One shard after the other, so that the first is judged while the next is asked for.
            async with self._turns[model]:
                workers += [asyncio.create_task(work()) for _ in range(min(len(group), model.limiter.ceiling))]
                await handed_out.wait()
            await asyncio.gather(*workers)
        finally:
            await _end(workers)

    def _of(self, request: Request) -> Attempts:
        return self._others.get(request.model_name, self._attempts)

    async def _single_flight(self, request: Request) -> dict[str, Any]:
        """Ask once for equal requests that are in flight at the same time."""
        running = self._in_flight.get(request.key)
        if running is not None:
            return await asyncio.shield(running)
        # A future, since a task for each call costs more than its journal line.
        mine = self._in_flight[request.key] = self._loop.create_future()
        try:
            completion = await self._of(request).complete(request)
            mine.set_result(completion)
        finally:
            # What ends one caller ends all of them: the run is over.
            mine.cancel()
            del self._in_flight[request.key]
        return completion


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
