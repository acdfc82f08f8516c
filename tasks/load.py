"""Step 4: the judged rows of a partition become visible, all at once."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl
from prefect import get_run_logger

from tasks.clients import frames, publishing, storage, table
from tasks.clients.holdings import check_quota
from tasks.clients.lease import Lease, hold_lease
from tasks.core.columns import ACCEPTED, TEXTS, with_missing
from tasks.core.drift import Drift
from tasks.core.duplicates import KEYS
from tasks.core.errors import RejectedError, StorageError
from tasks.core.judging import pair_columns, reject_duplicates, rejected_columns, relate
from tasks.core.markdown import report_markdown
from tasks.core.page import report_page
from tasks.core.plans import Plan, Shard
from tasks.core.profiles import profile_rows
from tasks.core.report import RunReport, headline
from tasks.core.requests import Order
from tasks.core.summary import summarise
from tasks.describe import describe
from tasks.policy import step
from tasks.progress import progress

# Below this many judged rows a share of rejected ones says nothing.
ENOUGH_ROWS = 20


@dataclass(frozen=True)
class _Published:
    """Where the partition stands: the pairs table's version and its files."""

    version: int | None = None
    files: tuple[str, ...] = ()


@step("load", "publish partition", retries=3)
def publish_partition(order: Order, plan: Plan, shards: Sequence[Shard]) -> RunReport:
    """Publish the judged rows of `shards` as the partition of `order`, and write the report.

    Duplicates are decided here, over the whole partition. One commit to the
    rejected table, then one to the pairs table, under the publish lease. A
    preview and a run that planned nothing publish nothing.

    Returns:
        The report, as written to runs/.

    Raises:
        RejectedError: More rows were rejected than `max_rejected_share`, or they differ more from the
            partition before than `max_drift`; nothing is published.
        StorageError: A table does not take the commit.
    """
    progress.begin("load" if plan.requests and not order.limit else "report")
    if not plan.requests:
        return _report(order, summarise(order, plan, None), _now_published(order), published=False)
    judged = frames.scan_frames([shard.uri for shard in shards])
    if order.limit:
        decided = decide(order, judged, table.open_table(order.layout.pairs))
        figures = summarise(order, plan, decided, shards) | {"profile": profile_rows(decided)}
        report = _report(order, figures, _Published(), published=False)
        storage.delete_prefix(order.staging)
        return report
    with hold_lease(order.layout.lease, order.run_id) as lease:
        before = publishing.begin(order.layout, order.partition, order.run_id, _mark(order))
        decided = relate(decide(order, judged, before.pairs), *_published(order, before.pairs))
        figures = summarise(order, plan, decided, shards) | describe(order, decided, before.pairs, before.rejected)
        if _too_much_rejected(order, figures):
            raise _too_many_rejected(_report(order, figures, _now_published(order), published=False), order)
        drift: Drift | None = figures["drift"]
        if figures["judged"] >= ENOUGH_ROWS and drift is not None and drift.worst.drift > order.max_drift:
            _report(order, figures, _now_published(order), published=False)
            raise _too_different(drift, order)
        if not before.done:
            if before.pairs is not None and before.pairs.version() != plan.pairs_version:
                check_quota(before.pairs, decided.filter(ACCEPTED), order)
            _commit(order, plan, decided, before, lease)
    report = _report(order, figures, _now_published(order), published=True)
    with suppress(StorageError):  # published is published; maintain removes what is left
        storage.delete_prefix(order.staging)
    get_run_logger().info("%s", headline(report))
    return report


def _mark(order: Order) -> str:
    """Tell this attempt of the run from another one: a flow run that is retried keeps its id."""
    return f"{order.run_id} {order.started_at.isoformat()}"


def decide(
    order: Order, judged: pl.LazyFrame, pairs: table.Table, *, among: pl.LazyFrame | None = None
) -> pl.LazyFrame:
    """Return the judged rows with duplicates among all rows, and of pairs that stay published, rejected.

    Args:
        order: The run.
        judged: Rows to return.
        pairs: The pairs table at one version.
        among: Rows that they are compared with, `judged` itself where it is None.
    """
    staying, _ = _published(order, pairs)
    return reject_duplicates(judged, staying, among)


