"""Measures whole runs and their look-up in the journal."""

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.benchmarks.calls import take
from tests.benchmarks.figures import BUCKET, MODEL, NATIVE, Figures, description, peak_mb, source
from tests.benchmarks.shares import native_seconds

SEGMENT_ROWS = 1_000_000


def flow(*, provider: str, latency: int, rows: int, concurrency: int, destination: str = "") -> Figures:
    """Run the flow: extract, generate, validate, load. Rows/s are from its start to its report."""
    _import_all()
    from flows.short_text_matching import generate_short_text_pairs

    take(provider)
    memory, cpu = peak_mb(), time.process_time()
    report = generate_short_text_pairs(
        source=source(rows),
        destination=destination or f"{BUCKET}/out-{uuid.uuid4().hex[:8]}",
        model_name=MODEL,
        api_base=f"{provider}/{latency}/v1",
        concurrency=concurrency,
    )
    cpu = time.process_time() - cpu
    taken = take(provider)
    if (report.accepted, report.published) != (rows, True):
        raise RuntimeError(f"{report.accepted} of {rows} pairs: {report.reasons}")
    figures = {"rows": rows, "rows_s": rows / report.seconds, "cpu_ms": 1000 * cpu / rows, "mb": peak_mb() - memory}
    if taken["calls"] != report.paid:
        raise RuntimeError(f"{taken['calls']} calls reached the provider, {report.paid} are in the report")
    if taken["calls"]:
        figures["calls_s"] = taken["calls"] / (taken["last"] - taken["first"])
    return figures


def watched(*, provider: str, latency: int, rows: int, concurrency: int) -> Figures:
    """Run the flow, and say how many per cent of its CPU threads took that are not Python's."""
    _import_all()
    before, cpu = native_seconds(), time.process_time()
    figures = flow(provider=provider, latency=latency, rows=rows, concurrency=concurrency)
    native = (native_seconds() - before) / (time.process_time() - cpu)
    return {"rows": rows, "cpu_ms": figures["cpu_ms"], NATIVE: 100 * native}


def scaled(*, provider: str, latency: int, rows: int, concurrency: int, processes: int) -> Figures:
    """Run the flow in this process (0), or on a cluster of so many; CPU is that of all of them, with their start."""
    if processes:
        os.environ["PAIRMILL_DASK_SCHEDULER"] = str(processes)
    before = os.times()
    figures = flow(provider=provider, latency=latency, rows=rows, concurrency=concurrency)
    after = os.times()
    return figures | {"cpu_ms": 1000 * (sum(after[:4]) - sum(before[:4])) / rows}


def warm(*, provider: str, rows: int) -> Figures:
    """Run the flow over requests that are all in the journal, and say how fast generate alone takes them."""
    from prefect.logging import disable_run_logger

    from tasks.clients import llm
    from tasks.extract import extract_task_descriptions
    from tasks.generate import generate_completions
    from tasks.open_model import open_model

    llm.check_model(MODEL)
    order = _order(provider, rows, f"{BUCKET}/warm-{rows}")
    fill_journal(order)
    with disable_run_logger():
        plan = extract_task_descriptions.fn(order)
        with open_model(order, plan) as model:
            started, cpu = time.monotonic(), time.process_time()
            for shard in plan.shards:
                generate_completions.fn(shard, order, model)
            seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    if plan.cached != rows:
        raise RuntimeError(f"{plan.cached} of {rows} requests were in the journal")
    return {"rows": rows, "rows_s": rows / seconds, "cpu_ms": 1000 * cpu / rows}


def warm_flow(*, provider: str, rows: int) -> Figures:
    """Run the whole flow over requests that are all in the journal."""
    destination = f"{BUCKET}/warm-{rows}"
    fill_journal(_order(provider, rows, destination))
    figures = flow(provider=provider, latency=0, rows=rows, concurrency=256, destination=destination)
    if "calls_s" in figures:
        raise RuntimeError("a call was paid")
    return figures


def extract(*, provider: str, rows: int) -> Figures:
    """Extract a source of which nothing is known."""
    from prefect.logging import disable_run_logger

    from tasks.clients import storage
    from tasks.extract import extract_task_descriptions

    storage.require_bucket(BUCKET)
    memory, cpu, started = peak_mb(), time.process_time(), time.monotonic()
    with disable_run_logger():
        plan = extract_task_descriptions.fn(_order(provider, rows, f"{BUCKET}/out-{uuid.uuid4().hex[:8]}"))
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    if plan.requests != rows:
        raise RuntimeError(f"{plan.requests} requests of {rows} descriptions")
    return {"rows": rows, "rows_s": rows / seconds, "cpu_ms": 1000 * cpu / rows, "mb": peak_mb() - memory}


