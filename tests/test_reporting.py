"""What publishing a day says of it: pages, the gate against drift, and what a redo changes."""

import dataclasses
import hashlib
import json

import polars as pl
import pytest
from prefect.logging import disable_run_logger

from tasks.again import ask_again
from tasks.brainstorm import gather_task_descriptions
from tasks.clients import frames, storage, table
from tasks.core.columns import COMPLETIONS, REQUESTS
from tasks.core.errors import RejectedError, SourceError, StorageError
from tasks.core.exports import ExportOrder
from tasks.core.judging import judge_completions
from tasks.core.layout import Layout
from tasks.core.plans import Plan, Shard
from tasks.core.report import RunReport
from tasks.core.requests import Order
from tasks.export import write_export
from tasks.extract import extract_task_descriptions
from tasks.forget import forget_description
from tasks.generate import generate_completions
from tasks.load import publish_partition
from tasks.maintain import Ages, tidy_destination
from tasks.open_model import open_model
from tasks.progress import progress
from tasks.publicise import show_report
from tasks.reporting import tell_published
from tasks.validate import validate_pairs
from tests.model_server import ModelServer
from tests.orders import ORDER
from tests.s3_proxy import S3Proxy
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


def find_report(order: Order) -> RunReport | None:
    found = storage.find_bytes(order.layout.report(order.run_id))
    return RunReport.model_validate_json(found[0]) if found else None


def test_a_run_that_died_before_its_report_gets_it_from_the_next_of_that_day(
    bucket: str, s3_proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_proxy.url)
    dead, later = (place(f"{bucket}/out", "2026-01-01", run_id=name) for name in ("dead", "later"))
    s3_proxy.fail("/runs/", 403, "AccessDenied")
    with pytest.raises(StorageError, match="refuses access"):
        publish(dead, [*distinct_pairs(20), "no json"])
    s3_proxy.forget()
    with disable_run_logger():
        report: RunReport = publish_partition.fn(later, Plan(already_served=20), [])
    assert (report.run_id, report.requests, report.published) == ("later", 0, False)
    found = find_report(dead)
    assert found is not None
    assert (found.run_id, found.published, found.accepted, found.rejected) == ("dead", True, 20, 1)
    assert (found.files, found.pairs_version) == (report.files, report.pairs_version)
    assert storage.find_bytes(dead.layout.report_page("dead", "html")) is not None
    assert storage.list_folder(dead.staging) == []


def test_what_is_staged_of_a_report_stays_until_its_event_is_sent(bucket: str, prefect_api: str) -> None:
    dead, later = (place(f"{bucket}/out", "2026-01-01", run_id=name) for name in ("dead", "later"))
    report = publish(dead, distinct_pairs(20))
    assert [item.uri for item in storage.list_folder(dead.staging)] == [f"{dead.staging}/report.json"]
    with disable_run_logger():
        publish_partition.fn(later, Plan(already_served=20), [])
    assert storage.list_folder(dead.staging) == []
    assert find_report(dead) == report
    alone = place(f"{bucket}/other", "2026-01-01")
    tell_published(publish(alone, distinct_pairs(20)))
    assert storage.list_folder(alone.staging) == []


def test_a_run_that_died_between_its_commits_gets_no_report(
    bucket: str, s3_proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_proxy.url)
    dead, later = (place(f"{bucket}/out", "2026-01-01", run_id=name) for name in ("dead", "later"))
    s3_proxy.fail("PUT " + dead.layout.pairs.removeprefix("s3:/"), 403, "AccessDenied")
    with pytest.raises(StorageError, match="refuses access"):
        publish(dead, distinct_pairs(20))
    s3_proxy.forget()
    assert publish(later, distinct_pairs(20)).published
    assert find_report(dead) is None


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


def test_a_run_that_has_published_and_is_retried_keeps_its_report(bucket: str) -> None:
    order = place(f"{bucket}/out", "2026-01-01")
    report = publish(order, distinct_pairs(20))
    with disable_run_logger():
        again = publish_partition.fn(dataclasses.replace(order, started_at=report.finished_at), Plan(), [])
    assert again == report
    assert RunReport.model_validate_json(storage.read_bytes(order.layout.report(order.run_id))) == report


