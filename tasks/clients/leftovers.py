"""Completions that this machine alone holds: local files of the journal on their way to the bucket."""

import fcntl
import json
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl

from tasks.clients import frames, storage
from tasks.core.columns import JOURNAL, UTC_TIME
from tasks.core.errors import StorageError


def local_folder() -> Path:
    """Return the folder of completions that are not in a bucket yet.

    Under PAIRMILL_STATE, else XDG_STATE_HOME, else ~/.local/state; the temporary
    folder where none of them can be written.

    Raises:
        StorageError: That one neither.
    """
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    wanted = Path(os.environ.get("PAIRMILL_STATE") or Path(home) / "pairmill")
    for folder in (wanted, Path(tempfile.gettempdir()) / f"pairmill-{os.getuid()}"):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder / "journal"
    raise StorageError(f"Neither {wanted} nor the temporary folder can be written. Set PAIRMILL_STATE to one that can.")


def upload_leftovers(uri: str, folder: Path | None = None) -> None:
    """Upload the closed local files of the destination of `uri`, whoever wrote them.

    They are in `folder`, by default that of this machine. A file that a living writer
    holds is left alone.
    """
    for path in sorted((folder or local_folder()).glob("*.jsonl")):
        _upload_file(path, uri, fcntl.LOCK_NB)


def upload_closed(uri: str, paths: Iterable[Path]) -> None:
    """Upload local files of the destination of `uri` that nobody writes any more; waits for whoever reads them."""
    for path in paths:
        _upload_file(path, uri)


def _upload_file(path: Path, uri: str, how: int = 0) -> None:
    """Upload one file; its segment is named after it, so that a second upload finds itself."""
    try:
        # On NFS only who may write gets the lock.
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | how)
            header, _, body = file.read().partition(b"\n")
    except (BlockingIOError, FileNotFoundError):
        return
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error}. It may hold paid completions; run again.") from error
    journal = str((_parse(header) or {}).get("journal", ""))
    if journal.rpartition("/")[0] != uri.rpartition("/")[0]:
        return
    frame, whole = _read_whole_lines(body)
    if frame.height:
        buffer = BytesIO()
        frame.write_parquet(buffer)
        segment = f"{journal}/segments/{path.stem}.parquet"
        if not storage.create_bytes(segment, buffer.getvalue()) and frames.read_frame(segment).height < frame.height:
            raise StorageError(f"{segment} holds less than {path}. Move that file away and run again.")
    if whole:
        path.unlink(missing_ok=True)
    else:
        # A machine that lost its power may leave anything; nobody reads it again, and nothing is destroyed.
        with suppress(FileNotFoundError):
            path.rename(path.with_suffix(".damaged"))


def local_keys(uri: str) -> pl.Series:
    """Return the keys of the completions under `uri` that this machine alone holds; changes nothing."""
    found = [pl.Series("request_key", dtype=pl.String)]
    for path in sorted(local_folder().glob("*.jsonl")):
        with suppress(FileNotFoundError):
            header, _, body = path.read_bytes().partition(b"\n")
            if (_parse(header) or {}).get("journal") == uri:
                found.append(_read_whole_lines(body)[0]["request_key"])
    return pl.concat(found)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _read_whole_lines(body: bytes) -> tuple[pl.DataFrame, bool]:
    """Return the rows of the lines that can be read, and whether those are all but a last one that was cut off."""
    try:
        return _read_lines(body), True
    except pl.exceptions.PolarsError:
        lines = [line for line in body.split(b"\n") if "request_key" in (_parse(line) or {})]
        return _read_lines(b"".join(line + b"\n" for line in lines)), False


def _read_lines(body: bytes) -> pl.DataFrame:
    """Return the journal's rows; a last line that was cut off by a crash is no row."""
    lines = body[: body.rfind(b"\n") + 1]
    schema = JOURNAL | {"completed_at": pl.String}
    rows = pl.read_ndjson(lines, schema=schema) if lines else pl.DataFrame(schema=schema)
    return rows.with_columns(pl.col("completed_at").str.to_datetime(time_unit="us", time_zone="UTC").cast(UTC_TIME))
