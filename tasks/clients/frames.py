"""Parquet and JSONL objects as frames: polars opens the storage itself where it streams."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from types import MappingProxyType
from typing import Any

import polars as pl

from tasks.clients.access import object_store_options
from tasks.clients.concealment import one_line
from tasks.clients.storage import read_bytes, write_bytes
from tasks.clients.storage_errors import DamagedError, storage_errors, translate_error
from tasks.core.errors import StorageError

# Of what is damaged, a thread of polars may break: no Exception of Python's.
PANIC = pl.exceptions.PanicException
UNREADABLE = (pl.exceptions.PolarsError, PANIC)


def read_frame(uri: str, columns: Mapping[str, Any] = MappingProxyType({})) -> pl.DataFrame:
    """Return one Parquet object as a frame, which has at least these columns.

    Raises:
        DamagedError: It is no such object.
    """
    data = read_bytes(uri)
    try:
        frame = pl.read_parquet(BytesIO(data))
    except UNREADABLE as error:
        raise _damaged(uri, _say(error)) from error
    if wrong := _find_wrong(frame.schema, columns):
        raise _damaged(uri, wrong)
    return frame


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
def whole_objects(
    find: Callable[[], list[str]],
    scan: Callable[[list[str]], pl.LazyFrame] = scan_frames,
    columns: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[None]:
    """Name the Parquet object that cannot be read, where one of them ends the block.

    Args:
        find: Returns the objects that the block reads.
        scan: How it opens them.
        columns: What each of them has to hold, with the types.

    Raises:
        DamagedError: What is to be done about it.
    """
    try:
        yield
    except (*UNREADABLE, StorageError) as error:
        cause = error if isinstance(error, UNREADABLE) else error.__cause__
        if not isinstance(cause, UNREADABLE):
            raise
        for uri in find():
            if damage := _find_damage(uri, scan, columns):
                raise _damaged(uri, damage) from error
        raise


def _find_damage(uri: str, scan: Callable[[list[str]], pl.LazyFrame], columns: Mapping[str, Any]) -> str:
    """Return what is wrong with an object, empty text where it can be read."""
    try:
        if wrong := _find_wrong(scan_frames([uri]).collect_schema(), columns):
            return wrong
        scan([uri]).select(pl.all().count()).collect(engine="streaming")
    except UNREADABLE as error:
        return _say(error)
    return ""


def _find_wrong(schema: Mapping[str, Any], columns: Mapping[str, Any]) -> str:
    """Return which of the columns is missing or of another type, empty text where none is."""
    for name, kind in columns.items():
        if name not in schema:
            return f"it has no column {name!r}"
        if schema[name] != kind:
            return f"its column {name!r} holds {schema[name]}, not {kind}"
    return ""


def _say(error: BaseException) -> str:
    return "polars breaks off reading it" if isinstance(error, PANIC) else one_line(str(error), 200)


def _damaged(uri: str, damage: str) -> DamagedError:
    return DamagedError(
        f"{uri} is no whole Parquet file: {damage}. Restore it from the bucket's versions, "
        "or, under journal/ or staging/ only, move it away: what it held is asked for anew. Then run again."
    )


def sink_frame(rows: pl.LazyFrame, uri: str) -> None:
    """Write a lazy frame as one Parquet object, in a stream, by polars itself.

    Raises:
        StorageError: The storage fails, or what the frame reads does.
    """
    with storage_errors(uri):
        try:
            rows.sink_parquet(uri, compression="zstd", storage_options=object_store_options(), credential_provider=None)
        except pl.exceptions.PolarsError as error:
            raise translate_error(error, uri) from error
