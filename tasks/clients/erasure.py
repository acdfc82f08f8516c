"""Erases what belongs to one task description out of files that hold more than that."""

import json
import uuid
from typing import Any

import polars as pl

from tasks.clients import storage

_HASH, _KEY = "description_hash", "request_key"


def find_rows(uris: list[str], digest: str) -> pl.DataFrame:
    """Return the rows of these Parquet objects that belong to the description with this hash.

    Returns:
        Columns request_key and those of task, input, positive_document and text that there are.
    """
    found = [pl.DataFrame(schema={_KEY: pl.String})]
    for uri in uris:
        rows = storage.scan_frames([uri])
        names = rows.collect_schema().names()
        if _HASH in names:
            wanted = [name for name in (_KEY, "task", "input", "positive_document", "text") if name in names]
            found.append(rows.filter(pl.col(_HASH) == digest).select(wanted).collect(engine="streaming"))
    return pl.concat(found, how="diagonal_relaxed")


def erase_completions(uri: str, keys: pl.Series, description: str) -> int:
    """Replace a journal file by one without these keys or texts that hold the description; return how many.

    A brainstormed list holds it as JSON does.
    """
    rows = storage.scan_frames([uri])
    quoted = [json.dumps(description, ensure_ascii=plain)[1:-1] for plain in (True, False)]
    holds = pl.any_horizontal(pl.col("text").str.contains(text, literal=True) for text in (description, *quoted))
    rest = rows.filter(~(pl.col(_KEY).is_in(keys.implode()) | holds.fill_null(value=False)))
    before = rows.select(pl.len()).collect().item()
    after = rest.select(pl.len()).collect(engine="streaming").item()
    if after < before:
        if after:
            storage.sink_frame(rest, f"{uri.removesuffix('.parquet')}-{uuid.uuid4().hex[:8]}.parquet")
        storage.delete_objects([uri])
    return int(before - after)


def erase_texts(uri: str, texts: set[str]) -> int | None:
    """Remove from one object whatever has one of these texts as a value; return how many rows or items.

    Parquet, JSON and JSON lines are understood. None: the object is of another kind and holds one of them.
    """
    data = storage.read_bytes(uri)
    if uri.endswith(".parquet"):
        frame = storage.read_frame(uri)
        strings = [name for name, dtype in frame.schema.items() if dtype == pl.String]
        rest = frame.filter(~pl.any_horizontal(pl.col(strings).is_in(list(texts)))) if strings else frame
        if rest.height < frame.height:
            storage.write_frame(rest, uri)
        return frame.height - rest.height
    if uri.endswith((".jsonl", ".json")):
        lines = data.decode().splitlines() if uri.endswith(".jsonl") else [data.decode()]
        kept = [_without(json.loads(line), texts) for line in lines if line.strip()]
        removed = sum(count for _, count in kept)
        if removed:
            written = (json.dumps(value, ensure_ascii=False) for value, _ in kept if value is not None)
            storage.write_bytes(uri, "".join(f"{line}\n" for line in written).encode())
        return removed
    return None if any(text.encode() in data for text in texts) else 0


def _without(value: Any, texts: set[str]) -> tuple[Any, int]:
    """Return a JSON value without the objects that hold one of the texts, None for itself, and how many those were."""
    if isinstance(value, dict):
        if any(isinstance(held, str) and held in texts for held in value.values()):
            return None, 1
        parts = {name: _without(held, texts) for name, held in value.items() if name not in texts}
        return {name: held for name, (held, _) in parts.items()}, sum(count for _, count in parts.values())
    if isinstance(value, list):
        items = [(item, *_without(item, texts)) for item in value if not (isinstance(item, str) and item in texts)]
        kept = [new for old, new, _ in items if new is not None or old is None]
        return kept, sum(count for _, _, count in items) + len(value) - len(items)
    return value, 0
