"""A journal in memory."""

from collections.abc import Mapping
from typing import Any

from tasks.core.errors import PairmillError


class Kept:
    """Keeps completions by their keys; `keys` are those of all that were appended, in their order."""

    def __init__(self) -> None:
        self.lost: PairmillError | None = None
        self.keys: list[str] = []
        self.completions: dict[str, Mapping[str, Any]] = {}
        self.flushed = 0

    def append(self, request_key: str, completion: Mapping[str, Any]) -> None:
        self.keys.append(request_key)
        self.completions[request_key] = completion

    def flush(self) -> None:
        self.flushed = len(self.completions)
