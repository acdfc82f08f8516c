"""A partition's Parquet files: written one after the other in the rows' order, and one commit that counts them in.

deltalake's own writer takes rows faster than it writes them and holds all that wait:
640 MB for a million pairs, where this takes 140.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import polars as pl
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.transaction import AddAction, RemoveAction

from tasks.clients import access, storage

# Of pairs about 4 MB; it is also the files' one row group.
FILE_ROWS = 50_000


def scan(held: DeltaTable) -> pl.LazyFrame:
    """Return the rows of a table at the version it was opened at."""
    return pl.scan_delta(held, storage_options=access.object_store_options(), credential_provider=None)


def read_schema(held: DeltaTable) -> dict[str, pl.DataType]:
    """Return the table's columns and their types."""
    return dict(scan(held).collect_schema())


def replace_rows(held: DeltaTable, rows: pl.LazyFrame, partition: str, what: CommitProperties) -> None:
    """Commit `rows` in the place of those that the partition has; see `add_rows`."""
    _commit(held, rows, partition, what, mode="overwrite", partition_filters=[("partition", "=", partition)])


def add_rows(held: DeltaTable, rows: pl.LazyFrame, partition: str, what: CommitProperties) -> None:
    """Commit `rows`, all of one partition, to a table at the version it was opened at.

    Columns that the table lacks are added to it before, by a commit of their own.

    Raises:
        CommitFailedError: Another commit since then is in its way.
        PolarsError: A column's type is not the table's.
        StorageError: The files cannot be written.
    """
    _commit(held, rows, partition, what, mode="append")


def _commit(held: DeltaTable, rows: pl.LazyFrame, partition: str, what: CommitProperties, **how: Any) -> None:
    schema = read_schema(held)
    if not rows.collect_schema().keys() <= schema.keys():
        write_deltalake(held, rows.head(0).collect(), mode="append", schema_mode="merge")
        held.update_incremental()
        schema = read_schema(held)
    fitting = rows.match_to_schema(schema, missing_columns="insert", integer_cast="upcast", float_cast="upcast")
    # deltalake has it as a URL.
    files = _write_files(unquote(held.table_uri).rstrip("/"), fitting.drop("partition"), partition)
    held.create_write_transaction(
        files, schema=held.schema(), partition_by=["partition"], commit_properties=what, **how
    )


def _write_files(uri: str, rows: pl.LazyFrame, partition: str) -> list[AddAction | RemoveAction]:
    # By name, files stand in the order they were written in, a later publish's after an earlier one's.
    began = time.time_ns() // 1_000_000
    files: list[AddAction | RemoveAction] = []
    # By way of this machine: polars goes on while an upload is waited for, and would hold what it has made.
    with tempfile.TemporaryDirectory(prefix="pairmill-") as folder:
        parts = pl.PartitionBy(folder, max_rows_per_file=FILE_ROWS)
        rows.sink_parquet(parts, compression="zstd", maintain_order=True)
        for number, part in enumerate(sorted(Path(folder).iterdir())):
            path = f"partition={partition}/{began}-{number:05}-{uuid4().hex[:16]}.parquet"
            storage.write_bytes(f"{uri}/{path}", part.read_bytes())
            stats = {"numRecords": pl.scan_parquet(part).select(pl.len()).collect().item()}
            size = part.stat().st_size
            files.append(
                AddAction(path, size, {"partition": partition}, began, data_change=True, stats=json.dumps(stats))
            )
    return files
