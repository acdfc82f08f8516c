"""Shows a run in Prefect's UI while it goes on and when it has ended."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import cast
from uuid import UUID

import httpx
import polars as pl
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from tasks.clients import table
from tasks.clients.access import browser_address
from tasks.core.backfill import DayReport, backfill_markdown
from tasks.core.layout import Layout
from tasks.core.markdown import report_markdown
from tasks.core.report import RunReport, without_texts
from tasks.events import emit_published
from tasks.policy import step
from tasks.progress import progress

PROGRESS_SECONDS = 5.0
REJECTED_EXAMPLES = 20
# Anything but 1 keeps the texts of sources and models out of Prefect's database.
SHOW_TEXTS = "PAIRMILL_SHOW_TEXTS"


@step("report", "report", retries=3)
def show_report(report: RunReport) -> None:
    """Keep the report and examples of rejected rows as artifacts, and send the event of a published partition.

    With PAIRMILL_SHOW_TEXTS=0 no text of a source or a model is in any of them.
    """
    texts = os.environ.get(SHOW_TEXTS, "1") == "1"
    shown = report if texts else without_texts(report)
    page = report_markdown(shown, browser_address)
    create_markdown_artifact(page, key="run-report", description="What the run did")
    examples = _rejected_examples(report) if report.published and report.rejected and texts else []
    if examples:
        create_table_artifact(examples, key="rejected-examples", description="Some of the rows that were rejected")
    if report.published:
        emit_published(report)


@step("backfill report", "report")
def show_days(days: list[DayReport]) -> None:
    """Keep what became of a backfill's days as an artifact."""
    create_markdown_artifact(backfill_markdown(days), key="backfill-report", description="What became of each day")


def _rejected_examples(report: RunReport) -> list[dict[str, str]]:
    rows = table.scan(table.open_table(Layout(report.destination).rejected), report.partition)
    if rows is None:
        return []
    examples = rows.filter(pl.col("run_id") == report.run_id).head(REJECTED_EXAMPLES).collect(engine="streaming")
    return [
        {
            "reasons": ", ".join(row["reasons"]),
            "task description": row["task"],
            "language": row["language"],
            "the model wrote": (row["text"] or "")[:300],
        }
        for row in examples.iter_rows(named=True)
    ]


@contextmanager
def show_progress() -> Iterator[None]:
    """Keep a progress artifact of this flow run inside the block; it moves every few seconds."""
    artifact = cast("UUID", create_progress_artifact(0.0, key="run-progress", description="Starting"))
    ended = threading.Event()

    def move() -> None:
        while not ended.wait(PROGRESS_SECONDS):
            with suppress(httpx.HTTPError):  # nothing depends on what is shown
                update_progress_artifact(artifact, progress.percent, str(progress))

    # With this run's context: Prefect reads from it which server to talk to.
    mover = threading.Thread(target=copy_context().run, args=(move,), name="progress", daemon=True)
    mover.start()
    try:
        yield
    finally:
        ended.set()
        mover.join()
    # Not before the last move has come to its end, which would be shown for good.
    with suppress(httpx.HTTPError):
        update_progress_artifact(artifact, 100.0, "Done")
