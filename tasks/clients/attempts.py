"""One request until its completion: attempt after attempt, each outcome written down before it counts."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from tasks.clients.breaker import Breaker
from tasks.clients.budget import Budget
from tasks.clients.llm import CALL_DEADLINE_SECONDS
from tasks.clients.metered_call import MeteredCall
from tasks.clients.outcome import NOT_REACHED, Call, CallFault, Reply, make_completion, no_reply
from tasks.clients.pacing import BACKOFF_CEILING_SECONDS, BACKOFF_SECONDS, PATIENCE_SECONDS, Ceiling, Limiter
from tasks.clients.rates import Place, Rates
from tasks.core.columns import NO_CHOICES
from tasks.core.counting import counted
from tasks.core.errors import RESUME, ModelError, PairmillError, StoppedError
from tasks.core.price import Price
from tasks.core.rules import CALL_FAILED, TURNED_DOWN

ATTEMPTS = 5


class Record(Protocol):
    """Where completions are kept before they count (the journal)."""

    lost: PairmillError | None

    def append(self, request_key: str, completion: dict[str, Any]) -> None:
        """Keep a completion so that it survives this process."""
        ...


@dataclass(frozen=True)
class Request:
    """One completion that is wanted for a description `task` in a language, where it is for one.

    Of `model_name`, or of a client's only model; `relieved`: others may take it over.
    """

    key: str
    prompt: str
    model_name: str = ""
    relieved: bool = False
    task: str = ""
    language: str = ""


class Attempts:
    """Gives one request after the other its completion; any number at once, in one event loop.

    A completion is a dict with the columns of COMPLETIONS. Counters are of this
    object's life: `paid` replies, `failed` calls, `retried` attempts.

    Args:
        call: Makes one attempt.
        journal: Keeps completions before they count.
        concurrency: Most calls in flight, of this model or of all that share the ceiling.
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
        call: Call,
        journal: Record,
        concurrency: int | Ceiling,
        *,
        rates: Rates | None = None,
        budget: Budget | None = None,
        price: Price | None = None,
        find_problem: Callable[[Request, Reply], str | None] = lambda _, reply: reply.error,
        deadline_seconds: float = CALL_DEADLINE_SECONDS,
        backoff_seconds: float = BACKOFF_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self.paid = 0
        self.failed = 0
        self.retried = 0
        self.stopped: PairmillError | None = None
        self.on_stop: Callable[[], object] = lambda: None
        self.limiter = Limiter(concurrency, rates, patience_seconds=patience_seconds, backoff_seconds=backoff_seconds)
        self.budget = budget
        self._call = MeteredCall(call, self.limiter.rates, budget, price, deadline_seconds)
        self._journal, self._find_problem = journal, find_problem
        self._backoff, self._patience = backoff_seconds, patience_seconds
        self._breaker = Breaker()

    def stop(self, error: PairmillError) -> None:
        """Let no further attempt begin: each raises `error`; the first stop counts, and calls `on_stop`."""
        if self.stopped is None:
            self.stopped = error
            self.on_stop()

    async def complete(self, request: Request) -> dict[str, Any]:
        """Return the completion of `request`, which is in the journal then.

        Where the model is down and others may relieve it of the request, that is a call that failed.

        Raises:
            ModelError, StoppedError, StorageError: The run is over.
        """
        tries = _Tries()
        while True:
            try:
                place = await self.limiter.acquire()
            except StoppedError as error:
                return self._relieve(request, tries, error)
            try:
                completion = await self._try(request, place, tries)
            except _DownError as error:
                return self._relieve(request, tries, error)
            except PairmillError as error:
                # Before the place is free: nobody else may start now.
                self.stop(error)
                raise
            finally:
                self.limiter.release()
            if completion is not None:
                return completion
            await self.limiter.pause(tries.pause)

    def _relieve(self, request: Request, tries: "_Tries", error: StoppedError) -> dict[str, Any]:
        """Leave `request` to another model, since this one is down.

        Raises:
            StoppedError: There is none, and the run is over.
        """
        if not request.relieved:
            self.stop(error)
            raise error
        self.limiter.close(error)
        completion = make_completion(no_reply(CALL_FAILED), 0.0, tries.failures, tries.throttles)
        self._journal.append(request.key, completion)
        return completion

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
            reply = await self._call(request.prompt, request.model_name, place)
        except CallFault as fault:
            match fault.kind:
                case "fatal":
                    raise ModelError(f"{fault.message} {RESUME}") from None
                case "refused":
                    return self._keep(request, no_reply(fault.reason), place, tries)
                case "throttled":
                    tries.throttles, tries.pause = tries.throttles + 1, 0.0
                    self._throttle(place, fault)
                case "transient" if fault.unreached and not self._call.reached:
                    # Nobody was ever there: that is found out fast, and no other request is tried.
                    tries.failures, tries.pause = tries.failures + 1, random.random() * self._backoff  # noqa: S311
                    if tries.failures == ATTEMPTS:
                        raise ModelError(f"{NOT_REACHED.format(fault.message)} {RESUME}") from None
                case "transient":
                    tries.failures += 1
                    if tries.failures == ATTEMPTS:
                        return self._give_up(request, place, tries, fault)
                    asked = min(fault.retry_after or 0.0, self._patience)
                    tries.pause = max(asked, self._pause(tries.failures))
            self.retried += 1
            return None
        self.limiter.succeeded(place)
        return self._keep(request, reply, place, tries)

    def _throttle(self, place: Place, fault: CallFault) -> None:
        if not self.limiter.throttled(place, fault.retry_after):
            asks = f", and asks to wait {counted(round(fault.retry_after), 'second')}" if fault.retry_after else ""
            raise _DownError(
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
        completion = make_completion(reply, time.monotonic() - place.at, tries.failures + 1, tries.throttles)
        self._journal.append(request.key, completion)
        refused = reply.error not in (None, NO_CHOICES)
        self.paid += not refused
        self.failed += refused
        problem = self._find_problem(request, reply) if self._breaker.at_start else None
        self._trip(request, problem or "", problem=problem)
        return completion

    def _give_up(self, request: Request, place: Place, tries: "_Tries", fault: CallFault) -> dict[str, Any]:
        """A call that failed for good today; a later try may mend it, so the journal has it only beside another's."""
        self.failed += 1
        completion = make_completion(
            no_reply(CALL_FAILED), time.monotonic() - place.at, tries.failures, tries.throttles
        )
        if request.relieved:
            self._journal.append(request.key, completion)
        self._trip(request, fault.message, failed=True, problem=CALL_FAILED)
        return completion

    def _trip(self, request: Request, last: str, *, failed: bool = False, problem: str | None) -> None:
        why = self._breaker.note(failed=failed, problem=problem)
        if not why:
            return
        hint = "" if failed else " Look at a few with --limit 20, and change the model or its parameters."
        name = f"{request.model_name}: " if request.model_name else ""
        error = StoppedError(f"Stopped, since {name}{why} (last: {last}).{hint} {RESUME}")
        if not (request.relieved and problem in TURNED_DOWN):
            raise error
        self.limiter.close(error)


class _DownError(StoppedError):
    """This model will not answer before the patience is over."""


@dataclass
class _Tries:
    """What one request went through so far; `pause` in seconds before the next attempt."""

    failures: int = 0
    throttles: int = 0
    pause: float = 0.0
