"""A run's models as its threads hold them: one loop, and its end.

One thread per process runs the event loop with the crowd of calls; the threads of
generate steps hand their requests to it and wait.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import CancelledError as FutureCancelledError
from contextlib import suppress
from functools import partial
from typing import Any, Self, TypeVar

from tasks.clients.attempts import Attempts, Request
from tasks.clients.beginning import Beginnings
from tasks.clients.crowd import Crowd
from tasks.core.dealing import Standing
from tasks.core.errors import STOPPED, PairmillError, StoppedError
from tasks.core.garbage import collect_seldom

STOP_SECONDS = 5.0

T = TypeVar("T")


class ModelClient:
    """Turns requests into completions, each paid for once; use as a context manager.

    Args:
        attempts: Gives a request its completion.
        others: By the name of each further model, the same; a request names its own.
        close_call: Awaited in the loop that made the calls, before it ends.
        flush: Puts what was paid for where other machines find it.
    """

    def __init__(
        self,
        attempts: Attempts,
        *,
        others: Mapping[str, Attempts] | None = None,
        close_call: Callable[[], Coroutine[Any, Any, None]] | None = None,
        flush: Callable[[], None] = lambda: None,
    ) -> None:
        self.attempts = attempts
        self.others = dict(others or {})
        self.flush = flush
        self._close_call = close_call

    @property
    def models(self) -> list[Attempts]:
        """The attempts of every model."""
        return [self.attempts, *self.others.values()]

    def __enter__(self) -> Self:
        """Start the loop."""
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(Beginnings())
        self._crowd = Crowd(self.attempts, self.others, self._loop)
        for one in self.models:
            one.on_stop = partial(self._stop_all, one)
        collect_seldom()
        self._thread = threading.Thread(target=self._loop.run_forever, name="model", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Stop paying at once: calls in flight are cancelled, what has arrived is kept."""
        self.stop(StoppedError(STOPPED))
        self._wait(self._crowd.drain())
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

    def _stop_all(self, first: Attempts) -> None:
        for one in self.models:
            one.stop(first.stopped or StoppedError(STOPPED))
        self._loop.call_soon_threadsafe(self._crowd.cancel)

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
        future = asyncio.run_coroutine_threadsafe(self._crowd.complete(requests), self._loop)
        try:
            return future.result()
        except FutureCancelledError:
            raise self.attempts.stopped or StoppedError(STOPPED) from None

    def borrow(self) -> None:
        """Spend only what `lend` allows; before the first call."""
        if self.attempts.budget is not None:
            self.attempts.budget.borrow()

    def lend(self, max_cost_usd: float) -> None:
        """Let its calls cost so much in all, from any thread, also when there are none any more; see `Budget.lend`."""
        if self.attempts.budget is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self.attempts.budget.lend, max_cost_usd)

    @property
    def standing(self) -> Standing:
        """How it stands with its money."""
        budget = self.attempts.budget
        return Standing() if budget is None else budget.standing(busy=self._crowd.busy)

    @property
    def paid(self) -> int:
        """Replies that were paid for so far."""
        return sum(one.paid for one in self.models)

    @property
    def retried(self) -> int:
        """Attempts that were repeated so far."""
        return sum(one.retried for one in self.models)

    @property
    def answered(self) -> int:
        """Requests that have their completion, or never will."""
        return sum(one.paid + one.failed for one in self.models)

    @property
    def limit(self) -> int:
        """What the adaptive limits on calls in flight stand at, all in all, and no more than ever were in flight."""
        limiters = [one.limiter for one in self.models]
        return min(self.attempts.limiter.ceiling, sum(min(int(one.limit), one.peak) for one in limiters))

    def _wait(self, work: Coroutine[Any, Any, T]) -> None:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            future.result(STOP_SECONDS)
        except TimeoutError:
            future.cancel()

    async def _cancel_rest(self) -> None:
        """End what a library left running in our loop, before the loop closes."""
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
