"""Reads one source object, in any of the formats, as frames of bounded size."""

import csv
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl

from tasks.core.columns import spell_ours
from tasks.core.errors import SourceError

FORMATS = (".jsonl", ".ndjson", ".csv", ".parquet", ".txt")
COMPRESSIONS = (".gz", ".zst")
BATCH_ROWS = 20_000
PIECE_BYTES = 2 << 20


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
    try:
        yield from read(path, uri)
    except pl.exceptions.PolarsError as error:
        cause = str(error).splitlines()[0][:200]
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
    return batch.with_columns(pl.col("task").cast(pl.String))


def _read_jsonl(path: Path, uri: str) -> Iterator[pl.DataFrame]:
    first_line = 1
    for piece in _pieces(path, uri):
        if piece.strip():
            try:
                yield pl.read_ndjson(piece, infer_schema_length=None)
            except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
                raise _broken_line(piece, first_line, uri, error) from error
        first_line += piece.count(b"\n")


def _broken_line(piece: bytes, first_line: int, uri: str, error: Exception) -> SourceError:
    """Find the line that broke the reading of `piece`."""
    for number, line in enumerate(piece.split(b"\n"), start=first_line):
        try:
            value = json.loads(line) if line.strip() else {}
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


def _read_text(path: Path, uri: str) -> Iterator[pl.DataFrame]:
    first_line = 1
    for piece in _pieces(path, uri):
        # Unicode's other ends of a line are a part of the text.
        ended = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        try:
            lines = ended.removesuffix(b"\n").decode().split("\n")
        except UnicodeDecodeError as error:
            number = first_line + ended[: error.start].count(b"\n")
            raise SourceError(f"{uri}, line {number}, is not UTF-8 text. Convert it, and run again.") from error
        yield pl.DataFrame({"task": lines}, schema={"task": pl.String})
        first_line += ended.count(b"\n")


def _read_csv(path: Path, uri: str) -> Iterator[pl.DataFrame]:
    if path.stat().st_size:
        try:
            yield from _batches(pl.scan_csv(path, infer_schema=False))
        except pl.exceptions.PolarsError as error:
            raise _broken_row(path, uri) or error from error


def _broken_row(path: Path, uri: str) -> SourceError | None:
    """Find the row that polars could not read, since it does not say which; None where there is none."""
    texts = (line.decode() for piece in _pieces(path, uri) for line in piece.splitlines(keepends=True))
    rows = csv.reader(texts, strict=True)
    number, width, cause = 1, 0, ""
    try:
        for row in rows:
            width = width or len(row)
            if len(row) > width:
                cause = f"has {len(row)} fields where the first line has {width}"
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
            target.writelines(_unpack(path, uri))
        path = unpacked
    yield from _batches(pl.scan_parquet(path, hive_partitioning=False))


def _batches(frame: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    yield from frame.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True, engine="streaming")


def _pieces(path: Path, uri: str) -> Iterator[bytes]:
    """Yield the unpacked bytes in pieces that end at the end of a line, without a byte order mark."""
    rest = b""
    for number, block in enumerate(_unpack(path, uri)):
        rest += block.removeprefix(b"\xef\xbb\xbf") if number == 0 else block
        cut = rest.rfind(b"\n") + 1
        if cut:
            yield rest[:cut]
            rest = rest[cut:]
    if rest:
        yield rest


def _unpack(path: Path, uri: str) -> Iterator[bytes]:
    import zstandard  # noqa: PLC0415  (only needed where a source is packed)

    name = uri.lower()
    opener: Callable[..., object] = (
        gzip.open if name.endswith(".gz") else zstandard.open if name.endswith(".zst") else open
    )
    try:
        with opener(path, "rb") as stream:  # type: ignore[attr-defined]
            while block := stream.read(PIECE_BYTES):
                yield block
    except (OSError, EOFError, zstandard.ZstdError) as error:
        raise SourceError(f"{uri} cannot be unpacked: {error}. Upload it again.") from error


_READERS: dict[str, Callable[[Path, str], Iterator[pl.DataFrame]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".txt": _read_text,
}
