"""Finds what was paid for before: in bulk, by the keys of requests, never one by one."""

from contextlib import AbstractContextManager
from typing import Any

import polars as pl

from tasks.clients import frames, storage
from tasks.clients.leftovers import upload_leftovers
from tasks.core.columns import JOURNAL
from tasks.core.layout import Layout
from tasks.core.rules import CALL_FAILED

# A call that failed for good is no answer: any other completion of its key counts before it.
FAILED = pl.col("error").eq_missing(CALL_FAILED)
# What every version has written.
_ALWAYS = ("request_key", "text", "completed_at")
EARLIEST = (FAILED, pl.col("completed_at"), pl.col("segment"))


def find_recipes(layout: Layout) -> list[str]:
    """Return the prefix of each recipe's journal, in the order of their names."""
    uri = f"{layout.destination}/journal"
    names = {item.uri.removeprefix(f"{uri}/").partition("/")[0] for item in storage.list_folder(uri)}
    return [f"{uri}/{name}" for name in sorted(names) if name.startswith("recipe=")]


def find_segments(uri: str) -> list[str]:
    """Return the URIs of the recipe's segments, in the order of their names."""
    return [item.uri for item in storage.list_objects(uri) if item.uri.endswith(".parquet")]


def scan_segments(files: list[str], **options: Any) -> pl.LazyFrame:
    """Return JOURNAL's columns of these files, null where an older version had none; a newer one's are left out.

    polars reads those columns alone that are asked for. A column whose name is damaged is null, too: its completions
    are not found, and what removes files reads them by `scan_keyed`.
    """
    return frames.scan_frames(files, schema=JOURNAL, missing_columns="insert", extra_columns="ignore", **options)


def scan_keyed(files: list[str], **options: Any) -> pl.LazyFrame:
    """Return what `scan_segments` does, whole, where every row has its key; another ends `whole_segments`."""
    return scan_segments(files, **options).map_batches(_check_keys, streamable=True)


def _check_keys(rows: pl.DataFrame) -> pl.DataFrame:
    if rows["request_key"].null_count():
        raise pl.exceptions.ComputeError("a completion has no key")
    return rows


def whole_segments(uri: str) -> AbstractContextManager[None]:
    """Name the segment of the recipe's that cannot be read, where that ends the block; see `frames.whole_objects`."""
    return frames.whole_objects(lambda: find_segments(uri), scan_keyed, {name: JOURNAL[name] for name in _ALWAYS})


def look_up(uri: str, wanted: pl.LazyFrame, *, failures: bool = False) -> pl.LazyFrame:
    """Return every completion that the journal at `uri` has for the keys of `wanted`.

    What collects it is in `whole_segments`.

    Args:
        uri: The recipe's prefix.
        wanted: Column request_key, and any others, which travel along.
        failures: With calls that failed for good, too; they are kept only where another model could take over.

    Returns:
        JOURNAL's columns, `segment` and those of `wanted`, unsorted; a key may
        stand twice, see `keep_earliest`.
    """
    segments = find_segments(uri)
    if not segments:
        empty = pl.DataFrame(schema=JOURNAL | {"segment": pl.String}).lazy()
        return empty.join(wanted, on="request_key")
    known = scan_segments(segments, include_file_paths="segment")
    if not failures:
        known = known.filter(~FAILED)
    # The journal is the larger side, whatever polars guesses: it streams past the plan's keys.
    return known.join(wanted, on="request_key", build_side="force_right")


def keep_earliest(completions: pl.DataFrame) -> pl.DataFrame:
    """Keep one completion a key: the earliest answer, then the first by its segment's name."""
    return completions.sort(EARLIEST).unique("request_key", keep="first", maintain_order=True)


def find_paid(uri: str, wanted: pl.LazyFrame, *, failures: bool = False) -> pl.DataFrame:
    """Return one completion for each key of `wanted` that was paid for, as far as that is known here.

    What a process has left on this machine goes to the bucket first. Arguments and columns as of `look_up`.

    Raises:
        StorageError: The bucket does not take it.
    """
    upload_leftovers(uri)
    with whole_segments(uri):
        return keep_earliest(look_up(uri, wanted, failures=failures).collect(engine="streaming"))
