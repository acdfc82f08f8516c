"""Step 4: the judged rows of a partition become visible, all at once."""

from collections.abc import Sequence
from contextlib import suppress

import polars as pl
from prefect import get_run_logger

from tasks.clients import frames, publishing, storage, table
from tasks.clients.holdings import check_quota, split_published
from tasks.clients.lease import Lease, hold_lease
from tasks.core.columns import ACCEPTED, SHARD
from tasks.core.errors import RejectedError, StorageError
from tasks.core.gates import find_refusal
from tasks.core.judging import pair_columns, reject_duplicates, rejected_columns, relate
from tasks.core.planning import leaves_nothing
from tasks.core.plans import Plan, Shard
from tasks.core.profiles import profile_rows
from tasks.core.report import RunReport, headline
from tasks.core.requests import Order
from tasks.core.source_columns import carried
from tasks.core.summary import summarise
from tasks.describe import describe
from tasks.policy import step
from tasks.progress import progress
from tasks.reporting import clear_staging, find_published, mark_of, report_dead, stage_report, write_report


@step("load", "publish partition", retries=3)
def publish_partition(order: Order, plan: Plan, shards: Sequence[Shard]) -> RunReport:
    """Publish the judged rows of `shards` as the partition of `order`, and write the report.

    Duplicates are decided here, over the whole partition. One commit to the
    rejected table, then one to the pairs table, under the publish lease. A
    preview and a run that planned nothing publish nothing; a redo then leaves its partition without rows.
    A run that died before its report, with all published, gets that first.

    Returns:
        The report, as written to runs/: where an earlier attempt of this run has published
        everything, that one's.

    Raises:
        RejectedError: More rows were rejected than `max_rejected_share`, or they differ more from the
            partition before than `max_drift`; nothing is published.
        StorageError: A table does not take the commit.
    """
    progress.begin("load" if plan.requests and not order.limit else "report")
    if not order.limit:
        report_dead(order)
    if not plan.requests:
        if found := find_published(order):
            return found
        emptied = leaves_nothing(order, descriptions=plan.descriptions, requests=plan.requests) and _empty(order)
        return write_report(order, summarise(order, plan, None), published=emptied)
    staged = [shard.uri for shard in shards]
    with frames.whole_objects(lambda: staged, columns=SHARD):
        return _publish(order, plan, shards, frames.scan_frames(staged))


def _publish(order: Order, plan: Plan, shards: Sequence[Shard], judged: pl.LazyFrame) -> RunReport:
    if order.limit:
        staying, _ = split_published(table.open_table(order.layout.pairs), order)
        decided = reject_duplicates(judged, staying)
        figures = summarise(order, plan, decided, shards) | {"profile": profile_rows(decided)}
        report = write_report(order, figures, published=False, preview=True)
        storage.delete_prefix(order.staging)
        return report
    with hold_lease(order.layout.lease, order.run_id) as lease:
        before = publishing.begin(order.layout, order.partition, order.run_id, mark_of(order.run_id, order.started_at))
        staying, elsewhere = split_published(before.pairs, order)
        decided = relate(reject_duplicates(judged, staying), staying, elsewhere)
        figures = summarise(order, plan, decided, shards) | describe(order, decided, before.pairs, before.rejected)
        if refusal := find_refusal(order, figures):
            write_report(order, figures, published=False)
            raise RejectedError(refusal)
        if not before.done:
            if before.pairs is not None and before.pairs.version() != plan.pairs_version:
                check_quota(before.pairs, decided.filter(ACCEPTED), order)
            stage_report(order, figures)
            _commit(order, plan, decided, before, lease)
        report = write_report(order, figures, published=True)
    with suppress(StorageError):  # published is published; maintain removes what is left
        clear_staging(order)
    get_run_logger().info("%s", headline(report))
    return report


def _commit(order: Order, plan: Plan, decided: pl.LazyFrame, before: publishing.Before, lease: Lease) -> None:
    redo = order.on_published == "redo"
    decided = decided.rename({carried(name): name for name in plan.source_columns})
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


def _empty(order: Order) -> bool:
    """Leave the partition without rows, since others serve all that its source holds; False where it had none."""
    with hold_lease(order.layout.lease, order.run_id) as lease:
        before = publishing.begin(order.layout, order.partition, order.run_id, mark_of(order.run_id, order.started_at))
        theirs = table.scan(before.pairs, order.partition)
        if before.done or theirs is None or not theirs.select(pl.len()).collect(engine="streaming").item():
            return before.done
        for uri, held in ((order.layout.rejected, before.rejected), (order.layout.pairs, before.pairs)):
            if (rows := table.scan(held)) is not None:
                lease.check()
                table.publish(uri, rows.clear(), before.what, overwrite=True)
    return True
