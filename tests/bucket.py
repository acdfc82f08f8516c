"""What tests put into a bucket, and what they read out of it."""

import json
from collections.abc import Iterable
from typing import Any

import polars as pl

from tasks.clients import storage, table


def put(bucket: str, key: str, body: str) -> None:
    """Write an object."""
    storage.write_bytes(f"{bucket}/{key}", body.encode())


def lines(rows: int, kind: str = "") -> str:
    """Return so many task descriptions as JSONL, with a column `id`; those of another `kind` are others."""
    return as_lines({"task": f"match thing {kind}{row} with its name", "id": row} for row in range(rows))


def as_lines(rows: Iterable[dict[str, Any]]) -> str:
    """Return rows as JSONL."""
    return "\n".join(map(json.dumps, rows))


def read_table(uri: str, partition: str | None = None) -> pl.DataFrame:
    """Return the rows of a Delta table, or of one of its partitions; a frame without columns where there is none."""
    rows = table.scan(table.open_table(uri), partition)
    return pl.DataFrame() if rows is None else rows.collect()


def count_rows(uri: str, column: str) -> dict[str, int]:
    """Return how many rows of a Delta table there are by the value of a column; empty where there is no table."""
    rows = read_table(uri)
    return dict(rows[column].value_counts().iter_rows()) if rows.width else {}
