"""Parquet and JSONL objects as frames: polars opens the storage itself where it streams."""

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import polars as pl

from tasks.clients.access import object_store_options
from tasks.clients.storage import read_bytes, write_bytes
from tasks.clients.storage_errors import storage_errors, translate_error


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


def sink_frame(rows: pl.LazyFrame, uri: str) -> None:
    """Write a lazy frame as one Parquet object, in a stream, by polars itself."""
    with storage_errors(uri):
        try:
            rows.sink_parquet(uri, compression="zstd", storage_options=object_store_options(), credential_provider=None)
        except pl.exceptions.PolarsError as error:
            raise translate_error(error, uri) from error
