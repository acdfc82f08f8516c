"""Delta tables: what a destination holds, and the commits that publish a partition."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from tasks.clients import storage
from tasks.core.errors import StorageError

COMMIT_ATTEMPTS = 5

# A table at one pinned version, None where nothing was published yet.
Table = DeltaTable | None


def open_table(uri: str) -> Table:
    """Return the table at its newest version, None where none was published yet."""
    with _table_errors(uri):
        try:
            return DeltaTable(uri, storage_options=storage.object_store_options())
        except TableNotFoundError:
            return None


def scan(table: Table, partition: str | None = None) -> pl.LazyFrame | None:
    """Return the rows of one pinned table version, or of one of its partitions; None without a table."""
    if table is None:
        return None
    rows = pl.scan_delta(table, storage_options=storage.object_store_options(), credential_provider=None)
    return rows if partition is None else rows.filter(pl.col("partition") == partition)


def partition_files(table: DeltaTable, partition: str) -> list[str]:
    """Return the URIs of the Parquet files that a partition consists of."""
    return sorted(table.file_uris(file_pruning_predicate=[("partition", "=", partition)]))


def read_schema(table: Table) -> dict[str, pl.DataType]:
    """Return the published columns and their types, none where there is no table."""
    rows = scan(table)
    return dict(rows.collect_schema()) if rows is not None else {}


def last_publish(table: Table, partition: str) -> int:
    """Return the number of the partition's last publish, 0 before the first."""
    return (table.transaction_version(_application(partition)) or 0) if table is not None else 0


def publish(uri: str, rows: pl.LazyFrame, *, partition: str, run_id: str, overwrite: bool) -> int:
    """Commit `rows` to one partition of the table, at once or not at all, and return the version.

    The rows' order is not kept. A commit that lost a race against another partition is tried again, and one
    whose reply was lost is recognised by its run id.

    Raises:
        StorageError: The table does not take it; nothing of it is visible.
    """
    ensure_table(uri, rows.head(0).collect())
    for attempt in range(COMMIT_ATTEMPTS):
        table = open_table(uri)
        published = _find_commit(table, run_id)
        if published is not None:
            return published
        properties = CommitProperties(
            custom_metadata={"run_id": run_id},
            app_transactions=[Transaction(_application(partition), last_publish(table, partition) + 1)],
        )
        # deltalake spreads a stream's frames over the cores: published rows keep no order.
        stream: Any = rows.collect_batches(lazy=True, maintain_order=True, engine="streaming")
        where: Any = (
            {"mode": "overwrite", "predicate": f"partition = '{partition}'"} if overwrite else {"mode": "append"}
        )
        try:
            with _table_errors(uri):
                write_deltalake(
                    uri,
                    stream,
                    **where,
                    schema_mode="merge",
                    storage_options=storage.object_store_options(),
                    commit_properties=properties,
                    writer_properties=WriterProperties(compression="ZSTD"),
                )
        except CommitFailedError as error:
            if attempt + 1 == COMMIT_ATTEMPTS:
                raise StorageError(
                    f"{uri} does not take the commit: {error}. Nothing of it is visible; run again."
                ) from error
    table = open_table(uri)
    version = _find_commit(table, run_id)
    if version is None:
        raise StorageError(f"{uri} does not show the commit of run {run_id}. Run again; what was paid for is kept.")
    return version


def ensure_table(uri: str, empty: pl.DataFrame) -> None:
    """Make an empty table with the columns of `empty` unless there is one.

    Apart from the first commit, because of several first commits at once only some succeed.
    """
    for _ in range(COMMIT_ATTEMPTS):
        if open_table(uri) is not None:
            return
        try:
            with _table_errors(uri):
                write_deltalake(
                    uri,
                    empty,
                    partition_by=["partition"],
                    mode="ignore",
                    storage_options=storage.object_store_options(),
                )
        except CommitFailedError:
            continue
    raise StorageError(f"The table {uri} cannot be made: other writers are always faster. Run again.")


def _find_commit(table: Table, run_id: str) -> int | None:
    if table is None:
        return None
    for commit in table.history(50):
        if commit.get("run_id") == run_id:
            return int(commit["version"])
    return None


def _application(partition: str) -> str:
    return f"publish/{partition}"


@contextmanager
def _table_errors(uri: str) -> Iterator[None]:
    """Translate deltalake's and polars' errors about `uri`; conflicts and absence pass."""
    try:
        yield
    except (CommitFailedError, TableNotFoundError):
        raise
    except (DeltaError, OSError, pl.exceptions.PolarsError) as error:
        raise storage.translate_error(error, uri) from error
