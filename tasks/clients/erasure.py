"""Erases what belongs to one task description out of files that hold more than that."""

import html
import json
import uuid
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import polars as pl

from tasks.clients import frames, storage
from tasks.clients.storage_errors import DamagedError
from tasks.core.linting import RAW, lists_description
from tasks.core.markdown import escape
from tasks.core.requests import normalise_description
from tasks.core.showing import shown

# So much of a text is looked for in a page; a raw reply of less is not: "{}" is in every page.
PAGE_CHARACTERS, LEAST_CHARACTERS = 60, 16
_HASH, _KEY = "description_hash", "request_key"
# What the two texts of a pair are called, in our tables and in each format of an export.
_PAIR_NAMES = (("input", "positive_document"), ("anchor", "positive"), ("query", "pos"))
ByHand = Literal["holds it", "cannot be read"]


@dataclass(frozen=True)
class Forgotten:
    """One description, its hash, the pairs (input, positive document) and the raw replies that were made for it."""

    description: str
    digest: str
    pairs: frozenset[tuple[Any, Any]]
    replies: frozenset[str] = frozenset()


def find_rows(uris: list[str], digest: str) -> pl.DataFrame:
    """Return the rows of these Parquet objects that belong to the description with this hash.

    Returns:
        Columns request_key and those of task, input, positive_document and text that there are.
    """
    found = [pl.DataFrame(schema={_KEY: pl.String})]
    for uri in uris:
        with frames.whole_objects(partial(list, [uri])):
            rows = frames.scan_frames([uri])
            names = rows.collect_schema().names()
            if _HASH in names:
                wanted = [name for name in (_KEY, "task", "input", "positive_document", "text") if name in names]
                found.append(rows.filter(pl.col(_HASH) == digest).select(wanted).collect(engine="streaming"))
    return pl.concat(found, how="diagonal_relaxed")


def erase_completions(uri: str, keys: pl.Series, listed: str) -> int:
    """Replace a journal file by one without these keys; return how many completions went.

    Where the completions are lists of descriptions, those with the description `listed` go, too; empty for none.
    """
    rows = frames.scan_frames([uri])
    theirs = pl.col(_KEY).is_in(keys.implode())
    if listed:
        texts = rows.select("text").drop_nulls().unique().collect()["text"]
        holding = pl.Series([text for text in texts if lists_description(text, listed)], dtype=pl.String)
        theirs |= pl.col("text").is_in(holding.implode()).fill_null(value=False)
    rest = rows.filter(~theirs)
    before = rows.select(pl.len()).collect().item()
    after = rest.select(pl.len()).collect(engine="streaming").item()
    if after < before:
        if after:
            frames.sink_frame(rest, f"{uri.removesuffix('.parquet')}-{uuid.uuid4().hex[:8]}.parquet")
        storage.delete_objects([uri])
    return int(before - after)


def erase_description(uri: str, forgotten: Forgotten) -> int | ByHand:
    """Remove from one object what belongs to the description; return how many rows or items.

    Parquet, JSON and JSON lines are understood; of others, and of damaged ones, it says why only a hand can edit them.
    """
    data = storage.read_bytes(uri)
    try:
        return _erase_rows(uri, data, forgotten)
    except (ValueError, RecursionError, pl.exceptions.PolarsError, DamagedError):
        return "cannot be read"


def _erase_rows(uri: str, data: bytes, forgotten: Forgotten) -> int | ByHand:
    if uri.endswith(".parquet"):
        frame = frames.read_frame(uri)
        rest = frame.filter(~_theirs(frame, forgotten))
        if rest.height < frame.height:
            frames.write_frame(rest, uri)
        return frame.height - rest.height
    if uri.endswith((".jsonl", ".json")):
        lines = data.decode().split("\n") if uri.endswith(".jsonl") else [data.decode()]
        kept = [_without(json.loads(line), forgotten) for line in lines if line.strip()]
        removed = sum(count for _, count in kept)
        if removed:
            written = (json.dumps(value, ensure_ascii=False) for value, _ in kept if value is not None)
            storage.write_bytes(uri, "".join(f"{line}\n" for line in written).encode())
        return removed
    return "holds it" if forgotten.description.encode() in data else 0


def shows(page: bytes, forgotten: Forgotten) -> bool:
    """Whether a page of HTML or Markdown shows the description, both texts of one of its pairs, or a raw reply."""
    text = page.decode(errors="replace")

    def holds(said: Any) -> bool:
        # Pages cut long texts.
        start = " ".join(str(said).split())[:PAGE_CHARACTERS]
        return any(form in text for form in (start, html.escape(shown(start)), escape(start)))

    replies = (reply for reply in forgotten.replies if len(reply.strip()) >= LEAST_CHARACTERS)
    pairs = any(all(map(holds, pair)) for pair in forgotten.pairs)
    return holds(forgotten.description) or pairs or any(map(holds, replies))


def _theirs(frame: pl.DataFrame, forgotten: Forgotten) -> pl.Series:
    """Tell the rows that belong to the description: by its hash where they carry it, else by their pair."""
    if _HASH in frame.columns:
        return frame[_HASH].eq_missing(forgotten.digest)
    for names in _PAIR_NAMES:
        if set(names) <= set(frame.columns) and all(frame.schema[name] == pl.String for name in names):
            return pl.Series([pair in forgotten.pairs for pair in frame.select(names).iter_rows()], dtype=pl.Boolean)
    return pl.repeat(value=False, n=frame.height, eager=True)


def _without(value: Any, forgotten: Forgotten) -> tuple[Any, int]:
    """Return a JSON value without what belongs to the description, None for itself, and how many items that was."""
    if isinstance(value, dict):
        if _is_theirs(value, forgotten):
            return None, 1
        if isinstance(value.get("query"), str) and isinstance(value.get("pos"), list):
            theirs = {positive for query, positive in forgotten.pairs if query == value["query"]}
            left = [text for text in value["pos"] if not (isinstance(text, str) and text in theirs)]
            return (value | {"pos": left}) if left or not value["pos"] else None, len(value["pos"]) - len(left)
        named = value.keys() & {forgotten.description}
        parts = {name: _without(held, forgotten) for name, held in value.items() if name not in named}
        return {name: held for name, (held, _) in parts.items()}, sum(count for _, count in parts.values()) + len(named)
    if isinstance(value, list):
        items = [(item, *_without(item, forgotten)) for item in value if item != forgotten.description]
        kept = [new for old, new, _ in items if new is not None or old is None]
        return kept, sum(count for _, _, count in items) + len(value) - len(items)
    return value, 0


def _is_theirs(value: dict[str, Any], forgotten: Forgotten) -> bool:
    """Whether all of an object of JSON belongs to the description."""
    said = value.get("task")
    if isinstance(said, str):
        if normalise_description(said) == forgotten.description:
            return True
        # A brainstormed reply that was turned down whole.
        reasons = value.get("reasons")
        raw = isinstance(reasons, list) and any(reason in reasons for reason in RAW)
        if raw and lists_description(said, forgotten.description):
            return True
    pairs = [tuple(value[name] for name in names) for names in _PAIR_NAMES if value.keys() >= set(names)]
    if any(all(isinstance(text, str) for text in pair) and pair in forgotten.pairs for pair in pairs):
        return True
    return isinstance(value.get("text"), str) and value["text"] in forgotten.replies
