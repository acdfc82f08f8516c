"""What a destination already holds of what a run reads and makes."""

from collections.abc import Collection
from typing import Any

import polars as pl

from tasks.clients import storage, table
from tasks.clients.documents import parse_document
from tasks.core.columns import TEXTS, with_missing
from tasks.core.distinct import number_hashes
from tasks.core.duplicates import KEYS
from tasks.core.errors import StorageError
from tasks.core.planning import JUDGED, SERVED
from tasks.core.requests import Order
from tasks.core.rules import CALL_FAILED


def find_served(pairs: table.Table, numbers: pl.DataFrame, languages: Collection[str], order: Order) -> pl.DataFrame:
    """Count the accepted pairs of each description and language, in whatever partition.

    A redo leaves its own partition out: it judges that one anew.

    Args:
        pairs: The pairs table at one version.
        numbers: Column number, the descriptions asked for.
        languages: Those that any of them is asked for in.
        order: The run.

    Returns:
        SERVED.
    """
    rows = table.scan(pairs)
    if rows is None:
        return pl.DataFrame(schema=SERVED)
    return (
        _theirs(rows, order)
        .filter(pl.col("language").is_in(list(languages)))
        .select("language", number=number_hashes(pl.col("description_hash")))
        .join(numbers.lazy(), on="number", how="semi")
        .group_by("number", "language")
        .agg(pairs=pl.len().cast(pl.Int64))
        .select(*SERVED)
        .collect(engine="streaming")
    )


def check_quota(pairs: table.Table, accepted: pl.LazyFrame, order: Order) -> None:
    """Check that no description would be served beyond what is ordered, once `accepted` rows are published.

    Args:
        pairs: The pairs table at one version.
        accepted: Columns description_hash and language.
        order: The run.

    Raises:
        StorageError: Some would: another run has published them since this one's plan was made.
    """
    new = (
        accepted.select("language", number=number_hashes(pl.col("description_hash")))
        .group_by("number", "language")
        .agg(new=pl.len().cast(pl.Int64))
        .collect(engine="streaming")
    )
    served = find_served(pairs, new.select(pl.col("number").unique()), new["language"].unique().to_list(), order)
    beyond = new.join(served, on=["number", "language"]).filter(pl.col("new") + pl.col("pairs") > order.pairs_per_task)
    if beyond.height:
        raise StorageError(
            f"Another run has published {beyond.height:,} of this one's descriptions x languages, while this one stood "
            "still for longer than its lease lasts. Nothing was published, and what was paid for is kept: run again."
        )


def find_judged(
    pairs: table.Table, rejected: table.Table, numbers: pl.DataFrame, served: pl.DataFrame, order: Order
) -> pl.DataFrame:
    """Return the requests that were judged before, of descriptions that are not served yet.

    Calls that failed count as not judged, and so does, in a redo, every rejection.

    Returns:
        JUDGED, each request once, as accepted where it is both.
    """
    complete = served.filter(pl.col("pairs") >= order.pairs_per_task).select("number", "language")
    found = []
    for held, reason in ((pairs, pl.lit(None, pl.String)), (rejected, pl.col("reasons").list.first())):
        rows = table.scan(held)
        if rows is None or (order.on_published == "redo" and held is rejected):
            continue
        if held is rejected:
            rows = rows.filter(~pl.col("reasons").list.contains(CALL_FAILED))
        found.append(
            _theirs(rows, order)
            .with_columns(number=number_hashes(pl.col("description_hash")), reason=reason)
            .select(*JUDGED)
            .join(numbers.lazy(), on="number", how="semi")
            .join(complete.lazy(), on=["number", "language"], how="anti")
        )
    if not found:
        return pl.DataFrame(schema=JUDGED)
    judged = pl.concat(found).collect(engine="streaming").sort("reason", nulls_last=False)
    return judged.unique("request_key", keep="first", maintain_order=True)


def _theirs(rows: pl.LazyFrame, order: Order) -> pl.LazyFrame:
    return rows if order.on_published == "add" else rows.filter(pl.col("partition") != order.partition)


def split_published(pairs: table.Table, order: Order) -> tuple[pl.LazyFrame | None, pl.LazyFrame | None]:
    """Return the pairs that stay published in the order's partition, and those of all others; None without any.

    Args:
        pairs: The pairs table at one version.
        order: The run.
    """
    rows = table.scan(pairs)
    if rows is None:
        return None, None
    rows = with_missing(rows, {**KEYS, **dict.fromkeys(TEXTS, pl.String)})
    inside = pl.col("partition") == order.partition
    return (rows.filter(inside) if order.on_published == "add" else None), rows.filter(~inside)


def find_source_changes(held: list[table.Table], order: Order, objects: list[storage.StoredObject]) -> tuple[str, ...]:
    """Say how the source differs from what the last published run of the partition read.

    Returns:
        One text per new, changed or missing object; empty where nothing is known.
    """
    runs: set[str] = set()
    for rows in (table.scan(one, order.partition) for one in held):
        if rows is not None:
            runs |= set(rows.select(pl.col("run_id").unique()).collect(engine="streaming")["run_id"])
    reports = [report for run in runs if (report := _read_report(order.layout.report(run)))]
    if not reports:
        return ()
    last = max(reports, key=lambda report: str(report.get("finished_at", "")))
    if last.get("source") != order.source:
        return (f"the last run of this partition read {last.get('source')}",)
    before = {item["uri"]: item["etag"] for item in last.get("objects", [])}
    now = {item.uri: item.etag for item in objects}
    return (
        *(f"new: {uri}" for uri in now if uri not in before),
        *(f"changed: {uri}" for uri in now if before.get(uri, now[uri]) != now[uri]),
        *(f"gone: {uri}" for uri in before if uri not in now),
    )


def _read_report(uri: str) -> dict[str, Any] | None:
    """Return a run's report, None where it expired, cannot be read, or its run died before writing it."""
    found = storage.find_bytes(uri)
    return parse_document(found[0]) if found else None