def look_up(*, provider: str, keys: int, rows: int) -> Figures:
    """Look `rows` requests up in a journal of `keys`, half of them in it, and count what was read."""
    import polars as pl

    from tasks.clients import storage
    from tasks.clients.lookup import look_up as find

    uri = f"{BUCKET}/journal-{keys}/recipe=x"
    held = _fill_random(uri, keys)
    with tempfile.TemporaryDirectory() as folder:
        plan = Path(folder) / "plan.parquet"
        missing = pl.Series("request_key", [os.urandom(16).hex() for _ in range(rows - held.len())])
        pl.DataFrame({"request_key": pl.concat([held, missing])}).with_row_index("plan_row").write_parquet(plan)
        del missing
        os.environ["AWS_ENDPOINT_URL"] = os.environ["COUNTING_URL"]
        taken = _take_counts()
        memory, cpu, started = _settle(), time.process_time(), time.monotonic()
        find(uri, pl.scan_parquet(plan)).sink_parquet(Path(folder) / "found.parquet")
        seconds, cpu, memory = time.monotonic() - started, time.process_time() - cpu, peak_mb() - memory
        taken = _take_counts()
        found = pl.scan_parquet(Path(folder) / "found.parquet").select(pl.len()).collect().item()
    storage.delete_prefix(uri)
    if found != held.len():
        raise RuntimeError(f"{found} of {held.len()} keys were found")
    counts = {"megabytes": taken.pop("bytes") / 1e6, "LISTs": taken.get("LIST", 0), "GETs": taken.get("GET", 0)}
    return {"rows": rows, "keys": keys, "seconds": seconds, "cpu_ms": 1000 * cpu / rows, "mb": memory, **counts}


def start(*, provider: str, rows: int) -> Figures:
    """Start the command line, until its first request."""
    take(provider)
    began = time.monotonic()
    command = [sys.executable, "-m", "flows.run", "--model-name", MODEL, "--api-base", f"{provider}/0/v1"]
    command += ["--source", source(rows), "--destination", f"{BUCKET}/out-{uuid.uuid4().hex[:8]}"]
    subprocess.run(command, check=True, capture_output=True)
    return {"rows": rows, "seconds": take(provider)["first"] - began}


def _import_all() -> None:
    """Load what a run loads, which none of the figures holds."""
    import fastapi.encoders  # noqa: F401  (Prefect's, with its first flow run)

    from flows import short_text_matching  # noqa: F401
    from tasks import again, extract, generate, load, publicise, validate  # noqa: F401
    from tasks.clients import llm, storage
    from tasks.core.detection import detect_pair

    llm.check_model(MODEL)
    detect_pair("German", *["what a detector reads when it loads"] * 2)  # its models are imports, too
    storage.require_bucket(BUCKET)


def fill_journal(order: Any) -> None:
    """Write a completion of every request of the order's source into the journal."""
    import polars as pl

    from tasks.clients import frames
    from tasks.core.columns import JOURNAL
    from tasks.core.distinct import normalise
    from tasks.core.prompts import build_prompt
    from tasks.core.requests import request_keys
    from tests.model_server import good_text

    rows = int(order.source.rpartition("-")[2])
    for first in range(0, rows, 100_000):
        batch = normalise(
            pl.DataFrame({"task": [description(row) for row in range(first, min(rows, first + 100_000))]})
        )
        prompts = [build_prompt(text, "English") for text in batch["task"]]
        completions = pl.DataFrame(
            {
                "request_key": request_keys(order.recipe, prompts, [0] * batch.height),
                "text": [good_text(json.dumps(prompt)) for prompt in prompts],
            }
        ).with_columns(finish_reason=pl.lit("stop"), attempts=1, completed_at=datetime.now(UTC))
        missing = [pl.lit(None).alias(name) for name in JOURNAL if name not in completions.columns]
        whole = completions.with_columns(missing).select(pl.col(name).cast(kind) for name, kind in JOURNAL.items())
        frames.write_frame(whole, f"{order.layout.journal(order.recipe.recipe_id)}/segments/{first:09}.parquet")


def _fill_random(uri: str, keys: int) -> Any:
    """Write a journal of random keys, and return 500,000 of them, or half."""
    import polars as pl

    from tasks.clients import frames
    from tasks.core.columns import JOURNAL

    held = []
    segments = range(0, keys, SEGMENT_ROWS)
    for first in segments:
        count = min(SEGMENT_ROWS, keys - first)
        text = os.urandom(16 * count).hex()
        drawn = pl.Series("request_key", [text[at : at + 32] for at in range(0, 32 * count, 32)]).sort()
        held.append(drawn.gather_every(max(1, keys // min(500_000, keys // 2))))
        frame = pl.DataFrame({"request_key": drawn}).with_columns(
            text=pl.concat_str(pl.lit('{"input": "'), pl.col("request_key").str.slice(0, 20), pl.lit('"}')),
            completed_at=datetime.now(UTC),
        )
        missing = [pl.lit(None).alias(name) for name in JOURNAL if name not in frame.columns]
        whole = frame.with_columns(missing).select(pl.col(name).cast(kind) for name, kind in JOURNAL.items())
        frames.write_frame(whole, f"{uri}/{first:012}.parquet")
    return pl.concat(held)


def _take_counts() -> dict[str, int]:
    with urllib.request.urlopen(f"{os.environ['COUNTING_URL']}/_taken") as reply:
        counts: dict[str, int] = json.loads(reply.read())
    return counts


def _settle() -> float:
    """Forget the peak of memory so far, and return what is resident now, in MB."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return peak_mb()


def _order(provider: str, rows: int, destination: str) -> Any:
    from dataclasses import replace

    from tasks.core.requests import Recipe
    from tests.orders import ORDER

    recipe = Recipe(model_name=MODEL)
    api_base = f"{provider}/0/v1"
    return replace(
        ORDER, run_id=uuid.uuid4().hex, source=source(rows), destination=destination, recipe=recipe, api_base=api_base
    )
