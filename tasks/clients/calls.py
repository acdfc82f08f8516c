"""The crowd of calls around a model: one loop, shard after shard, and its end.

One thread per process runs the event loop; the threads of generate steps hand
their requests to it and wait.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError as FutureCancelledError
from typing import Any, Self, TypeVar, cast

from tasks.clients.attempts import RESUME, Attempts, Request
from tasks.core.dealing import Standing
from tasks.core.errors import PairmillError, StoppedError

STOP_SECONDS = 5.0

T = TypeVar("T")


class ModelClient:
    """Turns requests into completions, each paid for once; use as a context manager.

    Args:
        attempts: Gives a request its completion.
        close_call: Awaited in the loop that made the calls, before it ends.
        flush: Puts what was paid for where other machines find it.
    """

    def __init__(
        self,
        attempts: Attempts,
        *,
        close_call: Callable[[], Coroutine[Any, Any, None]] | None = None,
        flush: Callable[[], None] = lambda: None,
    ) -> None:
        self.attempts = attempts
        self.flush = flush
        self._close_call = close_call
        self._in_flight: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._shards: set[asyncio.Task[Any]] = set()
        self._turn = asyncio.Lock()

    def __enter__(self) -> Self:
        """Start the loop."""
        self._loop = asyncio.new_event_loop()
        self.attempts.on_stop = lambda: self._loop.call_soon_threadsafe(self._cancel_shards)
        self._thread = threading.Thread(target=self._loop.run_forever, name="model", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Stop paying at once: calls in flight are cancelled, what has arrived is kept."""
        self.stop(StoppedError(f"The run was stopped. {RESUME}"))
        self._wait(self._drain())
        if self._close_call is not None:
            self._wait(self._close_call())
        self._wait(self._cancel_rest())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()

    def stop(self, error: PairmillError) -> None:
        """Make every waiting and later call of `complete` raise `error`; the first stop counts."""
        self.attempts.stop(error)

    def complete(self, requests: list[Request]) -> list[dict[str, Any]]:
        """Return one completion for each request, in their order; all are in the journal.

        Raises:
            ModelError: No request will be answered; says what to set.
            StoppedError: The run was stopped, or too many calls failed in a row.
        """
        if self.attempts.stopped is not None:
            raise self.attempts.stopped
        if not requests:
            return []
        future = asyncio.run_coroutine_threadsafe(self._complete_all(requests), self._loop)
        try:
            return future.result()
        except FutureCancelledError:
            raise self.attempts.stopped or StoppedError(f"The run was stopped. {RESUME}") from None

    def borrow(self) -> None:
        """Spend only what `lend` allows, before the first call."""
        if self.attempts.budget is not None:
            self.attempts.budget.leased, self.attempts.budget.max_cost_usd = True, 0.0

    def lend(self, max_cost_usd: float) -> None:
        """Let its calls cost so much in all, from any thread; see `Budget.lend`."""
        if self.attempts.budget is not None:
            self._loop.call_soon_threadsafe(self.attempts.budget.lend, max_cost_usd)

    @property
    def standing(self) -> Standing:
        """How it stands with its money."""
        budget = self.attempts.budget
        if budget is None:
            return Standing()
        return Standing(
            ceiling=budget.max_cost_usd,
            spent=budget.spent,
            reserved=budget.reserved,
            asked=budget.asked,
            in_flight=budget.in_flight,
            short=budget.short,
            busy=bool(self._shards),
        )

    @property
    def limit(self) -> int:
        """What the adaptive limit on calls in flight stands at."""
        return int(self.attempts.limiter.limit)

    def _wait(self, work: Coroutine[Any, Any, T]) -> None:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            future.result(STOP_SECONDS)
        except TimeoutError:
            future.cancel()

    def _cancel_shards(self) -> None:
        for task in self._shards:
            task.cancel()

    async def _drain(self) -> None:
        await asyncio.gather(*self._shards, *self._in_flight.values(), return_exceptions=True)

    async def _cancel_rest(self) -> None:
        """End what a library left running in our loop, before the loop closes."""
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _complete_all(self, requests: list[Request]) -> list[dict[str, Any]]:
        this = cast("asyncio.Task[Any]", asyncio.current_task())
        self._shards.add(this)
        completions: list[dict[str, Any]] = [{} for _ in requests]
        waiting = iter(enumerate(requests))
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
            async with self._turn:
                workers += [
                    asyncio.create_task(work()) for _ in range(min(len(requests), self.attempts.limiter.ceiling))
                ]
                await handed_out.wait()
            await asyncio.gather(*workers)
        except PairmillError as error:
            self.stop(error)
            raise self.attempts.stopped or error from None
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            self._shards.discard(this)
        return completions

    async def _single_flight(self, request: Request) -> dict[str, Any]:
        """Ask once for equal requests that are in flight at the same time."""
        running = self._in_flight.get(request.key)
        if running is not None:
            return await asyncio.shield(running)
        # A future, since a task for each call costs more than its journal line.
        mine = self._in_flight[request.key] = self._loop.create_future()
        try:
            completion = await self.attempts.complete(request)
            mine.set_result(completion)
        finally:
            # What ends one caller ends all of them: the run is over.
            mine.cancel()
            del self._in_flight[request.key]
        return completion
