"""Shows a run in Prefect's UI while it goes on and when it has ended."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import Any, cast
from uuid import UUID

import httpx
import polars as pl
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)

from tasks.clients import table
from tasks.clients.access import browser_address
from tasks.core.backfill import DayReport, backfill_markdown
from tasks.core.findings import BrainstormReport
from tasks.core.layout import Layout
from tasks.core.markdown import rejected_markdown, report_markdown
from tasks.core.other_markdown import brainstorm_markdown, upkeep_markdown
from tasks.core.report import RunReport, without_texts
from tasks.core.upkeep import UpkeepReport
from tasks.policy import step
from tasks.progress import progress
from tasks.reporting import tell_published

PROGRESS_SECONDS = 5.0
REJECTED_EXAMPLES = 20
# Anything but 1 keeps the texts of sources and models out of Prefect's database.
SHOW_TEXTS = "PAIRMILL_SHOW_TEXTS"


@step("report", "report", retries=3)
def show_report(report: RunReport) -> None:
    """Keep the report and examples of rejected rows as artifacts, and send the event of a published partition.

    With PAIRMILL_SHOW_TEXTS=0 no text of a source or a model is in any of them.
    """
    texts = _shows_texts()
    shown = report if texts else without_texts(report)
    page = report_markdown(shown, browser_address)
    create_markdown_artifact(page, key="run-report", description="What the run did")
    examples = _rejected_examples(report) if report.published and report.rejected and texts else []
    if examples:
        # Not a table artifact: the UI takes its cells for Markdown, so that texts would show links and fetch images.
        page = rejected_markdown(examples)
        create_markdown_artifact(page, key="rejected-examples", description="Some of the rows that were rejected")
    if report.published:
        tell_published(report)


@step("backfill report", "report")
def show_days(days: list[DayReport]) -> None:
    """Keep what became of a backfill's days as an artifact."""
    create_markdown_artifact(backfill_markdown(days), key="backfill-report", description="What became of each day")


@step("brainstorm report", "report", retries=3)
def show_brainstorm(report: BrainstormReport) -> None:
    """Keep what came of a brainstorming as an artifact, without its texts where PAIRMILL_SHOW_TEXTS=0."""
    shown = report if _shows_texts() else report.model_copy(update={"samples": []})
    create_markdown_artifact(brainstorm_markdown(shown), key="brainstorm-report", description="What the lists brought")


@step("upkeep report", "report", retries=3)
def show_upkeep(report: UpkeepReport) -> None:
    """Keep what was done to a destination, and what is left to do by hand, as an artifact."""
    create_markdown_artifact(upkeep_markdown(report), key="upkeep-report", description="What was done")


def _shows_texts() -> bool:
    return os.environ.get(SHOW_TEXTS, "1") == "1"


def _rejected_examples(report: RunReport) -> list[dict[str, Any]]:
    rows = table.scan(table.open_table(Layout(report.destination).rejected), report.partition)
    if rows is None:
        return []
    examples = rows.filter(pl.col("run_id") == report.run_id).head(REJECTED_EXAMPLES)
    return examples.select("reasons", "task", "language", "text").collect(engine="streaming").to_dicts()


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
