"""Reads one source object, in any of the formats, as frames of bounded size."""

import csv
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl

from tasks.clients.unpacking import measure_rows, split_lines, unpack, with_line_feeds
from tasks.core.counting import counted
from tasks.core.errors import SourceError
from tasks.core.source_columns import spell_ours
from tasks.core.width import check_columns

FORMATS = (".jsonl", ".ndjson", ".csv", ".parquet", ".txt")
COMPRESSIONS = (".gz", ".zst")
BATCH_ROWS = 20_000
# Of long rows a frame has fewer.
BATCH_BYTES = 64 << 20


def source_format(uri: str) -> str | None:
    """Return which of FORMATS the object is by its name, None for any other."""
    name = uri.lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return next((ending for ending in FORMATS if name.endswith(ending)), None)


def read_batches(path: Path, uri: str) -> Iterator[pl.DataFrame]:
    """Yield the rows of the local copy of `uri`, each frame with a text column `task`.

    `Task` and `Language`, in whatever case of letters, are `task` and `language` where
    there is none. Columns of CSV are text: that is what the file holds, and what stays
    the same from night to night. A plain text file has a description on each line.

    Raises:
        SourceError: The object cannot be read; names it, the line and the cause.
    """
    for batch in read_frames(path, uri):
        yield _with_text_task(batch, uri)


def read_frames(path: Path, uri: str) -> Iterator[pl.DataFrame]:
    """Yield the rows of the local copy of `uri`, whatever its columns; `task` is that of plain text.

    Raises:
        SourceError: The object cannot be read; names it, the line and the cause.
    """
    read = _READERS[source_format(uri) or ".txt"]
    if read is not _read_parquet and next(unpack(path, uri), b"").startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SourceError(f"{uri} is UTF-16 text. Save it as UTF-8, and run again.")
    try:
        yield from read(path, uri)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        cause = next(iter(str(error).splitlines()), "polars gave up")[:200]
        raise SourceError(f"{uri} cannot be read: {cause}. Mend or remove it, and run again.") from error


def _with_text_task(batch: pl.DataFrame, uri: str) -> pl.DataFrame:
    batch = batch.rename(spell_ours(batch.columns, uri))
    if "task" not in batch.columns:
        raise SourceError(
            f"{uri} has no column 'task'; its columns are: {', '.join(map(repr, batch.columns)) or 'none'}. "
            "Rename the one that holds the task descriptions."
        )
    if batch.schema["task"] not in (pl.String, pl.Null, pl.Categorical, pl.Enum):
        raise SourceError(f"{uri}: column 'task' holds {batch.schema['task']}, but descriptions are text.")
    if "language" in batch.columns and batch.schema["language"].is_nested():
        raise SourceError(
            f"{uri}: column 'language' holds {batch.schema['language']}, but a language is one name or code. "
            "Write a line for each language, or rename the column if it means something else."
        )
    return batch.with_columns(pl.col("task").cast(pl.String))


def _read_jsonl(path: Path, uri: str) -> Iterator[pl.DataFrame]:
    for first_line, piece in split_lines(unpack(path, uri), uri):
        if piece.strip():
            try:
                # Of some rows first: for very many columns the time grows with their square.
                for rows in (1_000, None):
                    schema = pl.scan_ndjson(piece, infer_schema_length=rows).collect_schema()
                    check_columns(schema, uri)
                yield pl.read_ndjson(piece, schema=schema)
            except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
                raise _broken_line(piece, first_line, uri, error) from error


