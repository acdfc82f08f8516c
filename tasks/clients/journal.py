"""The durable record of every completion that was paid for.

A completion is appended to a local file before it counts (survives a killed
process) and goes to the bucket in Parquet segments every few seconds (survives a
lost machine). One writer per process; segment names cannot be another's.
"""

import errno
import fcntl
import json
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Self

import orjson
import polars as pl

from tasks.clients import frames, storage
from tasks.core.columns import JOURNAL, UTC_TIME
from tasks.core.errors import PairmillError, StorageError
from tasks.core.rules import CALL_FAILED

SEGMENT_SECONDS = 2.0
SEGMENT_BYTES = 4 << 20
# Uploads that fail in a row before the run stops paying for what only this machine holds.
UPLOAD_ATTEMPTS = 15

# A call that failed for good is no answer: any other completion of its key counts before it.
FAILED = pl.col("error").eq_missing(CALL_FAILED)
EARLIEST = (FAILED, pl.col("completed_at"), pl.col("segment"))


def local_folder() -> Path:
    """Return the folder of completions that are not in a bucket yet.

    PAIRMILL_STATE, else XDG_STATE_HOME, else ~/.local/state; the temporary
    folder where none of them can be written.
    """
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    wanted = Path(os.environ.get("PAIRMILL_STATE") or Path(home) / "pairmill")
    for folder in (wanted, Path(tempfile.gettempdir()) / f"pairmill-{os.getuid()}"):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    raise StorageError(f"Neither {wanted} nor the temporary folder can be written. Set PAIRMILL_STATE to one that can.")


class Journal:
    """Writes one recipe's completions; use as a context manager.

    `recipe` is written beside the segments, since their keys cannot be told without it.
    `append` may be called from one thread only (the client's). `lost` is the
    error of uploads that keep failing, and None while they work.
    """

    def __init__(
        self, uri: str, folder: Path | None = None, *, recipe: bytes = b"", segment_seconds: float = SEGMENT_SECONDS
    ) -> None:
        self.uri = uri
        self._recipe = recipe
        self._segment_seconds = segment_seconds
        self.lost: PairmillError | None = None
        self._folder = (folder or local_folder()) / "journal"
        self._name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:12]}"
        self._lock = threading.Lock()
        self._uploading = threading.Lock()
        self._closing = threading.Event()
        self._full = threading.Event()
        self._file: IO[bytes] | None = None
        self._opened_at = 0.0
        self._bytes = 0
        self._count = 0
        self._failures = 0

    def __enter__(self) -> Self:
        """Upload what earlier processes left behind, and start the uploader."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        upload_leftovers(self._folder, self.uri)
        if self._recipe:
            storage.create_bytes(f"{self.uri}/recipe.json", self._recipe)
        self._uploader = threading.Thread(target=self._run, name="journal", daemon=True)
        self._uploader.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Upload the rest; what cannot be uploaded stays in the local file for the next run."""
        self._closing.set()
        self._full.set()
        self._uploader.join()
        try:
            self.flush()
        except PairmillError as error:
            self.lost = error

    def append(self, request_key: str, completion: Mapping[str, Any]) -> None:
        """Append one completion; when this returns it survives the process being killed.

        Raises:
            StorageError: The local folder does not take it.
        """
        line = orjson.dumps({"request_key": request_key, **completion}, option=orjson.OPT_APPEND_NEWLINE)
        with self._lock:
            try:
                self._file = self._file or self._open_file()
                if self._file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                # A full disk takes a part of the line: it must stay the last one of its file.
                self._close_file()
                raise StorageError(
                    f"{self._folder} cannot be written: {error}. Make room there, or set PAIRMILL_STATE to "
                    "another folder. What was paid for before is kept; run again."
                ) from error
            self._bytes += len(line)
            full = self._bytes >= SEGMENT_BYTES
        if full:
            self._full.set()

    def flush(self) -> None:
        """Put everything appended so far into the bucket.

        Raises:
            StorageError: The bucket does not take it; it stays in the local file.
        """
        with self._uploading:
            with self._lock:
                self._close_file()
            upload_leftovers(self._folder, self.uri, self._name)

    def _open_file(self) -> IO[bytes]:
        self._count += 1
        path = self._folder / f"{self._name}-{self._count:06}.jsonl"
        file = path.open("ab", buffering=0)
        fcntl.flock(file, fcntl.LOCK_EX)
        header = json.dumps({"journal": self.uri}).encode() + b"\n"
        if file.write(header) < len(header):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._bytes, self._opened_at = 0, time.monotonic()
        return file

    def _close_file(self) -> None:
        closed, self._file = self._file, None
        if closed is not None:
            closed.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._full.wait(self._segment_seconds / 4)
            self._full.clear()
            with self._lock:
                age = time.monotonic() - self._opened_at if self._file else 0.0
                # One poll early: a completion is in the bucket, or on its way, after segment_seconds at most.
                due = self._file is not None and (age >= 0.75 * self._segment_seconds or self._bytes >= SEGMENT_BYTES)
            if due or self._failures:
                self._try_flush()

    def _try_flush(self) -> None:
        try:
            self.flush()
            self._failures, self.lost = 0, None
        except PairmillError as error:
            self._failures += 1
            if self._failures >= UPLOAD_ATTEMPTS:
                self.lost = StorageError(f"Paid completions cannot be uploaded, they wait in {self._folder}: {error}")


