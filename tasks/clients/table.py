"""Delta tables: what a destination holds, and the commits that publish a partition."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast
from urllib.parse import unquote

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from tasks.clients import access, storage_errors, table_files
from tasks.core.errors import StorageError, UsageError
from tasks.core.layout import TABLES

COMMIT_ATTEMPTS = 5
# How far back a commit of our own is looked for.
RECENT_COMMITS = 50

# A table at one pinned version, None where nothing was published yet.
Table = DeltaTable | None


def open_table(uri: str, version: int | None = None) -> Table:
    """Return the table at one version, the newest unless given; None where none was published yet."""
    with table_errors(uri):
        try:
            return DeltaTable(uri, version=version, storage_options=access.object_store_options())
        except TableNotFoundError:
            return None


def check_outside(destination: str) -> None:
    """Check that `destination` lies in no table: an upkeep of that one would remove what it does not know.

    Raises:
        UsageError: It does; names the table and its destination.
    """
    parts = destination.split("/")
    for end in (end for end, name in enumerate(parts) if end > 2 and name in TABLES):
        if open_table(uri := "/".join(parts[: end + 1])) is not None:
            raise UsageError(
                f"--destination is {destination!r}, which lies in the table {uri} of the destination "
                f"{'/'.join(parts[:end])}. Name that one, or a place beside it."
            )


def scan(table: Table, partition: str | None = None) -> pl.LazyFrame | None:
    """Return the rows of one pinned table version, or of one of its partitions; None without a table."""
    if table is None:
        return None
    rows = table_files.scan(table)
    return rows if partition is None else rows.filter(pl.col("partition") == partition)


def partition_files(table: DeltaTable, partition: str) -> list[str]:
    """Return the URIs of the Parquet files that a partition consists of."""
    # deltalake writes them as URLs; readers of S3 take a % as it is.
    return sorted(map(unquote, table.file_uris(file_pruning_predicate=[("partition", "=", partition)])))


def read_schema(table: Table) -> dict[str, pl.DataType]:
    """Return the published columns and their types, none where there is no table."""
    return table_files.read_schema(table) if table is not None else {}


def last_publish(table: Table, partition: str) -> int:
    """Return the number of the partition's last publish, 0 before the first."""
    return (table.transaction_version(_application(partition)) or 0) if table is not None else 0


@dataclass(frozen=True)
class Publish:
    """One publish of one partition, as its commits carry it.

    `number` is one above the partition's last publish, `mark` tells this publish
    from any other attempt at that number.
    """

    partition: str
    run_id: str
    mark: str
    number: int


def publish(uri: str, rows: pl.LazyFrame, what: Publish, *, overwrite: bool) -> None:
    """Commit `rows` to one partition of the table, at once or not at all.

    A commit that lost a race against another partition is tried again, one whose
    reply was lost is recognised by its mark. Delta refuses it where another run
    has published the partition since `what` was numbered.

    Raises:
        StorageError: The table does not take it; nothing of it is visible.
    """
    ensure_table(uri, rows.head(0).collect())
    failure: Exception | None = None
    for _ in range(COMMIT_ATTEMPTS):
        held = open_table(uri)
        if last_publish(held, what.partition) >= what.number:
            if find_publish(held, what.mark) is not None:
                return
            raise storage_errors.TransientStorageError(
                f"Another run has published {what.partition} to {uri} meanwhile. Run again; what was paid for is kept."
            )
        if isinstance(failure, StorageError):
            raise failure
        try:
            _commit(cast("DeltaTable", held), rows, what, overwrite=overwrite)
        except (CommitFailedError, StorageError) as error:
            failure = error
        else:
            return
    raise StorageError(f"{uri} does not take the commit: {failure}. Nothing of it is visible; run again.") from failure


def _commit(held: DeltaTable, rows: pl.LazyFrame, what: Publish, *, overwrite: bool) -> None:
    marks = {"run_id": what.run_id, "partition": what.partition, "publish": what.mark, "number": str(what.number)}
    numbered = [Transaction(_application(what.partition), what.number)]
    commit = table_files.replace_rows if overwrite else table_files.add_rows
    with table_errors(held.table_uri):
        # The table as it was opened: what another run commits after that is a conflict.
        commit(held, rows, what.partition, CommitProperties(custom_metadata=marks, app_transactions=numbered))


def take_back(uri: str, partition: str, run_id: str, number: int) -> None:
    """Bring a partition back to its rows before the publishes above `number`, by one commit.

    Where the history does not tell them any more, the partition is left without rows.
    """
    held = cast("DeltaTable", open_table(uri))
    undone = [
        int(commit["version"])
        for commit in held.history()
        if commit.get("partition") == partition and int(commit["number"]) > number
    ]
    before = scan(open_table(uri, min(undone) - 1) if undone else held, partition)
    rows = cast("pl.LazyFrame", before)
    _commit(held, rows if undone else rows.clear(), Publish(partition, run_id, "", number), overwrite=True)


def published_partitions(table: Table) -> list[str]:
    """Return the partitions that the table has rows of."""
    return sorted(str(one["partition"]) for one in table.partitions()) if table is not None else []


def find_publish(table: Table, mark: str) -> int | None:
    """Return the version that the publish with this mark made, None where it made none."""
    commits = table.history(RECENT_COMMITS) if table is not None else []
    return next((int(commit["version"]) for commit in commits if commit.get("publish") == mark), None)


def ensure_table(uri: str, empty: pl.DataFrame) -> None:
    """Make an empty table with the columns of `empty` unless there is one.

    Apart from the first commit, because of several first commits at once only some succeed.

    Raises:
        StorageError: It can neither be made nor opened.
    """
    for _ in range(COMMIT_ATTEMPTS):
        if open_table(uri) is not None:
            return
        try:
            with table_errors(uri):
                write_deltalake(
                    uri,
                    empty,
                    partition_by=["partition"],
                    mode="ignore",
                    storage_options=access.object_store_options(),
                )
        except CommitFailedError:
            continue
    raise StorageError(f"The table {uri} cannot be made: other writers are always faster. Run again.")


def _application(partition: str) -> str:
    return f"publish/{partition}"


@contextmanager
def table_errors(uri: str) -> Iterator[None]:
    """Translate deltalake's and polars' errors about `uri`; conflicts and absence pass."""
    try:
        yield
    except (CommitFailedError, TableNotFoundError):
        raise
    except (DeltaError, OSError, pl.exceptions.PolarsError) as error:
        raise storage_errors.translate_error(error, uri) from error
