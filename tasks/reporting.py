"""A run's report, also where the run died between its commits and the event that says what is published.

What is staged of a report stays until its event is sent.
"""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from prefect import get_run_logger
from pydantic import ValidationError

from tasks.clients import storage, table
from tasks.clients.lease import hold_lease
from tasks.core.errors import StorageError
from tasks.core.layout import Layout
from tasks.core.markdown import report_markdown
from tasks.core.page import report_page
from tasks.core.report import RunReport
from tasks.core.requests import Order
from tasks.events import emit_published

_DRAFT = "/report.json"


def mark_of(run_id: str, started_at: datetime) -> str:
    """Tell this attempt of the run from another one: a flow run that is retried keeps its id."""
    return f"{run_id} {started_at.isoformat()}"


def write_report(order: Order, figures: dict[str, Any], *, published: bool, preview: bool = False) -> RunReport:
    """Return the report with these figures, as written to runs/; that of a preview names no version."""
    return _write(order.layout, _make_report(order, figures, published=published), preview=preview)


def stage_report(order: Order, figures: dict[str, Any]) -> None:
    """Stage the report of what is about to be published, for `report_dead`."""
    report = _make_report(order, figures, published=True)
    storage.write_bytes(_draft_of(report), report.model_dump_json().encode())


def clear_staging(order: Order) -> None:
    """Remove what a published run has staged, all but its report."""
    staged = storage.list_folder(order.staging)
    storage.delete_objects([item.uri for item in staged if not item.uri.endswith(_DRAFT)])


def tell_published(report: RunReport) -> None:
    """Send the event of a report, and remove what is staged of it."""
    emit_published(report)
    with suppress(StorageError):  # the next run of the day sends it again, which Prefect sees
        storage.delete_objects([_draft_of(report)])


def report_dead(order: Order) -> None:
    """Write the reports of runs of this partition that died when all was published, and send the events they owe."""
    staged = f"{order.layout.destination}/staging/{order.partition}"
    drafts = [item.uri for item in storage.list_folder(staged) if item.uri.endswith(_DRAFT)]
    if not drafts:
        return
    # A living one has it until its report is written.
    with hold_lease(order.layout.lease, order.run_id):
        pairs = table.open_table(order.layout.pairs)
        for report in filter(None, map(_read, drafts)):
            mark = mark_of(report.run_id, report.started_at)
            written = _read(order.layout.report(report.run_id))
            if written is None:
                if table.find_publish(pairs, mark) is None:
                    continue
                written = _write(order.layout, report)
            if report.run_id != order.run_id:
                if written.published:
                    emit_published(written)
                storage.delete_prefix(order.layout.staging(order.partition, report.run_id))
                get_run_logger().info("Run %s died before it had told of what it published; now it is", report.run_id)


def find_report(order: Order) -> RunReport | None:
    """Return the report that this run has written, None where it has not."""
    return _read(order.layout.report(order.run_id))


def find_published(order: Order) -> RunReport | None:
    """Return the report of an earlier attempt of this run that has published all there was to do."""
    report = find_report(order)
    return report if report and report.published else None


def _draft_of(report: RunReport) -> str:
    return f"{Layout(report.destination).staging(report.partition, report.run_id)}{_DRAFT}"


def _read(uri: str) -> RunReport | None:
    found = storage.find_bytes(uri)
    with suppress(ValidationError):  # another version wrote it
        return RunReport.model_validate_json(found[0]) if found else None
    return None


def _make_report(order: Order, figures: dict[str, Any], *, published: bool) -> RunReport:
    finished_at = datetime.now(UTC)
    return RunReport(
        **figures,
        published=published,
        pairs_uri=order.layout.pairs,
        pairs_version=None,
        files=[],
        started_at=order.started_at,
        finished_at=finished_at,
        seconds=round((finished_at - order.started_at).total_seconds(), 3),
    )


def _write(layout: Layout, report: RunReport, *, preview: bool = False) -> RunReport:
    """Write the report with the pairs table's version and the partition's files, and return it."""
    pairs = None if preview else table.open_table(layout.pairs)
    if pairs is not None:
        files = table.partition_files(pairs, report.partition)
        report = report.model_copy(update={"pairs_version": pairs.version(), "files": files})
    storage.write_bytes(layout.report(report.run_id), report.model_dump_json(indent=1).encode())
    storage.write_bytes(layout.report_page(report.run_id, "html"), report_page(report).encode())
    storage.write_bytes(layout.report_page(report.run_id, "md"), report_markdown(report).encode())
    return report
