"""Whose work a run's CPU is spent on: py-spy looks from outside, a hundred times a second, who holds Python's lock.

A look is given to the innermost frame whose file one of OWNERS names; what libraries of
no owner do goes to their caller. The threads of polars and deltalake need no lock: what
they take is read from /proc.
"""

import sys
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

LOOKS_A_SECOND = 100
# A part of the file's path -> whose work it is; the first that fits counts.
OWNERS = {
    "/tests/benchmarks/": "the benchmark",
    "/tasks/clients/journal.py": "journal",
    "/tasks/clients/leftovers.py": "journal",
    "/tasks/clients/lookup.py": "journal",
    "/tasks/core/detection.py": "languages",
    "/site-packages/py3langid/": "languages",
    "/tasks/core/": "planning, prompts, parsing and rules",
    "/site-packages/aiohttp/": "aiohttp",
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
    "/tasks/clients/faults.py": "calls",
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
REST = "Prefect"
# The main thread's other frames are imports.
FLOW = "generate_short_text_pairs "


def watched(command: list[str], looks: Path) -> list[str]:
    """Return the command line that carries out `command` and writes what py-spy saw of it to `looks`."""
    spy = [str(Path(sys.executable).with_name("py-spy")), "record", "--rate", str(LOOKS_A_SECOND), "--gil", "--threads"]
    return [*spy, "--format", "raw", "--full-filenames", "--output", str(looks), "--", *command]


def native_seconds() -> float:
    """Return the CPU seconds so far of this process's threads that Python did not start."""
    ours = {str(thread.native_id) for thread in threading.enumerate()}
    others = (task for task in Path("/proc/self/task").iterdir() if task.name not in ours)
    return sum(int((task / "schedstat").read_text().split()[0]) / 1e9 for task in others)


def count_looks(looks: str) -> Mapping[str, int]:
    """Return how often the work of each owner was seen.

    Args:
        looks: Lines of a thread's name, its frames with their files, innermost last, and how often they were seen.
    """
    seen = Counter[str]()
    for line in looks.splitlines():
        stack, _, times = line.rpartition(" ")
        thread, *frames = stack.split(";")
        name = thread.partition(": ")[2]
        if name != "MainThread" or any(frame.startswith(FLOW) for frame in frames):
            seen[find_owner(frames, name)] += int(times)
    return seen


def find_owner(frames: list[str], thread: str) -> str:
    """Return whose work the innermost of a thread's frames that tells is."""
    owners = (owner for frame in reversed(frames) for part, owner in OWNERS.items() if part in frame)
    return next(owners, THREADS.get(thread, REST))
