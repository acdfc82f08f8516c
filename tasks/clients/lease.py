"""A lease: one object that only one run can hold at a time."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.clients import storage
from tasks.core.errors import StorageError

LEASE_SECONDS = 900
POLL_SECONDS = 0.5


@contextmanager
def hold_lease(uri: str, owner: str, seconds: float = LEASE_SECONDS) -> Iterator[None]:
    """Hold the lease at `uri` inside the block, waiting while another owner has it.

    A lease whose owner died is taken over when it has expired: by a write that
    succeeds only if nobody else was faster.

    Raises:
        StorageError: It is still held by another owner after twice `seconds`.
    """
    deadline = time.monotonic() + 2 * seconds
    while not _take(uri, owner, seconds):
        if time.monotonic() > deadline:
            raise StorageError(f"Another run keeps {uri}. If none is alive, remove that object and run again.")
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        held = storage.find_bytes(uri)
        if held and json.loads(held[0])["owner"] == owner:
            storage.delete_prefix(uri)


def _take(uri: str, owner: str, seconds: float) -> bool:
    mine = json.dumps({"owner": owner, "expires": time.time() + seconds}).encode()
    if storage.create_bytes(uri, mine):
        return True
    held = storage.find_bytes(uri)
    if held is None or json.loads(held[0])["expires"] > time.time():
        return False
    return storage.replace_bytes(uri, mine, held[1])
