"""One process's part in a run: its client, opened when a step needs it, and its end."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace

from tasks.clients.calls import ModelClient
from tasks.clients.lease import TERM_SECONDS
from tasks.core.dealing import Standing
from tasks.core.errors import AGAIN, RESUME, PairmillError, StoppedError

Connect = Callable[[], AbstractContextManager[ModelClient]]

# Without a visit a process stops paying: half a lease's term, so before another run of the source can begin.
PATIENCE_SECONDS = 15
# One that joined the cluster later takes part in the place of one that died, or not at all.
PLACE_SECONDS = 60


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
    """This process's part in a run: its client, once a step needs it; `stack` closes it.

    Where it is `led`, as all processes of a cluster are, it opens its client when it has a place, spends what
    it is lent, and leaves when it is visited no more.
    """

    def __init__(self, connect: Connect, stack: ExitStack, *, led: bool) -> None:
        self._connect, self._stack, self._led = connect, stack, led
        self._lock = threading.Lock()
        self._client: ModelClient | None = None
        self._over, self._seated = threading.Event(), threading.Event()
        self._unvisited, self._visited = 0, time.monotonic()

    def open(self) -> ModelClient:
        """Return the client.

        Raises:
            UsageError, ModelError, StorageError: It cannot be opened.
            StoppedError: The run is over, or has no place for this process.
        """
        if self._led:
            self._await_place()
        with self._lock:
            if self._over.is_set():
                raise StoppedError(f"The run was stopped before its model was needed. {AGAIN.capitalize()}.")
            if self._client is None:
                client = self._stack.enter_context(self._connect())
                if self._led:
                    client.borrow()
                    threading.Thread(target=self._watch, name="watch", daemon=True).start()
                self._client = client
            return self._client

    def flush(self) -> None:
        """Put what was paid for into the bucket.

        Raises:
            StorageError: The bucket does not take it.
        """
        if self._client is not None:
            self._client.flush()

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


# Of the runs that generate in this process, by their tokens; None where one is over.
_sessions: dict[str, Session | None] = {}
_joining = threading.Lock()


def find(token: str) -> Session | None:
    """Return this process's part in a run, None where it has none."""
    return _sessions.get(token)


def join(token: str, connect: Connect, *, led: bool) -> Session:
    """Return this process's part in a run; one that begins after the run has ended opens nothing."""
    with _joining:
        session = _sessions.get(token)
        if session is None:
            session = Session(connect, ExitStack(), led=led)
            if not led or token in _sessions:
                session.end()
            else:
                _sessions[token] = session
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
def hold(token: str, connect: Connect) -> Iterator[Session]:
    """Be the process that leads the run of this token and generates for it, inside the block."""
    with ExitStack() as stack:
        session = _sessions[token] = Session(connect, stack, led=False)
        try:
            yield session
        finally:
            session.end()
            del _sessions[token]
