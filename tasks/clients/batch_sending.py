"""Sends requests as batches, each of them once: known to the bucket before the provider knows of it."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from tasks.clients.batch_desk import ROWS, Desk
from tasks.clients.outcome import CallFault
from tasks.clients.patience import NOTHING_TWICE, pause_after
from tasks.core import batching
from tasks.core.batching import ATTEMPTS, FEWEST_REQUESTS, SHARE_OF_PRICE, Batch, Job, name_batch
from tasks.core.counting import counted
from tasks.core.errors import ModelError, StoppedError
from tasks.core.prompts import build_prompt

# A provider lists a batch no later than this after it took it.
LISTED_SECONDS = 10.0
# How far its clock may be from ours.
CLOCKS_SECONDS = 24 * 3600.0


@dataclass
class _Rows:
    """Requests that wait to be sent: a local Parquet of them in plan order, the next one's place, and their attempt."""

    path: Path
    rows: int
    attempt: int
    at: int = 0


class Sender:
    """Sends what waits; `most_lines` is the number of requests of one batch."""

    def __init__(self, desk: Desk) -> None:
        self.most_lines = batching.MOST_LINES
        self._desk = desk
        self._waiting: deque[_Rows] = deque()
        self._files = 0

    def put(self, rows: pl.LazyFrame, attempt: int) -> None:
        """Let requests wait to be sent: request_key, task, language and sample_index, in plan order."""
        self._files += 1
        path = self._desk.folder / f"waiting-{self._files:06}.parquet"
        rows.sink_parquet(path, row_group_size=ROWS)
        count = pl.scan_parquet(path).select(pl.len()).collect().item()
        if count:
            self._waiting.append(_Rows(path, count, attempt))

    def find_open(self) -> Iterator[Batch]:
        """Yield the batches that an earlier run has left at the provider; those it never took are forgotten."""
        batches = self._desk.records.find_open()
        unsent = [batch for batch in batches if not batch.job]
        found = self._find(unsent) if unsent else {}
        for batch in batches:
            job = found.get(batch.name)
            if batch.job:
                yield self._hold(batch)
            elif job is not None:
                yield self._mark_sent(batch, job)
            else:
                self._desk.records.drop(batch)

    def send_next(self, *, others: bool) -> Batch | None:
        """Send the next batch of what waits; None where nothing does, or the budget has to wait for `others` first.

        Raises:
            ModelError: The provider refuses it.
            StoppedError: The budget is spent, or the provider does not take it.
        """
        if not self._waiting:
            return None
        rows = self._waiting[0]
        path = self._desk.folder / "batch.jsonl"
        keys, most_usd = self._write_file(rows, path)
        fewest = min(FEWEST_REQUESTS, self.most_lines, rows.rows - rows.at)
        if self._desk.budget is not None and len(keys) < fewest:
            if others:
                return None
            raise self._desk.budget.used_up(f"a batch of more than {counted(len(keys), 'request')} may exceed")
        batch = self._name(keys, rows.attempt, most_usd)
        named = path.rename(path.with_name(f"pairmill-{batch.name}.jsonl"))
        sent = self._send(batch, keys, named)
        named.unlink()
        rows.at += len(keys)
        if rows.at == rows.rows:
            self._waiting.popleft().path.unlink()
        return sent

    def _write_file(self, rows: _Rows, path: Path) -> tuple[list[str], float]:
        """Write the next batch's file, as far as the budget goes; return its keys and its worst case."""
        budget, keys, size, most_usd = self._desk.budget, list[str](), 0, 0.0
        with path.open("wb") as file:
            for first in range(rows.at, rows.rows, ROWS):
                part = pl.scan_parquet(rows.path).slice(first, ROWS).collect()
                for key, *asked in part.select("request_key", "task", "language", "sample_index").iter_rows():
                    prompt = build_prompt(*asked)
                    line = self._desk.lines.write(key, prompt)
                    size += len(line)
                    if len(keys) == self.most_lines or (keys and size > batching.MOST_BYTES):
                        return keys, most_usd
                    if budget is not None:
                        worst = budget.worst(prompt) * SHARE_OF_PRICE
                        if not budget.allows(most_usd + worst):
                            return keys, most_usd
                        most_usd += worst
                    file.write(line)
                    keys.append(key)
        return keys, most_usd

    def _name(self, keys: list[str], attempt: int, most_usd: float) -> Batch:
        desk, number = self._desk, attempt
        while desk.records.is_ended(name := name_batch(desk.recipe_id, number, keys)):
            number += 1
        return Batch(
            name=name,
            attempt=attempt,
            requests=len(keys),
            most_usd=most_usd,
            api_base=desk.api_base,
            written_at=desk.patience.now(),
        )

    def _send(self, batch: Batch, keys: list[str], path: Path) -> Batch:
        desk, file_id, attempt = self._desk, "", 0
        desk.patience.check()
        if not desk.records.write(batch, keys):
            raise StoppedError(
                f"Another run sends the same batch, {desk.records.uri}/{batch.name}.json. {NOTHING_TWICE}"
            )
        while True:
            try:
                file_id = file_id or desk.api.upload(path)
                desk.patience.check()
                sent = self._mark_sent(batch, desk.api.create(file_id, batch.name))
            except CallFault as fault:
                # It may have been taken although its reply was lost.
                unclear = file_id and fault.kind == "transient"
                job = self._find([replace(batch, written_at=desk.patience.now())]).get(batch.name) if unclear else None
                attempt += 1
                if job is not None:
                    return self._mark_sent(batch, job)
                if fault.kind in ("fatal", "refused") or attempt == ATTEMPTS:
                    desk.records.drop(batch)
                    error = ModelError if fault.kind in ("fatal", "refused") else StoppedError
                    raise error(f"No batch was sent: {fault.message.rstrip('.')}. {NOTHING_TWICE}") from None
                desk.patience.wait(pause_after(fault, attempt))
            else:
                desk.note(f"a batch of {counted(batch.requests, 'request')} was sent, {sent.job}")
                return sent

    def _find(self, batches: list[Batch]) -> dict[str, Job]:
        """Ask the provider for batches of which it is not known whether it took them."""
        desk, found = self._desk, dict[str, Job]()
        written = [batch.written_at for batch in batches]
        desk.patience.wait(min(LISTED_SECONDS, max(written) + LISTED_SECONDS - desk.patience.now()))

        def find() -> None:
            found.update(desk.api.find({batch.name for batch in batches}, min(written) - CLOCKS_SECONDS))

        desk.patience.call(find, "batches cannot be listed")
        return found

    def _mark_sent(self, batch: Batch, job: Job) -> Batch:
        sent = replace(batch, job=job.id, file=job.input_file)
        self._desk.records.write_sent(sent)
        return self._hold(sent)

    def _hold(self, batch: Batch) -> Batch:
        if self._desk.budget is not None:
            self._desk.budget.hold(batch.most_usd)
        return batch
