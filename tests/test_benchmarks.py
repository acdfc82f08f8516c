"""A smoke of the benchmarks: they run, and their table holds what they measured."""

import os
import sys
from collections import deque
from dataclasses import replace
from itertools import repeat

import boto3
import polars as pl
import pytest

from flows.servers import serve
from tasks.core.prompts import build_prompt
from tests.benchmarks.__main__ import ENVIRONMENT, LINES, format_table, measure_all
from tests.benchmarks.figures import BUCKET
from tests.benchmarks.shares import Shares, find_owner

SMALL = {"limit: bare aiohttp, 256 calls in flight, 100 ms", "flow: 256 calls in flight, 100 ms"}


@pytest.mark.runs
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


def test_cpu_goes_to_the_innermost_frame_that_has_an_owner() -> None:
    owners: list[str] = []

    def look(text: str) -> str:
        owners.append(find_owner(sys._getframe(), "any"))
        return text

    pl.Series(["a"]).map_elements(look, return_dtype=pl.String)
    assert owners == ["polars"]


def test_cpu_is_counted_by_whose_work_it_is() -> None:
    calls = 200_000
    with Shares() as taken:
        # map() has no frame of Python's: all that is seen is the function and what it calls.
        deque(map(build_prompt, repeat("match a question with its answer", calls), repeat("English")), maxlen=0)
    assert max(taken.seconds, key=taken.seconds.__getitem__) == "planning, prompts, parsing and rules"