def test_what_an_earlier_try_of_a_step_has_paid_for_is_paid_by_the_run(bucket: str, model_server: ModelServer) -> None:
    order = place(f"{bucket}/out", "2026-01-01", api_base=model_server.api_base)
    schema = REQUESTS | COMPLETIONS
    given = {name: [None] for name in schema} | {
        "plan_row": [0],
        "request_key": ["0" * 32],
        "task": ["match a thing with its name"],
        "language": ["English"],
        "sample_index": [0],
        "model_name": [order.recipe.model_name],
    }
    rows = pl.DataFrame(given, schema=schema)
    frames.write_frame(
        rows.with_columns(cached=pl.lit(value=False), turned_down_by=pl.lit([], pl.List(pl.String))),
        uri := f"{order.staging}/plan/000000.parquet",
    )
    with disable_run_logger(), open_model(order, Plan(requests=1)) as model:
        tries = [generate_completions.fn(Shard(0, uri, 0, 1, 0), order, model) for _ in range(2)]
        for shard in tries:
            assert frames.read_frame(shard.uri).select("cached", pl.col("text").is_not_null()).row(0) == (False, True)
    assert len(model_server.prompts) == 1


def test_every_step_of_a_run_and_an_export_outlive_a_hiccup_of_the_storage() -> None:
    run = (extract_task_descriptions, generate_completions, validate_pairs, ask_again, publish_partition, show_report)
    assert [step.name for step in (*run, gather_task_descriptions, write_export) if not step.retries] == []


def test_a_preview_and_a_run_with_nothing_to_do_do_not_claim_to_publish(bucket: str) -> None:
    publish(place(f"{bucket}/out", "2026-01-01"), distinct_pairs(3))
    assert str(progress) == "Publishing"
    publish(place(f"{bucket}/out", "2026-01-02", limit=3), distinct_pairs(3))
    assert str(progress) == "Writing the report"
    with disable_run_logger():
        publish_partition.fn(place(f"{bucket}/out", "2026-01-03"), Plan(), [])
    assert str(progress) == "Writing the report"
    assert table.published_partitions(table.open_table(f"{bucket}/out/pairs")) == ["2026-01-01"]


def test_upkeep_and_an_export_say_what_they_do_and_not_that_prefect_is_starting(bucket: str) -> None:
    layout, said = Layout(f"{bucket}/out"), []
    given = dict.fromkeys(("version", "start_date", "end_date", "licence"), "")
    order = ExportOrder(
        **given,
        destination=layout.destination,
        languages=(),
        leave_out_flagged=(),
        held_out=(),
        validation_share=0.0,
        test_share=0.0,
    )
    with disable_run_logger():
        tidy_destination.fn(layout, "me", Ages(7, 7, 0, 0, 0))
        said.append(str(progress))
        forget_description.fn(layout, "me", "match a question with its answer")
        said.append(str(progress))
        with pytest.raises(SourceError):
            write_export.fn(order)
    erasing = "Erasing a task description, once no run is at work"
    assert [*said, str(progress)] == ["Tidying the destination", erasing, "Writing the export"]


def test_a_run_with_nothing_to_ask_for_does_not_claim_to_generate(bucket: str) -> None:
    progress.begin("extract")
    with open_model(place(f"{bucket}/out", "2026-01-01"), Plan()):
        assert str(progress) == "Reading task descriptions"


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


def test_a_day_of_few_rows_is_not_what_the_next_one_is_compared_with(bucket: str) -> None:
    publish(place(f"{bucket}/out", "2026-01-01"), distinct_pairs(20))
    publish(place(f"{bucket}/out", "2026-01-02", max_rejected_share=1.0), ["no json"] * 19)
    publish(place(f"{bucket}/out", "2026-01-03"), distinct_pairs(1))
    report = publish(place(f"{bucket}/out", "2026-01-04", max_drift=0.0), distinct_pairs(20))
    assert report.drift is not None
    assert (report.published, report.drift.partition) == (True, "2026-01-01")


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
