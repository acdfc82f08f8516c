"""Whose work a run's CPU is spent on, by looking at each thread a hundred times a second.

The CPU that a thread has taken since the last look is given to the innermost frame
whose file one of OWNERS names; what libraries of no owner take goes to their caller.
What no Python thread took is polars' and deltalake's own threads.
"""

import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from types import FrameType
from typing import Self

INTERVAL_SECONDS = 0.01
# A part of the file's path -> whose work it is; the first that fits counts.
OWNERS = {
    "/tests/benchmarks/": "the benchmark",
    "/tasks/clients/journal.py": "journal",
    "/tasks/clients/leftovers.py": "journal",
    "/tasks/clients/lookup.py": "journal",
    "/tasks/core/detection.py": "languages",
    "/site-packages/py3langid/": "languages",
    "/tasks/core/": "planning, prompts, parsing and rules",
    "/site-packages/polars/": "polars",
    "/site-packages/deltalake/": "deltalake",
    "/site-packages/litellm/": "calls",
    "/tasks/clients/wire.py": "calls",
    "/tasks/clients/lane.py": "calls",
    "/tasks/clients/fast_call.py": "calls",
    "/tasks/clients/plain_replies.py": "calls",
    "/tasks/clients/llm.py": "calls",
    "/tasks/clients/calls.py": "calls",
    "/tasks/clients/attempts.py": "calls",
    "/tasks/clients/metered_call.py": "calls",
    "/tasks/clients/outcome.py": "calls",
    "/tasks/clients/patience.py": "calls",
    "/tasks/clients/pacing.py": "calls",
    "/tasks/clients/rates.py": "calls",
    "/tasks/clients/budget.py": "calls",
    "/site-packages/s3fs/": "S3",
    "/site-packages/aiobotocore/": "S3",
    "/site-packages/botocore/": "S3",
    "/site-packages/fsspec/": "S3",
    "/tasks/clients/": "S3",
    "/site-packages/prefect/": "Prefect",
    "/flows/": "the steps",
    "/tasks/": "the steps",
}
# Whose a thread is where no frame says so: their event loops.
THREADS = {"model": "calls", "fsspecIO": "S3", "journal": "journal"}
REST, NATIVE = "Prefect", "threads of polars and deltalake"


class Shares:
    """Counts CPU seconds by owner while its block runs; `seconds` holds them afterwards."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._taken: dict[int, float] = {}
        self._own = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="shares", daemon=True)

    def __enter__(self) -> Self:
        """Start to look."""
        self._started = time.process_time()
        self._look(count=False)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop looking, and give the rest to the threads that are not Python's."""
        self._ended.set()
        self._thread.join()
        # Looking costs CPU, too, which is nobody's work.
        rest = time.process_time() - self._started - sum(self.seconds.values()) - self._own
        self.seconds[NATIVE] = max(0.0, rest)

    def _watch(self) -> None:
        while not self._ended.wait(INTERVAL_SECONDS):
            self._look()
        self._own = time.thread_time()

    def _look(self, *, count: bool = True) -> None:
        threads = {thread.ident: thread for thread in threading.enumerate()}
        for ident, frame in sys._current_frames().items():
            thread = threads.get(ident)
            if thread is None or thread.native_id is None or thread is self._thread:
                continue
            try:
                taken = int(Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text().split()[0]) / 1e9
            except (FileNotFoundError, ProcessLookupError):  # it has just ended
                continue
            if count:
                self.seconds[find_owner(frame, thread.name)] += taken - self._taken.get(thread.native_id, 0.0)
            self._taken[thread.native_id] = taken


def find_owner(frame: FrameType | None, thread: str) -> str:
    """Return whose work the innermost frame that tells is."""
    while frame is not None:
        path = frame.f_code.co_filename
        for part, owner in OWNERS.items():
            if part in path:
                return owner
        frame = frame.f_back
    return THREADS.get(thread, REST)
