"""A provider's batch API in memory and in virtual time, and runs of one source over it."""

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from tasks.clients import storage
from tasks.clients.batch_collecting import Collector
from tasks.clients.batch_desk import Desk
from tasks.clients.batch_records import Records
from tasks.clients.batch_sending import Sender
from tasks.clients.batching import Batching
from tasks.clients.budget import Budget
from tasks.clients.outcome import CallFault, Reply
from tasks.clients.patience import Patience
from tasks.core.batching import Job
from tasks.core.price import Price
from tests.kept import Kept

HOUR = 3600.0
PRICE = Price(1e-6, 1e-5)
GOOD = Reply("a text", "stop", "answering", 200, 40, 0.001)
COST = 200e-6 + 400e-6


@dataclass
class Clock:
    """Virtual time."""

    at: float = 1_000_000.0

    def now(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += seconds


# What becomes of a batch: by its keys, the job as it is seen, and the outcomes of lines.
Ends = Callable[[list[str]], tuple[str, dict[str, Reply | CallFault]]]


def all_good(keys: list[str]) -> tuple[str, dict[str, Reply | CallFault]]:
    return "completed", dict.fromkeys(keys, GOOD)


def half(status: str) -> Ends:
    def end(keys: list[str]) -> tuple[str, dict[str, Reply | CallFault]]:
        return status, dict.fromkeys(keys[: len(keys) // 2], GOOD)

    return end


@dataclass
class Provider:
    """Takes batches, and ends each `hours` later as `ends` says, the last for all that follow."""

    clock: Clock
    ends: list[Ends] = field(default_factory=lambda: [all_good])
    hours: float = 1.0
    problem: str = ""
    # Raised by the operation of this name, one each time.
    faults: dict[str, list[CallFault]] = field(default_factory=dict)
    loses_the_reply: bool = False
    files: dict[str, list[str]] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    results: dict[str, dict[str, Reply | CallFault]] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    looks: list[float] = field(default_factory=list)
    _ends: dict[str, Ends] = field(default_factory=dict)

    def _fail(self, operation: str) -> None:
        if self.faults.get(operation):
            raise self.faults[operation].pop(0)

    def upload(self, path: Path) -> str:
        self._fail("upload")
        name = f"file-{len(self.files)}"
        self.files[name] = [json.loads(line)["key"] for line in path.read_text().splitlines()]
        return name

    def create(self, file_id: str, name: str) -> Job:
        self._fail("create")
        job = Job(f"job-{len(self.jobs)}", name, "validating", self.clock.now(), input_file=file_id)
        self.jobs[job.id] = job
        self._ends[job.id] = self.ends.pop(0) if len(self.ends) > 1 else self.ends[0]
        if self.loses_the_reply:
            self.loses_the_reply = False
            raise CallFault("transient", "reset", billed=True)
        return job

    def retrieve(self, job_id: str) -> Job:
        self._fail("retrieve")
        self.looks.append(self.clock.now())
        job = self.jobs[job_id]
        late = self.clock.now() >= job.created_at + self.hours * HOUR
        if not job.ended and (late or job_id in self.cancelled):
            keys = self.files[job.input_file]
            status, results = self._ends[job_id](keys)
            if job_id in self.cancelled and not late:
                status, results = "cancelled", dict.fromkeys(keys[:1], GOOD)
            output = f"results-{job_id}" if results else ""
            self.results[output] = results
            problem = self.problem if status == "failed" else ""
            job = replace(job, status=status, answered=len(results), output_file=output, problem=problem)
            self.jobs[job_id] = job
        return job

    def cancel(self, job_id: str) -> None:
        self.cancelled.append(job_id)

    def find(self, names: Collection[str], since: float) -> dict[str, Job]:
        self._fail("find")
        return {job.name: job for job in self.jobs.values() if job.name in names and job.created_at >= since}

    def download(self, file_id: str, path: Path, most_bytes: int) -> None:
        self._fail("download")
        path.write_text(file_id)

    def delete(self, file_id: str) -> None:
        self.deleted.append(file_id)

    # As lines.

    def write(self, key: str, prompt: str) -> bytes:
        return json.dumps({"key": key}).encode() + b"\n"

    def read(self, path: Path) -> Iterator[tuple[str, Reply | CallFault]]:
        yield from reversed(self.results[path.read_text()].items())

    def sent(self) -> list[list[str]]:
        """Return the keys of each batch."""
        return [self.files[job.input_file] for job in self.jobs.values()]


def keys(first: int, count: int) -> list[str]:
    return [f"{number:032x}" for number in range(first, first + count)]


KEYS = {"request_key": pl.String}


@dataclass
class Night:
    """One source's runs: what lasts from one to the next."""

    provider: Provider
    uri: str
    folder: Path
    clock: Clock
    kept: Kept = field(default_factory=Kept)
    notes: list[str] = field(default_factory=list)
    runs: int = 0
    check: Callable[[], None] = lambda: None

    def run(
        self, wanted: list[str], hours: float = 24.0, lines: int = 50_000, budget: Budget | None = None
    ) -> set[str]:
        """Have what the journal does not answer answered in batches; return what is left for live calls."""
        self.runs += 1
        folder = self.folder / str(self.runs)
        folder.mkdir()
        rows = pl.DataFrame({"request_key": [key for key in wanted if key not in self.kept.completions]}, schema=KEYS)
        rows.with_columns(task=pl.lit("t"), language=pl.lit("English"), sample_index=0).write_parquet(
            folder / "r.parquet"
        )
        desk = Desk(
            api=self.provider,
            lines=self.provider,
            records=Records(self.uri),
            folder=folder,
            recipe_id="recipe",
            max_tokens=40,
            price=PRICE,
            budget=budget,
            patience=Patience(self.clock.now, self.clock.sleep, self.check),
            note=self.notes.append,
        )
        sender = Sender(desk)
        sender.most_lines = lines
        batching = Batching(desk, sender, Collector(desk, self.kept))
        batching.answer(folder / "r.parquet", self.clock.now() + hours * HOUR)
        answered = pl.concat([pl.read_parquet(one) for one in folder.glob("answered-*")] or [pl.DataFrame(schema=KEYS)])
        assert set(answered["request_key"]) <= set(self.kept.completions)
        assert len(self.kept.keys) == len(self.kept.completions), "something was paid for twice"
        return set(wanted) - set(self.kept.completions)

    def records(self) -> list[str]:
        """Return the kinds of objects that are left of batches."""
        return sorted(item.uri.partition(".")[2] for item in storage.list_objects(self.uri))
