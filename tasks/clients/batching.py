"""The loop around the batch API: sends, looks, collects, and ends in time for live calls."""

from contextlib import suppress
from pathlib import Path

import polars as pl

from tasks.clients.batch_collecting import Collector
from tasks.clients.batch_desk import Desk
from tasks.clients.batch_sending import Sender
from tasks.clients.outcome import CallFault
from tasks.clients.patience import NOTHING_TWICE, PATIENCE_SECONDS
from tasks.core.batching import ATTEMPTS, FEWEST_REQUESTS, Batch, Job, next_pause
from tasks.core.counting import counted
from tasks.core.errors import StoppedError


class Batching:
    """Has requests answered by the provider's batch API; each is in one open batch at most.

    `open` are the batches at the provider, by name.
    """

    def __init__(self, desk: Desk, sender: Sender, collector: Collector) -> None:
        self.open: dict[str, Batch] = {}
        self._desk, self._sender, self._collector = desk, sender, collector
        self._at_provider: dict[str, int] = {}
        self._full = False
        self._cancelled_at: float | None = None

    @property
    def done(self) -> int:
        """Requests that are answered, collected or not."""
        return self._collector.answered + sum(self._at_provider.values())

    def answer(self, requests: Path, deadline: float) -> None:
        """Have the requests of a local Parquet answered: request_key, task, language and sample_index, in plan order.

        Returns when no batch is open. What none has answered by the `deadline` (seconds
        since 1970), or in ATTEMPTS of them, is left for live calls. Batches of an earlier
        run are collected as well.

        Raises:
            ModelError: The provider refuses every batch.
            StoppedError: The budget is spent, or the batch API fails for too long.
            Exception: What the desk's patience checks.
        """
        self._desk.patience.check()
        self.open = {batch.name: batch for batch in self._sender.find_open()}
        if self.open:
            self._desk.note(f"{counted(len(self.open), 'batch', 'batches')} of an earlier run found at the provider")
        rows = pl.scan_parquet(requests)
        for batch in self.open.values():
            keys = pl.LazyFrame({"request_key": self._desk.records.read_keys(batch)})
            rows = rows.join(keys, on="request_key", how="anti", maintain_order="left")
        self._sender.put(rows, 1)
        pause = 0.0
        while True:
            late = self._desk.patience.now() >= deadline
            if not late:
                self._send()
            if not self.open:
                return
            if late:
                self._cancel()
            self._desk.patience.wait(pause)
            pause = next_pause(pause)
            for batch in list(self.open.values()):
                job = self._look(batch)
                if job is not None and job.ended:
                    self._end(batch, job, requests)
                    pause = 0.0

    def _send(self) -> None:
        """Send what waits, as far as budget and provider take it."""
        while not (self._full and self.open):
            batch = self._sender.send_next(others=bool(self.open))
            if batch is None:
                return
            self.open[batch.name] = batch

    def _look(self, batch: Batch) -> Job | None:
        """Return how far a batch is; None where the provider does not say now."""
        try:
            job = self._desk.api.retrieve(batch.job)
        except CallFault as fault:
            self._desk.patience.bear(fault, f"the state of {self._desk.records.describe(batch)} cannot be read")
            return None
        self._desk.patience.succeeded()
        self._at_provider[batch.name] = min(job.answered, batch.requests)
        return job

    def _end(self, batch: Batch, job: Job, requests: Path) -> None:
        """Collect a batch, and let what it has not answered wait for another."""
        left = self._collector.collect(batch, job)
        del self.open[batch.name]
        self._at_provider.pop(batch.name, None)
        attempt = batch.attempt + (not job.too_much)
        self._full = job.too_much
        if job.too_much and not self.open:
            # It is too much by itself.
            self._sender.most_lines = batch.requests // 2
            attempt = attempt if self._sender.most_lines >= FEWEST_REQUESTS else ATTEMPTS + 1
        if left and attempt <= ATTEMPTS:
            keys = pl.LazyFrame({"request_key": sorted(left)})
            rows = pl.scan_parquet(requests).join(keys, on="request_key", how="semi", maintain_order="left")
            self._sender.put(rows, attempt)

    def _cancel(self) -> None:
        """Have what is open ended: what it has answered is collected, the rest is left for live calls."""
        if self._cancelled_at is None:
            self._cancelled_at = self._desk.patience.now()
            self._desk.note(
                f"{counted(len(self.open), 'batch is', 'batches are')} ended at the provider, and collected"
            )
            for batch in self.open.values():
                with suppress(CallFault):  # it has ended by itself, or is asked again below
                    self._desk.api.cancel(batch.job)
        elif self._desk.patience.now() - self._cancelled_at > PATIENCE_SECONDS:
            jobs = ", ".join(batch.job for batch in self.open.values())
            raise StoppedError(
                f"The provider does not end {jobs} within {PATIENCE_SECONDS / 60:,.0f} minutes. Their requests may "
                f"still be answered there, and are not paid for a second time elsewhere. {NOTHING_TWICE}"
            )
