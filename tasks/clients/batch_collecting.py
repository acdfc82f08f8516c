"""Brings the results of a batch into the journal, all of them, before it is forgotten."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import polars as pl

from tasks.clients.batch_desk import ROWS, Desk
from tasks.clients.outcome import CallFault, Reply, make_completion, no_reply
from tasks.clients.patience import NOTHING_TWICE
from tasks.core.batching import SHARE_OF_PRICE, Batch, Job
from tasks.core.columns import JOURNAL
from tasks.core.counting import counted
from tasks.core.errors import ModelError

# What was answered, and by which batch.
ANSWERED = {**JOURNAL, "batch": pl.String}


class Record(Protocol):
    """Where completions are kept before they count (the journal)."""

    def append(self, request_key: str, completion: dict[str, Any]) -> None:
        """Keep a completion so that it survives this process."""
        ...

    def flush(self) -> None:
        """Keep all of them so that they survive this machine."""
        ...


class Collector:
    """Collects batches; writes what they answered to answered-*.parquet in the desk's folder, as ANSWERED.

    `answered` counts requests.
    """

    def __init__(self, desk: Desk, journal: Record) -> None:
        self.answered = 0
        self._desk, self._journal = desk, journal
        self._files = 0

    def collect(self, batch: Batch, job: Job) -> set[str]:
        """Keep what an ended batch has answered, and return the keys of the requests that it has not.

        Raises:
            ModelError: The provider says that it will never answer any.
        """
        desk = self._desk
        wanted = frozenset(desk.records.read_keys(batch))
        left = set(wanted)
        unknown, cost, fatal = 0, 0.0, ""
        kept: list[dict[str, Any]] = []
        for key, outcome in self._read_results(batch, job):
            if key not in left:
                unknown += 1
                continue
            if isinstance(outcome, CallFault) and outcome.kind != "refused":
                fatal = fatal or (outcome.message if outcome.kind == "fatal" else "")
                continue
            completion = self._complete(batch, outcome)
            self._journal.append(key, completion)
            left.discard(key)
            kept.append({"request_key": key, "batch": batch.name, **completion})
            if isinstance(outcome, Reply):
                cost += batch.most_usd / batch.requests if completion["cost_usd"] is None else completion["cost_usd"]
            if len(kept) == ROWS:
                self._write(kept)
        self._write(kept)
        self._journal.flush()
        desk.patience.check()
        answered = len(wanted) - len(left)
        desk.records.write_done(
            batch,
            {"status": job.status, "answered": answered, "cost_usd": cost, "unknown": unknown, "problem": job.problem},
        )
        self.answered += answered
        if desk.budget is not None:
            desk.budget.settle(batch.most_usd, cost)
        for file in filter(None, (job.input_file, job.output_file, job.error_file)):
            with suppress(CallFault):  # the provider removes it by itself, later
                desk.api.delete(file)
        lines, asked = counted(unknown, "line answers", "lines answer"), counted(batch.requests, "request")
        strange = f"; {lines} what it was not asked, or twice" if unknown else ""
        desk.note(f"batch {job.id} is {job.status}: {answered:,} of {asked} answered{strange}")
        if fatal:
            raise ModelError(f"{fatal} {NOTHING_TWICE}")
        if not answered:
            _check_hope(batch, job)
        return left

    def _read_results(self, batch: Batch, job: Job) -> Iterator[tuple[str, Reply | CallFault]]:
        path = self._desk.folder / "results.jsonl"
        most_bytes = batch.requests * (16 * self._desk.max_tokens + 16_384)
        for file in filter(None, (job.output_file, job.error_file)):
            download = partial(self._desk.api.download, file, path, most_bytes)
            self._desk.patience.call(download, f"the results of {self._desk.records.describe(batch)} cannot be read")
            yield from self._desk.lines.read(path)
            path.unlink()

    def _complete(self, batch: Batch, outcome: Reply | CallFault) -> dict[str, Any]:
        """Return the completion, at the price of a batch."""
        if isinstance(outcome, CallFault):
            return make_completion(no_reply(outcome.reason), None, batch.attempt, 0)
        cost = outcome.at_price(self._desk.price).cost_usd
        cost = None if cost is None else cost * SHARE_OF_PRICE
        return make_completion(replace(outcome, cost_usd=cost), None, batch.attempt, 0)

    def _write(self, kept: list[dict[str, Any]]) -> None:
        if kept:
            self._files += 1
            pl.DataFrame(kept, schema=ANSWERED).write_parquet(self._desk.folder / f"answered-{self._files:06}.parquet")
            kept.clear()


def _check_hope(batch: Batch, job: Job) -> None:
    """Refuse to send again what the provider has failed as a whole for the second time."""
    if job.status == "failed" and batch.attempt > 1 and not job.too_much:
        why = job.problem or "it does not say why"
        raise ModelError(
            f"The provider has failed a whole batch twice ({why}). Nothing of it was paid for. {NOTHING_TWICE}"
        )
