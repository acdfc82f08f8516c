"""The durable record of every completion that was paid for.

A completion is appended to a local file before it counts (survives a killed
process) and goes to the bucket in Parquet segments every few seconds (survives a
lost machine). One writer per process; segment names cannot be another's.
"""

import errno
import fcntl
import json
import os
import threading
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Self

import orjson

from tasks.clients import storage
from tasks.clients.leftovers import local_folder, upload_closed, upload_leftovers
from tasks.core.errors import PairmillError, StorageError

SEGMENT_SECONDS = 2.0
SEGMENT_BYTES = 4 << 20
# Uploads that fail in a row before the run stops paying for what only this machine holds.
UPLOAD_ATTEMPTS = 15


class Journal:
    """Writes one recipe's completions; use as a context manager.

    Its files lie in `folder`, by default that of this machine. `recipe` is written beside
    the segments, since their keys cannot be told without it.
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
        self._folder = folder or local_folder()
        self._name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:12]}"
        self._lock = threading.Lock()
        self._uploading = threading.Lock()
        self._closing = threading.Event()
        self._full = threading.Event()
        self._file: IO[bytes] | None = None
        self._closed: list[Path] = []
        self._opened_at = 0.0
        self._bytes = 0
        self._count = 0
        self._failures = 0

    def __enter__(self) -> Self:
        """Upload what earlier processes left behind, and start the uploader."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        upload_leftovers(self.uri, self._folder)
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
            # Not the file that is written meanwhile: it stays locked until the next flush.
            with self._lock:
                self._close_file()
                closed = list(self._closed)
            upload_closed(self.uri, closed)
            with self._lock:
                del self._closed[: len(closed)]

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
            self._closed.append(Path(closed.name))

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
