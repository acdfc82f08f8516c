"""Tidying a destination: what goes, what stays, and what is said of it."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from tasks.clients import storage
from tasks.clients.lease import hold_lease
from tasks.core.layout import Layout
from tasks.core.upkeep import UpkeepReport, upkeep_headline
from tasks.maintain import _compact_journal, _expire_staging
from tests.bucket import everything, list_parts
from tests.night import Night
from tests.segments import write_segment


def test_what_is_kept_of_batches_goes_with_the_completions(bucket: str) -> None:
    layout = Layout(f"{bucket}/out")
    records = layout.batches("r", "s3://b/tasks")
    for kind in ("keys", "json", "sent.json", "done.json"):
        storage.write_bytes(f"{records}/name.{kind}", b"{}")
    later = datetime.now(UTC) + timedelta(days=3)
    for days, left in ((0, 4), (4, 4), (2, 0)):
        _compact_journal(layout, "me", later, days)
        assert len(storage.list_objects(records)) == left


def test_what_is_kept_of_a_batch_stays_until_it_is_collected(bucket: str) -> None:
    layout = Layout(f"{bucket}/out")
    records = layout.batches("r", "s3://b/tasks")
    for kind in ("ended.done.json", "open.keys", "open.json", "open.sent.json"):
        storage.write_bytes(f"{records}/{kind}", b"{}")
    _compact_journal(layout, "me", datetime.now(UTC) + timedelta(days=3), 2)
    assert list_parts(records) == ["open.json", "open.keys", "open.sent.json"]


@pytest.mark.parametrize("dies", [False, pytest.param(True, marks=pytest.mark.runs)])
def test_a_run_that_only_waits_keeps_what_it_has_staged_and_an_ended_one_does_not(bucket: str, *, dies: bool) -> None:
    layout = Layout(f"{bucket}/out")
    plans = {run: f"{layout.staging('2026-11-01', run)}/plan/000000.parquet" for run in ("waits", "died", "ended")}
    for plan in plans.values():
        storage.write_bytes(plan, b"plan")
    if dies:
        # It is waited for: half a minute.
        storage.write_bytes(layout.source_lease("s3://b/other"), b'{"owner": "died", "token": "t", "beat": 1}')
    later = datetime.now(UTC) + timedelta(days=2)
    with hold_lease(layout.source_lease("s3://b/tasks"), "waits", term=4.0) as lease:
        _expire_staging(layout, later, 1)
        left = {item.uri for item in storage.list_objects(f"{layout.destination}/staging")}
        assert left == {plans["waits"], lease.uri}
    _expire_staging(layout, later, 1)
    assert storage.list_objects(f"{layout.destination}/staging") == []


@pytest.mark.faults
def test_maintenance_changes_nothing_that_a_night_sees_and_a_forgotten_description_is_nowhere(
    nights: Callable[[str], Night],
) -> None:
    night = nights("out")

    def maintain(*options: str) -> dict[str, Any]:
        run = night.start_upkeep(*options)
        assert run.wait() == 0, run.said
        return run.report

    night.serve(0.0)
    for first in (0, 60):
        night.put(first, 60)
        night.finish()
    before = {name: night.rows(name).sort("request_key") for name in ("pairs", "rejected")}
    assert any("merged" in str(line) for line in maintain()["done"])
    for name, rows in before.items():
        assert rows.equals(night.rows(name).sort("request_key"))
    paid = len(night.model_server.prompts)
    assert night.finish()["requests"] == 0
    redo = night.finish("--on-published", "redo")
    assert (redo["paid"], len(night.model_server.prompts)) == (0, paid)

    exported = night.zygote.start(["export", "--destination", night.destination], night.environment)
    assert exported.wait() == 0, exported.said
    shown = exported.report["samples"][0]["input"]
    (row,) = before["pairs"].filter(pl.col("input") == shown).to_dicts()
    words = [str(row[name]) for name in ("task", "input", "positive_document", "description_hash", "request_key")]
    brainstormed = f"{night.destination}/journal/recipe=list"
    write_segment(brainstormed, "a", ("list", json.dumps(["another", words[0]]), 1))
    storage.write_bytes(f"{brainstormed}/recipe.json", b'["Make a list about {topic}", 20, {}]')
    storage.write_bytes(f"{night.destination}/tasks/a.jsonl", json.dumps({"task": words[0]}).encode())
    card = f"{night.destination}/exports/e/pairs.jsonl"
    lines = [{"query": "other", "pos": [words[2]]}, {"query": words[1], "pos": [words[2]]}]
    storage.write_bytes(card, "".join(json.dumps(line) + "\n" for line in lines).encode())
    held = {name for name, data in everything(night.bucket).items() if any(word.encode() in data for word in words)}
    assert {name.split("/")[1] for name in held} >= {"pairs", "journal", "exports"}
    assert any(name.endswith("/README.md") for name in held), "the card of the export shows the pair"
    assert maintain("--forget", words[0])["found"]
    del words[2]  # kept where another description's pair holds it
    left = {name for name, data in everything(night.bucket).items() if any(word.encode() in data for word in words)}
    assert {name for name in left if not name.startswith("tasks-")} == set()
    assert json.loads(storage.read_bytes(card)) == lines[0]
    assert sorted(night.rows("pairs")["id"]) == sorted(set(before["pairs"]["id"]) - {row["id"]})
    again = maintain("--forget", words[0])
    assert again["done"] == [
        f"{night.destination}/{name}: every version before this one was removed" for name in ("pairs", "rejected")
    ]
    assert not again["found"]


@pytest.mark.faults
@pytest.mark.parametrize(
    ("fails", "options", "said"),
    [
        # After the journal, whose files are merged by then: what a first try has done is told by the second.
        ("/out/staging/publish.lease", [], "of the journal merged"),
        ("/out/runs", ["--forget", "match good thing 1 with its name"], "/journal/"),
    ],
)
def test_a_storage_that_fails_for_a_while_does_not_end_an_upkeep(
    nights: Callable[[str], Night], fails: str, options: list[str], said: str
) -> None:
    night = nights("out")
    night.serve(0.0)
    for first in (0, 10):
        night.put(first, 10)
        night.finish()
    # More often than s3fs and botocore try by themselves.
    night.proxy.fault(fails, "error", status=503, code="SlowDown", times=12)
    run = night.start_upkeep(*options)
    assert run.wait() == 0, run.said
    assert any(said in line for line in run.report["done"]), run.report["done"]


@pytest.mark.parametrize(
    ("done", "before", "said"),
    [
        ([], 1_000, "s3://b/out: nothing to do, 1,000 bytes in all"),
        (["one"], 1_000, "s3://b/out: 1 thing done, 1,000 bytes in all"),
        (["one", "two"], 5_000, "s3://b/out: 2 things done, 4,000 bytes fewer, 1,000 bytes in all"),
        (["one"], 900, "s3://b/out: 1 thing done, 1,000 bytes in all"),
    ],
)
def test_the_headline_of_an_upkeep_says_what_it_saved_where_it_did(done: list[str], before: int, said: str) -> None:
    report = UpkeepReport(destination="s3://b/out", done=done, bytes_before=before, bytes_after=1_000)
    assert upkeep_headline(report) == said
