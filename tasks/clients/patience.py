"""Waiting for hours on one thread that Ctrl-C ends at once, and how long faults are borne meanwhile."""

import time
from collections.abc import Callable

from tasks.clients.outcome import CallFault
from tasks.core.batching import next_pause
from tasks.core.errors import AGAIN, ModelError, StoppedError

# Of nothing but faults, before the run stops.
PATIENCE_SECONDS = 3600.0
NOTHING_TWICE = f"Nothing is sent twice: {AGAIN} to go on."


class Patience:
    """The clock of a long wait.

    Args:
        now: Seconds since 1970.
        sleep: Waits so many seconds.
        check: Raises where the run may not go on. It is asked all the while, and before anything is sent.
    """

    def __init__(
        self,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.now = now
        self.check = check
        self._sleep = sleep
        self._faults_since: float | None = None

    def wait(self, seconds: float) -> None:
        """Wait in short pieces: polars' handler of SIGINT restarts a wait that Ctrl-C should end.

        They are counted, since the time of day may be set meanwhile.
        """
        self.check()
        while seconds > 0:
            piece = min(seconds, 0.2)
            self._sleep(piece)
            seconds -= piece
            self.check()

    def call(self, attempt: Callable[[], None], what: str) -> None:
        """Make attempts, and wait between them, until one succeeds; `what` cannot be done meanwhile.

        Raises:
            ModelError, StoppedError: As `bear`.
        """
        while True:
            try:
                attempt()
            except CallFault as fault:
                self.bear(fault, what)
                self.wait(pause_after(fault))
            else:
                self.succeeded()
                return

    def succeeded(self) -> None:
        """Note that the provider is well."""
        self._faults_since = None

    def bear(self, fault: CallFault, what: str) -> None:
        """Go on after a fault, unless there was nothing else for too long.

        Raises:
            ModelError: It will not pass.
            StoppedError: It has lasted for PATIENCE_SECONDS.
        """
        said = fault.message.rstrip(".")
        if fault.kind in ("fatal", "refused"):
            raise ModelError(f"At the provider, {what}: {said}. {NOTHING_TWICE}")
        self._faults_since = self._faults_since or self.now()
        if self.now() - self._faults_since > PATIENCE_SECONDS:
            raise StoppedError(
                f"At the provider, {what} for {PATIENCE_SECONDS / 60:,.0f} minutes: {said}. {NOTHING_TWICE}"
            )


def pause_after(fault: CallFault, attempt: int = 0) -> float:
    """Return how long to wait after a fault, in seconds; `attempt` counts from 0."""
    return max(fault.retry_after or 0.0, next_pause(0.0) * float(2**attempt))
