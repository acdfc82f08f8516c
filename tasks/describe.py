"""Describes what a run is about to publish, beside what was published before."""

from typing import Any

import polars as pl

from tasks.clients import table
from tasks.core.drift import ENOUGH_ROWS
from tasks.core.profiles import find_changes, measure_drift, profile_published, profile_rows
from tasks.core.requests import Order


def describe(order: Order, decided: pl.LazyFrame, pairs: table.Table, rejected: table.Table) -> dict[str, Any]:
    """Return the fields profile, drift and changes of the report.

    Args:
        order: The run.
        decided: Its judged rows with all that is decided of them.
        pairs: The pairs table as it was before.
        rejected: The rejected table as it was before.
    """
    profile = profile_rows(decided)
    drift = changes = None
    day = _find_day_before(order, pairs, rejected)
    before = table.scan(pairs, day) if day else None
    if before is not None:
        drift = measure_drift(day, profile_published(before, table.scan(rejected, day)), profile)
    replaced = table.scan(pairs, order.partition)
    if order.on_published == "redo" and replaced is not None:
        changes = find_changes(decided, replaced, table.scan(rejected, order.partition))
    return {"profile": profile, "drift": drift, "changes": changes}


def _find_day_before(order: Order, pairs: table.Table, rejected: table.Table) -> str:
    """Return the last published day before the order's that has enough rows to compare with, empty where none has."""
    held = [rows for one in (pairs, rejected) if (rows := table.scan(one)) is not None]
    for day in reversed(table.published_partitions(pairs)):
        if day < order.partition:
            judged = [rows.filter(pl.col("partition") == day).select(pl.len()) for rows in held]
            if pl.concat(judged).collect(engine="streaming").sum().item() >= ENOUGH_ROWS:
                return day
    return ""
