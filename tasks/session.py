"""A run's model as its steps hold it: one client in every process that generates, opened when it is needed."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from uuid import uuid4

from tasks.clients.calls import ModelClient
from tasks.clients.lease import TERM_SECONDS
from tasks.core.dealing import Standing
from tasks.core.errors import RESUME, PairmillError, StoppedError
from tasks.core.requests import Order
from tasks.models import Expects, connect
from tasks.window import STEPS_IN_FLIGHT

# Without a visit a process stops paying: half a lease's term, so before another run of the source can begin.
PATIENCE_SECONDS = 15
# One that joined the cluster later takes part in the place of one that died, or not at all.
PLACE_SECONDS = 60


@dataclass(frozen=True)
class Model:
    """A run's model; it crosses process borders.

    Called, it returns this process's one client, opened by the first step that has
    something to pay for. `processes` of a cluster share the order's concurrency and
    rates; where it is 0 the run generates in the process that leads it.
    """

    order: Order
    expects: Expects
    processes: int = 0
    token: str = field(default_factory=lambda: uuid4().hex)

    def __call__(self) -> ModelClient:
        """Return this process's client.

        Raises:
            UsageError, ModelError: The model's name or key cannot work.
            StorageError: What an earlier process left behind cannot be uploaded.
            StoppedError: The run is over.
        """
        return _join(self).open()

    def keep(self) -> None:
        """Put what was paid for into the bucket where another machine may have to go on with the shard."""
        if self.processes:
            self().flush()

    @property
    def calls_in_flight(self) -> int:
        """Where the adaptive limit on calls in flight stands, over all processes."""
        return self().limit * max(1, self.processes)

    @property
    def spent_usd(self) -> float:
        """What this process has spent of the order's limit, worst cases where a cost is unknown; 0 without a limit."""
        session = _sessions.get(self.token)
        return session.status().standing.spent if session else 0.0

    @property
    def steps_in_flight(self) -> int:
        """How many generate steps keep all processes busy."""
        return STEPS_IN_FLIGHT * max(1, self.processes)

    @property
    def share(self) -> Order:
        """One process's part of the order's concurrency and rates."""

        def part(whole: int) -> int:
            return max(1, whole // self.processes) if whole and self.processes else whole

        return replace(
            self.order,
            concurrency=part(self.order.concurrency),
            requests_per_minute=part(self.order.requests_per_minute),
            tokens_per_minute=part(self.order.tokens_per_minute),
        )


@dataclass(frozen=True)
class Status:
    """What one process has done of a run so far, how it stands with its money, and what has stopped it.

    `waits` says that it has a step, and as yet no place among those that share the concurrency.
    """

    paid: int = 0
    failed: int = 0
    retried: int = 0
    standing: Standing = field(default_factory=Standing)
    error: PairmillError | None = None
    waits: bool = False


class Session:
    """This process's part in a run: its client, once a step needs it; `stack` closes it."""

    def __init__(self, model: Model, stack: ExitStack) -> None:
        self._model, self._stack = model, stack
        self._lock = threading.Lock()
        self._client: ModelClient | None = None
        self._over, self._seated = threading.Event(), threading.Event()
        self._unvisited, self._visited = 0, time.monotonic()

    def open(self) -> ModelClient:
        """Return the client; see `Model`."""
        if self._model.processes:
            self._await_place()
        with self._lock:
            if self._over.is_set():
                raise StoppedError("The run was stopped before its model was needed. Run the same command again.")
            if self._client is None:
                client = self._stack.enter_context(connect(self._model.share, self._model.expects))
                if self._model.processes:
                    client.borrow()
                    threading.Thread(target=self._watch, name="watch", daemon=True).start()
                self._client = client
            return self._client

    def end(self) -> None:
        """Open nothing any more."""
        with self._lock:
            self._over.set()

    def visit(self, max_cost_usd: float | None, error: PairmillError | None, *, seated: bool) -> Status:
        """Take what the leading process sends: the money this one may spend in all, and what stops the run.

        `seated` says that it may take part.
        """
        self._unvisited, self._visited = 0, time.monotonic()
        if seated:
            self._seated.set()
        if self._client is not None and max_cost_usd is not None:
            self._client.lend(max_cost_usd)
        if self._client is not None and error is not None:
            self._client.stop(error)
        return self.status(waits=not seated)

    def status(self, *, waits: bool = False) -> Status:
        """Return what was done so far; `waits` where no client is open yet."""
        client = self._client
        if client is None:
            return Status(waits=waits)
        failed = client.answered - client.paid
        return Status(client.paid, failed, client.retried, client.standing, client.attempts.stopped)

    def leave(self, error: PairmillError) -> Status:
        """Stop paying, flush and close; `error` of the status says what could not be uploaded."""
        if self._client is not None:
            self._client.stop(error)
        self.end()
        lost = None
        try:
            self._stack.close()
        except PairmillError as loss:
            lost = loss
        return replace(self.status(), error=lost)

    def _await_place(self) -> None:
        began = time.monotonic()
        while not self._seated.wait(1.0) and not self._over.is_set():
            if time.monotonic() - began > PLACE_SECONDS:
                raise StoppedError(
                    "A process that joined the cluster after the start was given a step, and all places are taken "
                    f"by others, or the process that leads this run is not heard of any more. {RESUME}"
                )

    def _watch(self) -> None:
        # Seconds are counted: where this machine was held up, so was the visitor. One that stood still alone
        # for as long as a lease lasts may have been replaced.
        while not self._over.wait(1.0):
            self._unvisited += 1
            if self._unvisited > PATIENCE_SECONDS or time.monotonic() - self._visited > TERM_SECONDS:
                self.leave(StoppedError(f"The process that leads this run is not heard of any more. {RESUME}"))


# Of the runs that generate in this process, by the token of their models; None where one is over.
_sessions: dict[str, Session | None] = {}
_joining = threading.Lock()


def _join(model: Model) -> Session:
    with _joining:
        session = _sessions.get(model.token)
        if session is None:
            session = Session(model, ExitStack())
            if not model.processes or model.token in _sessions:
                session.end()
            else:
                _sessions[model.token] = session
        return session


def visit(token: str, max_cost_usd: float | None, error: PairmillError | None, *, seated: bool = True) -> Status:
    """Visit this process's part in a run; see `Session.visit`."""
    session = _sessions.get(token)
    return session.visit(max_cost_usd, error, seated=seated) if session else Status()


def leave(token: str, error: PairmillError) -> Status:
    """End this process's part in a run, also where no step has begun here yet; see `Session.leave`."""
    with _joining:
        session, _sessions[token] = _sessions.get(token), None
    return session.leave(error) if session else Status()


@contextmanager
def hold(model: Model, *, now: bool) -> Iterator[None]:
    """Hold this process's client and journals inside the block, opened `now` or by the first step that needs them."""
    with ExitStack() as stack:
        session = _sessions[model.token] = Session(model, stack)
        try:
            if now:
                model()
            yield
        finally:
            session.end()
            del _sessions[model.token]