def upload_leftovers(folder: Path, uri: str, name: str = "") -> None:
    """Upload the closed local files of the destination of `uri`, those of one writer if named.

    A file that a living writer holds is left alone. The segment is named after the
    file, so that a second upload of it finds itself.
    """
    root = uri.rpartition("/")[0]
    for path in sorted(folder.glob(f"{name}*.jsonl")):
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                header, _, body = file.read().partition(b"\n")
        except (BlockingIOError, FileNotFoundError):
            continue
        journal = str((_parse(header) or {}).get("journal", ""))
        if journal.rpartition("/")[0] != root:
            continue
        frame, whole = _read_whole_lines(body)
        if frame.height:
            buffer = BytesIO()
            frame.write_parquet(buffer)
            segment = f"{journal}/segments/{path.stem}.parquet"
            if (
                not storage.create_bytes(segment, buffer.getvalue())
                and frames.read_frame(segment).height < frame.height
            ):
                raise StorageError(f"{segment} holds less than {path}. Move that file away and run again.")
        if whole:
            path.unlink(missing_ok=True)
        else:
            # A machine that lost its power may leave anything; nobody reads it again, and nothing is destroyed.
            with suppress(FileNotFoundError):
                path.rename(path.with_suffix(".damaged"))


def local_keys(folder: Path, uri: str) -> pl.Series:
    """Return the keys of the completions under `uri` that this machine alone holds; changes nothing."""
    found = [pl.Series("request_key", dtype=pl.String)]
    for path in sorted(folder.glob("*.jsonl")):
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


def find_segments(uri: str) -> list[str]:
    """Return the URIs of the recipe's segments, in the order of their names."""
    return [item.uri for item in storage.list_objects(uri) if item.uri.endswith(".parquet")]


def look_up(uri: str, wanted: pl.LazyFrame, *, failures: bool = False) -> pl.LazyFrame:
    """Return every completion that the journal at `uri` has for the keys of `wanted`.

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
    known = frames.scan_frames(segments, include_file_paths="segment")
    if not failures:
        known = known.filter(~FAILED)
    # The journal is the larger side, whatever polars guesses: it streams past the plan's keys.
    return known.join(wanted, on="request_key", build_side="force_right")


def keep_earliest(completions: pl.DataFrame) -> pl.DataFrame:
    """Keep one completion a key: the earliest answer, then the first by its segment's name."""
    return completions.sort(EARLIEST).unique("request_key", keep="first", maintain_order=True)
