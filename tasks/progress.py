"""How far this process's run is: plain counters that a display may poll.

Nothing waits for it and nothing depends on it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

SAYS = {
    "start": "Starting Prefect",
    "check": "Trying source, destination and model",
    "wait": "Waiting for another run of this source to end",
    "brainstorm": "Brainstorming task descriptions",
    "extract": "Reading task descriptions",
    "batch": "Waiting for the provider's batches ({open} open)",
    "generate": "Generating pairs",
    "load": "Publishing",
    "report": "Writing the report",
    "backfill": "Waiting for the days' runs",
    "export": "Writing the export",
    "maintain": "Tidying the destination",
    "forget": "Erasing a task description, once no run is at work",
}


@dataclass
class Progress:
    """The step a run is in and its requests done so far; `started` is monotonic, in seconds.

    `paid` gives the requests paid for in this run, as they happen; `open` the
    batches at the provider.
    """

    step: str = "start"
    total: int = 0
    cached: int = 0
    started: float = field(default_factory=time.monotonic)
    paid: Callable[[], int] = lambda: 0
    open: Callable[[], int] = lambda: 0

    @property
    def says(self) -> str:
        """Say which step the run is in."""
        return SAYS[self.step].format(open=self.open())

    @property
    def done(self) -> int:
        """Requests that have a completion, from the journal or paid."""
        return min(self.total, self.cached + self.paid())

    @property
    def percent(self) -> float:
        """Share of the step's requests that are done, 0 to 100; the run may go on to its next step meanwhile."""
        total, done = self.total, self.cached + self.paid()
        return 100.0 * min(1.0, done / total) if total else 0.0

    def __str__(self) -> str:
        """Say where the run is."""
        return f"{self.says}: {self.done:,} of {self.total:,}" if self.total else self.says

    def begin(self, step: str, total: int = 0) -> None:
        """Note that the run is in `step`, with `total` requests ahead of it."""
        self.step, self.total, self.cached = step, total, 0
        self.started, self.paid = time.monotonic(), lambda: 0

    def more(self, total: int, cached: int) -> None:
        """Note another round of `total` requests, `cached` of them answered already."""
        self.total += total
        self.cached += cached


progress = Progress()
