"""The one loop around a model: concurrency, retries, durability, stopping.

One thread per process runs the event loop; the threads of generate steps hand
their requests to it and wait.
"""

import asyncio
import random
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import CancelledError as FutureCancelledError
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol, Self, TypeVar, cast

from tasks.clients.budget import Budget
from tasks.clients.llm import CALL_DEADLINE_SECONDS, Call, CallFault, Reply
from tasks.clients.pacing import BACKOFF_CEILING_SECONDS, BACKOFF_SECONDS, PATIENCE_SECONDS, Breaker, Limiter
from tasks.clients.rates import Place, Rates
from tasks.core.errors import ModelError, PairmillError, StoppedError
from tasks.core.price import Price
from tasks.core.rules import CALL_FAILED

ATTEMPTS = 5
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

    Args:
        open_call: Returns the function that makes one attempt.
        journal: Keeps completions before they count.
        concurrency: Most calls in flight.
        close_call: Awaited in the loop that made the calls, before it ends.
        rates: The pace of calls; heeds what replies say of rate limits.
        budget: What the run may cost, None for no limit.
        price: What a completion's cost is made from, None for what the reply says.
        find_problem: Says why nothing came of a reply, None for a good one; asked of the first replies only.
        deadline_seconds: Of one whole attempt.
        backoff_seconds: Grows from here, attempt by attempt.
        patience_seconds: Of refusals without one good reply, before the run stops.
    """

    def __init__(
        self,
        open_call: Callable[[], Call],
        journal: Record,
        concurrency: int,
        *,
        close_call: Callable[[], Coroutine[Any, Any, None]] | None = None,
        rates: Rates | None = None,
        budget: Budget | None = None,
        price: Price | None = None,
        find_problem: Callable[[Reply], str | None] = lambda reply: reply.error,
        deadline_seconds: float = CALL_DEADLINE_SECONDS,
        backoff_seconds: float = BACKOFF_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self.paid = 0
        self.failed = 0
        self.retried = 0
        self.stopped: PairmillError | None = None
        self._open_call, self._close_call = open_call, close_call
        self._journal = journal
        self._concurrency = concurrency
        self._budget, self._price, self._find_problem = budget, price, find_problem
        self._limiter = Limiter(concurrency, rates, patience_seconds=patience_seconds, backoff_seconds=backoff_seconds)
        self._deadline, self._backoff, self._patience = deadline_seconds, backoff_seconds, patience_seconds
        self._breaker = Breaker()
        self._in_flight: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._shards: set[asyncio.Task[Any]] = set()
        self._turn = asyncio.Lock()

    def __enter__(self) -> Self:
        """Connect to the model and start the loop.

        Raises:
            UsageError, ModelError: The model's name or key cannot work.
        """
        self._call = self._open_call()
        self._loop = asyncio.new_event_loop()
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
        if not requests:
            return []
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
                workers += [asyncio.create_task(work()) for _ in range(min(len(requests), self._concurrency))]
                await handed_out.wait()
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
        # A future, since a task for each call costs more than its journal line.
        mine = self._in_flight[request.key] = self._loop.create_future()
        try:
            completion = await self._complete(request)
            mine.set_result(completion)
        finally:
            # What ends one caller ends all of them: the run is over.
            mine.cancel()
            del self._in_flight[request.key]
        return completion

    async def _complete(self, request: Request) -> dict[str, Any]:
        tries = _Tries()
        while True:
            place = await self._limiter.acquire()
            try:
                completion = await self._try(request, place, tries)
            except PairmillError as error:
                # Before the place is free: nobody else may start now.
                self.stop(error)
                raise
            finally:
                self._limiter.release()
            if completion is not None:
                return completion
            await asyncio.sleep(tries.pause)

    async def _try(self, request: Request, place: Place, tries: "_Tries") -> dict[str, Any] | None:
        """Make one attempt; None where another one is due, after `tries.pause` seconds.

        Raises:
            ModelError, StoppedError, StorageError: The run is over.
        """
        # Also where a cancellation met a reply that had just arrived, which asyncio then lets through.
        if self.stopped is not None:
            raise self.stopped
        if self._journal.lost is not None:
            raise self._journal.lost
        try:
            reply = await self._attempt(request.prompt, place)
        except CallFault as fault:
            match fault.kind:
                case "fatal":
                    raise ModelError(f"{fault.message} {RESUME}") from None
                case "refused":
                    return self._keep(request, _nothing(fault.reason), place, tries)
                case "throttled":
                    tries.throttles, tries.pause = tries.throttles + 1, 0.0
                    self._throttle(place, fault)
                case "transient":
                    tries.failures += 1
                    if tries.failures == ATTEMPTS:
                        return self._give_up(place, tries, fault)
                    asked = min(fault.retry_after or 0.0, self._patience)
                    tries.pause = max(asked, self._pause(tries.failures))
            self.retried += 1
            return None
        self._limiter.succeeded(place)
        return self._keep(request, reply, place, tries)

    async def _attempt(self, prompt: str, place: Place) -> Reply:
        """Make one call within the deadline; whatever comes of it, the ledgers are settled.

        Raises:
            CallFault: It brought no reply.
            StoppedError: The budget does not allow it.
        """
        reserved = await self._budget.reserve(prompt) if self._budget else 0.0
        # Cancelled in flight, it may be billed all the same.
        cost: float | None = None
        tokens: int | None = None
        headers: Mapping[str, str] = {}
        try:
            try:
                async with asyncio.timeout(self._deadline):
                    reply = await self._call(prompt)
            except TimeoutError:
                message = f"no whole reply within {self._deadline:g} seconds"
                raise CallFault("transient", message, billed=True) from None
            if self._price is not None and reply.input_tokens is not None and reply.output_tokens is not None:
                reply = replace(reply, cost_usd=self._price.of(reply.input_tokens, reply.output_tokens))
            cost, headers = reply.cost_usd, reply.headers
            tokens = (reply.input_tokens or 0) + (reply.output_tokens or 0)
            return reply
        except CallFault as fault:
            cost, headers = None if fault.billed else 0.0, fault.headers
            raise
        finally:
            self._limiter.rates.settle(place, tokens)
            if headers:
                self._limiter.rates.heed(place, headers, time.monotonic())
            if self._budget:
                self._budget.settle(reserved, cost)

    def _throttle(self, place: Place, fault: CallFault) -> None:
        if not self._limiter.throttled(place, fault.retry_after):
            asks = f", and asks to wait {fault.retry_after:,.0f} seconds" if fault.retry_after else ""
            raise StoppedError(
                f"The provider answers every call with a rate limit{asks} ({fault.message}). A run waits "
                f"{self._patience:,.0f} seconds for one good reply, no longer. {RESUME}"
            )

    def _pause(self, attempt: int) -> float:
        """Exponential backoff with full jitter, in seconds.

        Source: AWS Architecture Blog, "Exponential Backoff And Jitter".
        """
        return random.uniform(0, min(BACKOFF_CEILING_SECONDS, self._backoff * 2**attempt))  # noqa: S311

    def _keep(self, request: Request, reply: Reply, place: Place, tries: "_Tries") -> dict[str, Any]:
        """Write the reply down, then count it."""
        completion = _completion(reply, place, tries.failures + 1, tries.throttles)
        self._journal.append(request.key, completion)
        refused = reply.error not in (None, "no_choices")
        self.paid += not refused
        self.failed += refused
        problem = self._find_problem(reply) if self._breaker.at_start else None
        self._trip(problem or "", problem=problem)
        return completion

    def _give_up(self, place: Place, tries: "_Tries", fault: CallFault) -> dict[str, Any]:
        """A call that failed for good today; not in the journal, since a later try may mend it."""
        self.failed += 1
        self._trip(fault.message, failed=True, problem=CALL_FAILED)
        return _completion(_nothing(CALL_FAILED), place, tries.failures, tries.throttles)

    def _trip(self, last: str, *, failed: bool = False, problem: str | None) -> None:
        why = self._breaker.note(failed=failed, problem=problem)
        if why:
            hint = "" if failed else " Look at a few with --limit 20, and change the model or its parameters."
            raise StoppedError(f"Stopped, since {why} (last: {last}).{hint} {RESUME}")


@dataclass
class _Tries:
    """What one request went through so far; `pause` in seconds before the next attempt."""

    failures: int = 0
    throttles: int = 0
    pause: float = 0.0


def _completion(reply: Reply, place: Place, attempts: int, throttled: int) -> dict[str, Any]:
    return {
        "text": reply.text,
        "finish_reason": reply.finish_reason,
        "model_answered": reply.model_answered,
        "input_tokens": reply.input_tokens,
        "output_tokens": reply.output_tokens,
        "cost_usd": reply.cost_usd,
        "latency_s": time.monotonic() - place.at,
        "attempts": attempts,
        "throttled": throttled,
        "error": reply.error,
        "completed_at": datetime.now(UTC),
    }


def _nothing(reason: str) -> Reply:
    return Reply(None, None, None, None, None, None, reason)
