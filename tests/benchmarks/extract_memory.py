"""Memory and time of the extract step, by number of task descriptions.

    python -m tests.benchmarks.extract_memory 50000 1000000

Each number is measured in a process of its own, against an S3 server on loopback:
peak resident memory above what the imports take, in MB, and seconds.
"""

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import boto3
from rich.console import Console
from rich.table import Table

from flows.servers import serve

BUCKET = "benchmark"


def peak_mb() -> float:
    """Return this process's peak resident memory in MB (ru_maxrss would count the parent's)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure(rows: int) -> dict[str, float]:
    """Extract the source of `rows` descriptions and return what it took."""
    import polars as pl
    from prefect.logging import disable_run_logger

    from tasks.clients import storage
    from tasks.core.requests import Order, Recipe
    from tasks.extract import extract_task_descriptions

    storage.write_frame(pl.DataFrame({"x": [1]}), f"s3://{BUCKET}/warm")  # s3fs and its session are imports too
    before, started = peak_mb(), time.monotonic()
    order = Order(
        run_id="benchmark",
        started_at=datetime.now(UTC),
        source=f"s3://{BUCKET}/tasks-{rows}",
        destination=f"s3://{BUCKET}/out-{rows}",
        partition="2026-01-01",
        languages=("English",),
        language_mix="each",
        pairs_per_task=1,
        max_attempts_per_pair=3,
        on_published="add",
        recipe=Recipe(model_name="openai/none"),
        api_base="",
        concurrency=1,
        max_rejected_share=1.0,
        limit=0,
    )
    with disable_run_logger():
        plan = extract_task_descriptions.fn(order)
    assert plan.requests == rows
    return {"rows": rows, "mb": peak_mb() - before, "seconds": time.monotonic() - started}


def main(sizes: list[int]) -> None:
    """Measure each size and print the table."""
    if os.environ.get("PAIRMILL_MEASURE"):
        sys.stdout.write(json.dumps(measure(sizes[0])))
        return
    environment = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
    table = Table("descriptions", "MB above imports", "seconds", "rows/s")
    with serve("moto.server", "-H", "127.0.0.1", "-p", "{port}") as server:
        os.environ.update(environment, AWS_ENDPOINT_URL=server.url, PAIRMILL_MEASURE="1")
        server.wait()
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket=BUCKET)
        for rows in sizes:
            lines = (
                json.dumps(
                    {"task": f"match a question about topic number {row} with its answer", "id": row, "from": "x"}
                )
                for row in range(rows)
            )
            s3.put_object(Bucket=BUCKET, Key=f"tasks-{rows}/all.jsonl", Body="\n".join(lines).encode())
            command = [sys.executable, "-m", "tests.benchmarks.extract_memory", str(rows)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            rate = found["rows"] / found["seconds"]
            table.add_row(f"{rows:,}", f"{found['mb']:.0f}", f"{found['seconds']:.1f}", f"{rate:,.0f}")
    Console().print(table)


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or [50_000, 1_000_000])
