"""The one loop around a model: concurrency, retries, durability, stopping.

One thread per process runs the event loop; the threads of generate steps hand
their requests to it and wait.
"""

import asyncio
import random
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError as FutureCancelledError
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, Self, TypeVar, cast

from tasks.clients.llm import CALL_DEADLINE_SECONDS, Call, CallFault, Reply
from tasks.clients.pacing import Breaker, Limiter
from tasks.core.errors import ModelError, PairmillError, StoppedError
from tasks.core.rules import CALL_FAILED

ATTEMPTS = 5
BACKOFF_SECONDS = 1.0
BACKOFF_CEILING_SECONDS = 60.0
STOP_SECONDS = 5.0
RESUME = "What was paid for is kept: run the same command again to go on."

T = TypeVar("T")


class Record(Protocol):
    """Where completions are kept before they count (the journal)."""

    lost: PairmillError | None

    def append(self, request_key: str, completion: dict[str, Any]) -> None:
        """Keep a completion so that it survives this process."""
        ...


@dataclass(frozen=True)
class Request:
    """One wanted completion."""

    key: str
    prompt: str


class ModelClient:
    """Turns requests into completions, each paid for once; use as a context manager.

    A completion is a dict with the columns of COMPLETIONS. Counters are of this
    client's life: `paid` replies, `failed` calls, `retried` attempts.
    """

    def __init__(
        self,
        open_call: Callable[[], Call],
        journal: Record,
        concurrency: int,
        *,
        close_call: Callable[[], Coroutine[Any, Any, None]] | None = None,
        deadline_seconds: float = CALL_DEADLINE_SECONDS,
        backoff_seconds: float = BACKOFF_SECONDS,
    ) -> None:
        self.paid = 0
        self.failed = 0
        self.retried = 0
        self.stopped: PairmillError | None = None
        self._open_call, self._close_call = open_call, close_call
        self._journal = journal
        self._concurrency = concurrency
        self._deadline = deadline_seconds
        self._backoff = backoff_seconds
        self._breaker = Breaker()
        self._in_flight: dict[str, asyncio.Task[dict[str, Any]]] = {}
        self._shards: set[asyncio.Task[Any]] = set()

    def __enter__(self) -> Self:
        """Connect to the model and start the loop.

        Raises:
            UsageError, ModelError: The model's name or key cannot work.
        """
        self._call = self._open_call()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="model", daemon=True)
        self._thread.start()
        self._limiter = asyncio.run_coroutine_threadsafe(self._make_limiter(), self._loop).result()
        return self

    async def _make_limiter(self) -> Limiter:
        return Limiter(self._concurrency)

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
        if self.stopped is None:
            self.stopped = error
            self._loop.call_soon_threadsafe(self._cancel_shards)

    def complete(self, requests: list[Request]) -> list[dict[str, Any]]:
        """Return one completion for each request, in their order; all are in the journal.

        Raises:
            ModelError: No request will be answered; says what to set.
            StoppedError: The run was stopped, or too many calls failed in a row.
        """
        if self.stopped is not None:
            raise self.stopped
        future = asyncio.run_coroutine_threadsafe(self._complete_all(requests), self._loop)
        try:
            return future.result()
        except FutureCancelledError:
            raise self.stopped or StoppedError(f"The run was stopped. {RESUME}") from None

    @property
    def limit(self) -> int:
        """What the adaptive limit on calls in flight stands at."""
        return int(self._limiter.limit)

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

        async def work() -> None:
            for position, request in waiting:
                completions[position] = await self._single_flight(request)

        workers = [asyncio.create_task(work()) for _ in range(min(len(requests), self._concurrency))]
        try:
            await asyncio.gather(*workers)
        except PairmillError as error:
            self.stop(error)
            raise self.stopped or error from None
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
        task = asyncio.create_task(self._complete(request))
        self._in_flight[request.key] = task
        try:
            return await task
        finally:
            del self._in_flight[request.key]

    async def _complete(self, request: Request) -> dict[str, Any]:
        attempts = throttles = 0
        while True:
            # Also where a cancellation met a reply that had just arrived, which asyncio then lets through.
            if self.stopped is not None:
                raise self.stopped
            if self._journal.lost is not None:
                raise self._journal.lost
            place = await self._limiter.acquire()
            try:
                reply = await asyncio.wait_for(self._call(request.prompt), self._deadline)
            except TimeoutError:
                fault = CallFault("transient", f"no whole reply within {self._deadline:g} seconds")
            except CallFault as raised:
                fault = raised
            else:
                self._limiter.succeeded()
                return self._keep(request, asdict(reply), time.monotonic() - place, attempts + 1, throttles)
            finally:
                await self._limiter.release()
            if fault.kind == "fatal":
                raise ModelError(f"{fault.message} {RESUME}")
            if fault.kind == "refused":
                return self._keep(request, _no_reply(fault.reason), time.monotonic() - place, attempts + 1, throttles)
            self.retried += 1
            if fault.kind == "throttled":
                throttles += 1
                pause = fault.retry_after if fault.retry_after is not None else self._pause(throttles)
                if not self._limiter.throttled(place, pause):
                    raise StoppedError(f"The provider has refused every call for too long ({fault.message}). {RESUME}")
                continue
            attempts += 1
            if attempts == ATTEMPTS:
                return self._give_up(time.monotonic() - place, throttles, fault)
            await asyncio.sleep(max(fault.retry_after or 0.0, self._pause(attempts)))

    def _pause(self, attempt: int) -> float:
        """Exponential backoff with full jitter, in seconds.

        Source: AWS Architecture Blog, "Exponential Backoff And Jitter".
        """
        return random.uniform(0, min(BACKOFF_CEILING_SECONDS, self._backoff * 2**attempt))  # noqa: S311

    def _keep(self, request: Request, reply: dict[str, Any], latency: float, *counts: int) -> dict[str, Any]:
        """Write the reply down, then count it."""
        completion = _completion(reply, latency, *counts)
        self._journal.append(request.key, completion)
        refused = reply["error"] if reply["error"] not in (None, "no_choices") else None
        self.paid += refused is None
        self.failed += refused is not None
        self._trip(refused, reply["error"] or "")
        return completion

    def _give_up(self, latency: float, throttles: int, fault: CallFault) -> dict[str, Any]:
        """A call that failed for good today; not in the journal, since a later try may mend it."""
        self.failed += 1
        self._trip(CALL_FAILED, fault.message)
        return _completion(_no_reply(CALL_FAILED), latency, ATTEMPTS, throttles)

    def _trip(self, failure: str | None, message: str) -> None:
        why = self._breaker.note(failure)
        if why:
            raise StoppedError(f"Stopped, since {why} (last: {message}). {RESUME}")


def _completion(reply: dict[str, Any], latency: float, attempts: int, throttled: int) -> dict[str, Any]:
    return reply | {
        "latency_s": latency,
        "attempts": attempts,
        "throttled": throttled,
        "completed_at": datetime.now(UTC),
    }


def _no_reply(reason: str) -> dict[str, Any]:
    return asdict(Reply(None, None, None, None, None, None, reason))
