"""A smoke of the benchmarks: they run, and their table holds what they measured."""

import os
import subprocess
import sys
import time
from dataclasses import replace

import boto3
import polars as pl
import pytest

from flows.servers import ROOT, serve
from tests.benchmarks.__main__ import ENVIRONMENT, LINES, divide, format_table, measure_all
from tests.benchmarks.figures import BUCKET, NATIVE
from tests.benchmarks.shares import count_looks, native_seconds

SMALL = {"limit: bare aiohttp, 256 calls in flight, 100 ms", "flow: 256 calls in flight, 100 ms"}


def test_a_limit_and_a_whole_flow_make_a_table(
    s3_endpoint: str, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, os.environ.get(name, value))
    boto3.client("s3").create_bucket(Bucket=BUCKET.removeprefix("s3://"))
    lines = [replace(line.scaled(0.01), arguments=line.scaled(0.01).arguments | {"latency": 1}) for line in LINES]
    with serve("tests.benchmarks.provider", "{port}") as model:
        model.wait()
        table = format_table(measure_all([line for line in lines if line.text in SMALL], model.url))
    _, _, limit, flow = table.splitlines()
    cells = [cell.strip() for cell in flow.strip("|").split("|")]
    assert "200" in limit
    assert (cells[1], float(cells[2].replace(",", "")) > 0, float(cells[5]) > 0) == ("200", True, True)


@pytest.mark.runs
def test_the_cpu_of_a_run_is_divided_by_whose_work_it_was() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "--scale", "0.02", "CPU"],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert all(name in ended.stdout for name in (NATIVE, "% of Python: aiohttp", "% of Python: calls"))


@pytest.mark.runs
def test_one_process_and_two_make_a_table() -> None:
    few = "from tests.benchmarks.scale import Lane, main; main(1, [Lane('fast', 400, 800)])"
    ended = subprocess.run(
        [sys.executable, "-c", few],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert all(line in ended.stdout for line in ("Python alone", "fast lane, calls alone", "fast lane, the whole run"))


LOOKS = """
thread (1): MainThread;<module> (/x/tests/benchmarks/__main__.py:1);find_spec (<frozen importlib>:9) 50
thread (1): MainThread;generate_short_text_pairs (/x/flows/short_text_matching.py:1);wait (/lib/threading.py:2) 5
thread (2): model;run (/lib/asyncio/events.py:1);read (/x/site-packages/aiohttp/reader.py:3);loads (/lib/json.py:4) 30
thread (2): model;run (/lib/asyncio/events.py:1) 10
thread (3): pool_0;judge (/x/tasks/core/judging.py:1);collect (/x/site-packages/polars/frame.py:7) 5
thread (4) 10
"""


def test_looks_are_counted_by_whose_work_they_saw() -> None:
    seen = count_looks(LOOKS.strip())
    assert seen == {"the steps": 5, "aiohttp": 30, "calls": 10, "polars": 5, "Prefect": 10}
    shares = divide(seen)
    assert next(iter(shares)) == "% of Python: aiohttp"
    assert shares["% of Python: aiohttp"] == 50.0
    assert sum(shares.values()) == pytest.approx(100.0)


def test_threads_that_python_did_not_start_are_counted_apart() -> None:
    frame = pl.DataFrame({"a": range(200_000)}).lazy().sort(pl.col("a").hash())
    before, cpu = native_seconds(), time.process_time()
    sum(range(10_000_000))
    assert native_seconds() - before < 0.5 * (time.process_time() - cpu)
    before = native_seconds()
    while native_seconds() - before < 0.05:
        frame.collect()
