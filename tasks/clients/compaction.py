"""The journal's upkeep: many small segments become few large files, sorted by key.

A compacted file lies beside a list of what it replaces. What is listed is deleted
a day later, so that a run which has looked at the folder before still finds it.
"""

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl

from tasks.clients import frames, storage
from tasks.clients.lease import Lease, hold_lease
from tasks.clients.lookup import EARLIEST, scan_keyed, whole_segments
from tasks.clients.storage import StoredObject
from tasks.core.counting import counted
from tasks.core.errors import StorageError

# Files above this size are left as they are.
LARGE_BYTES = 128 << 20
KEEP_REPLACED = timedelta(days=1)


@dataclass(frozen=True)
class Compaction:
    """What was done: files merged into one, files deleted."""

    merged: int = 0
    deleted: int = 0


def lease_of(uri: str) -> str:
    """The object that only one run which replaces files of a recipe's journal can hold."""
    return f"{uri}/compaction.lease"


def compact_recipe(uri: str, owner: str, now: datetime, oldest: datetime | None = None) -> Compaction:
    """Merge the small files of one recipe's journal, and delete those that were replaced a day ago.

    Args:
        uri: The recipe's prefix.
        owner: Who does it.
        now: The time.
        oldest: Completions from before this are left out, and files from before it deleted. None: all are kept.
    """
    with hold_lease(lease_of(uri), owner) as lease:
        found = storage.list_objects(uri)
        lists = {item: _read_list(item) for item in found if item.uri.endswith(".replaces.json")}
        due = [item for item in lists if item.modified < now - KEEP_REPLACED]
        gone = {name for item in due for name in lists[item]}
        replaced = {name for names in lists.values() for name in names}
        files = [item for item in found if item.uri.endswith(".parquet") and item.uri not in replaced]
        expired = [item.uri for item in files if oldest is not None and item.modified < oldest]
        present = {item.uri for item in found}
        deleted = [*(gone & present), *expired]
        # The list goes last: what it names must not be merged a second time.
        storage.delete_objects(deleted)
        storage.delete_objects([item.uri for item in due])
        small = [item for item in files if item.uri not in expired and item.size < LARGE_BYTES]
        if len(small) > 1:
            with whole_segments(uri):
                _merge(uri, small, oldest, lease)
    return Compaction(len(small) if len(small) > 1 else 0, len(deleted))


def _merge(uri: str, files: list[StoredObject], oldest: datetime | None, lease: Lease) -> None:
    names = [item.uri for item in files]
    target = f"{uri}/compacted/{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:12]}"
    rows = scan_keyed(names, include_file_paths="segment")
    if oldest is not None:
        rows = rows.filter(pl.col("completed_at") >= oldest)
    earliest = (
        rows.sort("request_key", *EARLIEST).unique("request_key", keep="first", maintain_order=True).drop("segment")
    )
    frames.sink_frame(earliest, f"{target}.parquet")
    try:
        lease.check()
    except StorageError:
        # Who has it now may have erased what was read before.
        storage.delete_objects([f"{target}.parquet"])
        raise
    wanted = rows.select(pl.col("request_key").n_unique()).collect(engine="streaming").item()
    written = frames.scan_frames([f"{target}.parquet"]).select(pl.len()).collect().item()
    if written != wanted:
        storage.delete_objects([f"{target}.parquet"])
        raise StorageError(
            f"{target}.parquet held {written:,} of {counted(wanted, 'completion')}. Nothing was removed; run again."
        )
    storage.write_bytes(f"{target}.replaces.json", json.dumps(names).encode())


def _read_list(item: StoredObject) -> list[str]:
    try:
        names = json.loads(storage.read_bytes(item.uri))
    except (ValueError, RecursionError):
        # What it named is merged again, and each key is kept once.
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
