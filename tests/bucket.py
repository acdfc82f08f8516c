"""What tests put into a bucket, and what they read out of it."""

import json
from collections.abc import Iterable
from typing import Any

import boto3
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


def everything(bucket: str) -> dict[str, bytes]:
    """Return every object of the bucket, Parquet unpacked."""
    s3, name = boto3.client("s3"), bucket.removeprefix("s3://")
    found = {}
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=name):
        for item in page.get("Contents", []):
            data = s3.get_object(Bucket=name, Key=item["Key"])["Body"].read()
            if item["Key"].endswith(".parquet"):
                data += pl.read_parquet(data).write_ndjson().encode()
            found[item["Key"]] = data
    return found


def list_parts(uri: str) -> list[str]:
    """Return what stands first below `uri` in the name of each object there."""
    return [item.uri.removeprefix(f"{uri}/").partition("/")[0] for item in storage.list_objects(uri)]