def _published(order: Order, pairs: table.Table) -> tuple[pl.LazyFrame | None, pl.LazyFrame | None]:
    """Return the pairs that stay published in the order's partition, and those of all others."""
    rows = table.scan(pairs)
    if rows is None:
        return None, None
    rows = with_missing(rows, {**KEYS, **dict.fromkeys(TEXTS, pl.String)})
    inside = pl.col("partition") == order.partition
    return (rows.filter(inside) if order.on_published == "add" else None), rows.filter(~inside)


def _commit(order: Order, plan: Plan, decided: pl.LazyFrame, before: publishing.Before, lease: Lease) -> None:
    redo = order.on_published == "redo"
    rejected = decided.filter(~ACCEPTED).select(rejected_columns(plan.source_columns))
    rest = None if redo else table.scan(before.rejected, order.partition)
    if rest is not None:
        # A request that is judged anew has one row, not two.
        rest = rest.join(decided.select("request_key"), on="request_key", how="anti")
        rejected = pl.concat([rest, rejected], how="diagonal_relaxed")
    lease.check()
    table.publish(order.layout.rejected, rejected, before.what, overwrite=True)
    pairs = decided.filter(ACCEPTED).select(pair_columns(plan.source_columns))
    lease.check()
    table.publish(order.layout.pairs, pairs, before.what, overwrite=redo)


def _now_published(order: Order) -> _Published:
    pairs = table.open_table(order.layout.pairs)
    if pairs is None:
        return _Published()
    return _Published(pairs.version(), tuple(table.partition_files(pairs, order.partition)))


def _report(order: Order, figures: dict[str, Any], now: _Published, *, published: bool) -> RunReport:
    finished_at = datetime.now(UTC)
    report = RunReport(
        **figures,
        published=published,
        pairs_uri=order.layout.pairs,
        pairs_version=now.version,
        files=list(now.files),
        started_at=order.started_at,
        finished_at=finished_at,
        seconds=round((finished_at - order.started_at).total_seconds(), 3),
    )
    storage.write_bytes(order.layout.report(order.run_id), report.model_dump_json(indent=1).encode())
    storage.write_bytes(order.layout.report_page(order.run_id, "html"), report_page(report).encode())
    storage.write_bytes(order.layout.report_page(order.run_id, "md"), report_markdown(report).encode())
    return report


def _too_different(drift: Drift, order: Order) -> RejectedError:
    worst = drift.worst
    return RejectedError(
        f"{worst.name.capitalize()} differ by {worst.drift:.0%} from {drift.partition}, above the allowed "
        f"{order.max_drift:.0%}. Nothing was published; every paid completion is kept. Read "
        f"{order.layout.report_page(order.run_id, 'html')}, then raise --max-drift or mend the source, and run again."
    )


def _too_much_rejected(order: Order, figures: dict[str, Any]) -> bool:
    """Whether the share is above the allowed one; few rows of a fresh source only where none was accepted.

    A later night may have nothing left but descriptions of which nothing ever comes.
    """
    judged, rejected = figures["judged"], figures["rejected"]
    fresh = not (figures["already_served"] or figures["already_rejected"])
    enough = judged >= ENOUGH_ROWS or (fresh and rejected == judged)
    return enough and bool(rejected > order.max_rejected_share * judged)


def _too_many_rejected(report: RunReport, order: Order) -> RejectedError:
    reasons = ", ".join(f"{reason} {rows:,}" for reason, rows in list(report.reasons.items())[:5])
    return RejectedError(
        f"{report.rejected / report.judged:.0%} of {report.judged:,} rows were rejected, above the allowed "
        f"{order.max_rejected_share:.0%} ({reasons}). Nothing was published; every paid completion is kept. "
        f"Read {order.staging}/judged/ (column reasons), then raise --max-rejected-share "
        "or change the model, and run again."
    )