def _broken_line(piece: bytes, first_line: int, uri: str, error: Exception) -> SourceError:
    """Find the line that broke the reading of `piece`."""
    for number, line in enumerate(piece.split(b"\n"), start=first_line):
        try:
            value = json.loads(line, parse_constant=_finite, parse_float=_finite) if line.strip() else {}
            cause = None if isinstance(value, dict) else "is not a JSON object"
        except ValueError as broken:
            cause = f"is not valid JSON ({broken})"
        except RecursionError:
            cause = "is nested too deep to be read"
        if cause:
            return SourceError(f"{uri}, line {number}, {cause}. Mend or remove the line, and run again.")
    last_line = first_line + piece.count(b"\n")
    reason = str(error).splitlines()[0][:200]
    return SourceError(f"{uri}, lines {first_line} to {last_line}: {reason}. Mend them, and run again.")


def _finite(text: str) -> float:
    """Read a number, which is none in JSON where it is NaN or infinite."""
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is no number there")
    return value


def _read_text(path: Path, uri: str) -> Iterator[pl.DataFrame]:
    # Unicode's other ends of a line are a part of the text.
    for first_line, piece in split_lines(with_line_feeds(unpack(path, uri)), uri):
        try:
            lines = piece.removesuffix(b"\n").decode().split("\n")
        except UnicodeDecodeError as error:
            number = first_line + piece[: error.start].count(b"\n")
            raise SourceError(f"{uri}, line {number}, is not UTF-8 text. Convert it, and run again.") from error
        yield pl.DataFrame({"task": lines}, schema={"task": pl.String})


def _read_csv(path: Path, uri: str) -> Iterator[pl.DataFrame]:
    if path.stat().st_size:
        rows = BATCH_BYTES / max(1, measure_rows(unpack(path, uri), uri))
        try:
            yield from _batches(pl.scan_csv(path, infer_schema=False), uri, rows)
        except pl.exceptions.PolarsError as error:
            raise _broken_row(path, uri) or error from error


def _broken_row(path: Path, uri: str) -> SourceError | None:
    """Find the row that polars could not read, since it does not say which; None where there is none."""
    lines = (line for _, piece in split_lines(unpack(path, uri), uri) for line in piece.splitlines(keepends=True))
    quotes = 0

    def decode() -> Iterator[str]:
        nonlocal quotes
        for line in lines:
            quotes += line.count(b'"')
            yield line.decode()

    rows = csv.reader(decode(), strict=True)
    number, width, cause = 1, 0, ""
    try:
        for row in rows:
            width = width or len(row)
            if len(row) > width:
                cause = f"has {counted(len(row), 'field')} where the first line has {width}"
                break
            if quotes % 2:
                cause = 'has a quote in a field that is not quoted: write it as "..." with each quote in it twice'
                break
            number = rows.line_num + 1
    except UnicodeDecodeError:
        cause = "is not UTF-8 text"
    except csv.Error as error:
        cause = f"is no CSV ({error})"
    return SourceError(f"{uri}, line {number}, {cause}. Mend or remove the line, and run again.") if cause else None


def _read_parquet(path: Path, uri: str) -> Iterator[pl.DataFrame]:
    if uri.lower().endswith(COMPRESSIONS):
        unpacked = path.with_suffix(".unpacked")
        with unpacked.open("wb") as target:
            target.writelines(unpack(path, uri))
        path = unpacked
    rows = pl.scan_parquet(path, hive_partitioning=False)
    named, found = rows.select(pl.len()).collect().item(), 0
    for batch in _batches(rows, uri):
        found += batch.height
        yield batch
    if found != named:
        # A thread of polars that breaks on a damaged page ends the frames as if there were no more.
        raise SourceError(
            f"{uri} cannot be read: it names {counted(named, 'row')}, and has {found:,}. Upload it again."
        )


def _batches(frame: pl.LazyFrame, uri: str, most_rows: float = BATCH_ROWS) -> Iterator[pl.DataFrame]:
    check_columns(frame.collect_schema(), uri)
    rows = max(1, min(BATCH_ROWS, int(most_rows)))
    yield from frame.collect_batches(chunk_size=rows, maintain_order=True, engine="streaming")


_READERS: dict[str, Callable[[Path, str], Iterator[pl.DataFrame]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".txt": _read_text,
}
