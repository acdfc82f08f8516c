"""Any interleaving of paying, flushing, publishing, crashing and resuming ends with every request judged once."""

import shutil
import uuid
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tasks.clients import publishing, table
from tasks.clients.journal import Journal
from tasks.clients.lookup import look_up
from tasks.core.layout import Layout
from tests.bucket import read_table
from tests.test_journal import completion

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

DAY = "2026-11-01"
KEYS = [f"key-{number}" for number in range(6)]
# Those whose completion is no pair.
REJECTED = {KEYS[1], KEYS[4]}


class Runs(RuleBasedStateMachine):
    """One destination and its runs, one after another; each is as far as its steps have come."""

    bucket: str
    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.layout = Layout(f"{self.bucket}/{uuid.uuid4().hex}")
        self.state = self.folder / uuid.uuid4().hex
        self.paid: Counter[str] = Counter()
        self.lost: set[str] = set()
        self.record: Journal | None = None
        self.before: publishing.Before | None = None
        self.half = False
        # Whether a rule since the last look may have written to the tables.
        self.changed = True

    def rows(self, name: str) -> list[str]:
        found = read_table(f"{self.layout.destination}/{name}")
        return found["request_key"].to_list() if found.width else []

    def known(self) -> set[str]:
        found = look_up(self.uri, pl.LazyFrame({"request_key": KEYS})).collect()
        return set(found["request_key"])

    @property
    def uri(self) -> str:
        return self.layout.journal("r")

    @precondition(lambda self: self.record is None)
    @rule()
    def start(self) -> None:
        """Plan what is not judged yet, with what the journal knows of it."""
        publishing.settle(self.layout, DAY, "run")
        self.changed = True
        judged = {*self.rows("pairs"), *self.rows("rejected")}
        self.record = Journal(self.uri, self.state, segment_seconds=3600)
        self.record.__enter__()
        self.plan = [key for key in KEYS if key not in judged]
        self.missing = set(self.plan) - self.known()
        self.before, self.half = None, False
        self.mark = uuid.uuid4().hex

    @precondition(lambda self: self.record is not None and self.missing)
    @rule(choice=strategies.integers(min_value=0, max_value=5))
    def pay(self, choice: int) -> None:
        key = sorted(self.missing)[choice % len(self.missing)]
        assert self.record is not None
        assert not self.paid[key] or key in self.lost, "only what was lost with its machine is paid again"
        self.lost.discard(key)
        self.record.append(key, completion())
        self.paid[key] += 1
        self.missing.discard(key)

    @precondition(lambda self: self.record is not None)
    @rule()
    def flush(self) -> None:
        assert self.record is not None
        self.record.flush()

    @precondition(lambda self: self.record is not None and self.plan and not self.missing and not self.half)
    @rule()
    def commit_rejected(self) -> None:
        self.before = publishing.begin(self.layout, DAY, "run", self.mark)
        kept = table.scan(self.before.rejected, DAY)
        rejected = self.frame(REJECTED)
        rows = rejected if kept is None else pl.concat([kept.select(rejected.collect_schema().names()), rejected])
        table.publish(self.layout.rejected, rows, self.before.what, overwrite=True)
        self.half = self.changed = True

    @precondition(lambda self: self.record is not None and self.half)
    @rule()
    def commit_pairs(self) -> None:
        assert self.before is not None
        table.publish(self.layout.pairs, self.frame(set(KEYS) - REJECTED), self.before.what, overwrite=False)
        self.half, self.plan, self.changed = False, [], True

    @precondition(lambda self: self.record is not None)
    @rule(machine_lost=strategies.booleans())
    def crash(self, machine_lost: bool) -> None:
        assert self.record is not None
        self.record._closing.set()
        self.record._full.set()
        self.record._uploader.join()
        with self.record._lock:
            self.record._close_file()
        if machine_lost:
            shutil.rmtree(self.state, ignore_errors=True)
            self.lost = set(self.paid) - self.known()
        self.record = None

    def frame(self, wanted: set[str]) -> pl.LazyFrame:
        keys = [key for key in self.plan if key in wanted]
        return pl.LazyFrame(
            {"partition": [DAY] * len(keys), "request_key": keys},
            schema={"partition": pl.String, "request_key": pl.String},
        )

    @invariant()
    def no_request_stands_twice(self) -> None:
        if not self.changed:
            return
        self.changed = False
        pairs, rejected = self.rows("pairs"), self.rows("rejected")
        assert len({*pairs, *rejected}) == len(pairs) + len(rejected)
        assert len(pairs) in (0, len(KEYS) - len(REJECTED))
        assert len(rejected) in (0, len(REJECTED))

    def teardown(self) -> None:
        if self.record is None:
            self.start()
        while self.missing:
            self.pay(0)
        if self.plan and not self.half:
            self.commit_rejected()
        if self.half:
            self.commit_pairs()
        assert self.record is not None
        self.record.__exit__()
        assert sorted(self.rows("pairs") + self.rows("rejected")) == KEYS


def test_accepted_and_rejected_are_all_requests_each_once(bucket: str, tmp_path: Path) -> None:
    machine = type("Machine", (Runs,), {"bucket": bucket, "folder": tmp_path})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=12,
            stateful_step_count=14,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
