"""What measurements share: where they read and write, and the memory of their process."""

import json
from pathlib import Path

BUCKET = "s3://benchmark"
MODEL = "hosted_vllm/benchmark"
# What of a run's CPU is not Python's.
NATIVE = "% of CPU: threads of polars and deltalake"

Figures = dict[str, float]


def description(row: int) -> str:
    """Return a task description like no other."""
    return f"match a question about topic number {row} with its answer"


def source(rows: int) -> str:
    """Return where the source of so many descriptions lies."""
    return f"{BUCKET}/tasks-{rows}"


def put_source(rows: int) -> None:
    """Write the source of so many descriptions."""
    from tasks.clients import storage

    lines = (json.dumps({"task": description(row), "id": row, "from": "x"}) for row in range(rows))
    storage.write_bytes(f"{source(rows)}/all.jsonl", "\n".join(lines).encode())


def peak_mb() -> float:
    """Return this process's peak resident memory in MB (ru_maxrss would count the parent's)."""
    return _status("VmHWM")


def resident_mb() -> float:
    """Return what this process holds now, in MB."""
    return _status("VmRSS")


def _status(name: str) -> float:
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) / 1024
