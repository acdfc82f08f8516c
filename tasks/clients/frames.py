"""Parquet and JSONL objects as frames: polars opens the storage itself where it streams."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import polars as pl

from tasks.clients.access import object_store_options
from tasks.clients.concealment import one_line
from tasks.clients.storage import read_bytes, write_bytes
from tasks.clients.storage_errors import storage_errors, translate_error
from tasks.core.errors import StorageError


def read_frame(uri: str) -> pl.DataFrame:
    """Return one Parquet object as a frame."""
    return pl.read_parquet(BytesIO(read_bytes(uri)))


def write_frame(frame: pl.DataFrame, uri: str) -> None:
    """Write a frame as one Parquet object."""
    buffer = BytesIO()
    frame.write_parquet(buffer, statistics=False)
    write_bytes(uri, buffer.getvalue())


def sink_frames(frames: Mapping[str, pl.LazyFrame]) -> None:
    """Write each lazy frame as one new object, .parquet or .jsonl, in one stream over what they share."""
    options: dict[str, Any] = {
        "storage_options": object_store_options(),
        "credential_provider": None,
        "maintain_order": True,
        "lazy": True,
    }
    sinks = [
        rows.sink_parquet(uri, compression="zstd", row_group_size=50_000, **options)
        if uri.endswith(".parquet")
        else rows.sink_ndjson(uri, **options)
        for uri, rows in frames.items()
    ]
    with storage_errors(next(iter(frames), "")):
        pl.collect_all(sinks, engine="streaming")


def scan_frames(uris: list[str], **options: Any) -> pl.LazyFrame:
    """Return a lazy frame over Parquet objects, read by polars itself."""
    return pl.scan_parquet(
        uris,
        storage_options=object_store_options(),
        credential_provider=None,
        hive_partitioning=False,
        **options,
    )


@contextmanager
def whole_objects(find: Callable[[], list[str]]) -> Iterator[None]:
    """Name the Parquet object that cannot be read, of those that `find` returns, where one of them ends the block.

    Raises:
        StorageError: What is to be done about it.
    """
    try:
        yield
    except (pl.exceptions.PolarsError, StorageError) as error:
        cause = error if isinstance(error, pl.exceptions.PolarsError) else error.__cause__
        broken = next(filter(_is_broken, find()), "") if isinstance(cause, pl.exceptions.PolarsError) else ""
        if not broken:
            raise
        raise StorageError(
            f"{broken} is no whole Parquet file: {one_line(str(cause), 200)}. Restore it from the bucket's versions, "
            "or, under journal/ or staging/ only, move it away: what it held is asked for anew. Then run again."
        ) from error


def _is_broken(uri: str) -> bool:
    try:
        scan_frames([uri]).select(pl.all().count()).collect(engine="streaming")
    except pl.exceptions.PolarsError:
        return True
    return False


def sink_frame(rows: pl.LazyFrame, uri: str) -> None:
    """Write a lazy frame as one Parquet object, in a stream, by polars itself."""
    with storage_errors(uri):
        try:
            rows.sink_parquet(uri, compression="zstd", storage_options=object_store_options(), credential_provider=None)
        except pl.exceptions.PolarsError as error:
            raise translate_error(error, uri) from error
