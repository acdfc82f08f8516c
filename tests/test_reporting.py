"""What publishing a day says of it: pages, the gate against drift, and what a redo changes."""

import dataclasses
import hashlib
import json

import polars as pl
import pytest
from prefect.logging import disable_run_logger

from tasks.clients import frames, storage, table
from tasks.core.columns import COMPLETIONS, REQUESTS
from tasks.core.errors import RejectedError
from tasks.core.judging import judge_completions
from tasks.core.plans import Plan, Shard
from tasks.core.report import RunReport
from tasks.core.requests import Order
from tasks.load import publish_partition
from tasks.progress import progress
from tests.orders import ORDER
from tests.test_profile import distinct_pairs, pair

PERSONAL = pair("write to jane.roe@example.org", "a letter to an old neighbour")


def place(destination: str, partition: str, **changes: object) -> Order:
    order = dataclasses.replace(ORDER, destination=destination, partition=partition, run_id=f"run of {partition}")
    return dataclasses.replace(order, **changes)  # type: ignore[arg-type]  # fields of Order


def publish(order: Order, texts: list[str]) -> RunReport:
    """Judge these replies and publish them as the order's partition."""
    rows = len(texts)
    given = {
        "plan_row": range(rows),
        "request_key": [
            hashlib.blake2b(f"{order.partition} {row}".encode(), digest_size=16).hexdigest() for row in range(rows)
        ],
        "description_hash": [f"{order.partition[-2:]}{row:030x}" for row in range(rows)],
        "task": [f"match thing {row} with its name" for row in range(rows)],
        "language": ["English"] * rows,
        "sample_index": [0] * rows,
        "model_name": [order.recipe.model_name] * rows,
        "text": texts,
        "finish_reason": ["stop"] * rows,
    }
    schema = REQUESTS | COMPLETIONS
    frame = pl.DataFrame({name: given.get(name, [None] * rows) for name in schema}, schema=schema)
    staged = frame.with_columns(cached=pl.lit(value=True), turned_down_by=pl.lit([], pl.List(pl.String)))
    judged = judge_completions(staged.lazy(), order)
    uri = f"{order.staging}/judged/000000.parquet"
    frames.write_frame(judged, uri)
    plan = Plan(requests=rows, wanted=rows, descriptions=rows, cached=rows)
    with disable_run_logger():
        report: RunReport = publish_partition.fn(order, plan, [Shard(0, uri, 0, rows, rows)])
    return report


def test_a_run_leaves_its_report_for_programs_and_for_people(bucket: str) -> None:
    order = place(f"{bucket}/out", "2026-01-01")
    report = publish(order, [*distinct_pairs(20), "no json"])
    kept = RunReport.model_validate_json(storage.read_bytes(order.layout.report(order.run_id)))
    assert kept == report
    page = storage.read_bytes(order.layout.report_page(order.run_id, "html")).decode()
    text = storage.read_bytes(order.layout.report_page(order.run_id, "md")).decode()
    assert all("unparsable" in said for said in (page, text))
    assert (report.drift, report.changes) == (None, None)
    assert report.profile is not None
    assert len(report.profile.pairs_to_read) == 20


def test_a_preview_and_a_run_with_nothing_to_do_do_not_claim_to_publish(bucket: str) -> None:
    publish(place(f"{bucket}/out", "2026-01-01"), distinct_pairs(3))
    assert str(progress) == "Publishing"
    publish(place(f"{bucket}/out", "2026-01-02", limit=3), distinct_pairs(3))
    assert str(progress) == "Writing the report"
    with disable_run_logger():
        publish_partition.fn(place(f"{bucket}/out", "2026-01-03"), Plan(), [])
    assert str(progress) == "Writing the report"
    assert table.published_partitions(table.open_table(f"{bucket}/out/pairs")) == ["2026-01-01"]


def test_a_day_that_differs_too_much_is_not_published(bucket: str) -> None:
    publish(place(f"{bucket}/out", "2026-01-01"), distinct_pairs(20))
    other = [*distinct_pairs(15), *["no json"] * 5]
    with pytest.raises(RejectedError, match="25% from 2026-01-01, above the allowed 24%"):
        publish(place(f"{bucket}/out", "2026-01-02", max_drift=0.24), other)
    assert table.published_partitions(table.open_table(f"{bucket}/out/pairs")) == ["2026-01-01"]
    report = publish(place(f"{bucket}/out", "2026-01-02", max_drift=0.25), other)
    assert report.published
    assert report.drift is not None
    assert (report.drift.worst.name, report.drift.worst.before, report.drift.worst.now) == ("accepted", 1.0, 0.75)
    assert report.flags == {"duplicate_elsewhere": 15}


def test_judging_again_by_another_rule_publishes_a_new_version_and_says_what_changed(bucket: str) -> None:
    texts = [*distinct_pairs(25), PERSONAL]
    first = publish(place(f"{bucket}/out", "2026-01-01"), texts)
    assert (first.accepted, first.flags) == (26, {"personal_data": 1})
    strict = place(
        f"{bucket}/out", "2026-01-01", on_published="redo", run_id="again", reject_flagged=("personal_data",)
    )
    second = publish(strict, texts)
    assert (second.accepted, second.reasons, second.paid) == (25, {"personal_data": 1}, 0)
    assert second.changes is not None
    assert second.changes.model_dump() == {
        "newly_accepted": {},
        "newly_rejected": {"personal_data": 1},
        "as_before": 25,
    }
    assert (first.pairs_version or 0) < (second.pairs_version or 0)
    lenient = place(f"{bucket}/out", "2026-01-01", on_published="redo", run_id="third")
    third = publish(lenient, texts)
    assert third.changes is not None
    assert (third.changes.newly_accepted, third.changes.as_before) == ({"personal_data": 1}, 25)
    assert json.loads(storage.read_bytes(lenient.layout.report("third")))["accepted"] == 26
