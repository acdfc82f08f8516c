"""Small JSON objects of ours: what of them can be read."""

import json
from typing import Any

from tasks.clients.storage import read_bytes
from tasks.clients.storage_errors import DamagedError


def read_document(uri: str, *names: str) -> dict[str, Any]:
    """Return the JSON object that is stored at `uri`.

    Raises:
        DamagedError: It is none, or has not all of these `names`.
    """
    found = parse_document(read_bytes(uri))
    if found is None or not found.keys() >= set(names):
        raise DamagedError(
            f"{uri} is no whole JSON object. Restore it from the bucket's versions, or move it away; then run again."
        )
    return found


def parse_document(data: bytes) -> dict[str, Any] | None:
    """Return the JSON object that `data` is, None where it is none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
