"""A smoke of the benchmarks: they run, and their table holds what they measured."""

import os
from dataclasses import replace

import boto3
import pytest

from flows.servers import serve
from tests.benchmarks.__main__ import ENVIRONMENT, LINES, format_table, measure_all
from tests.benchmarks.figures import BUCKET

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
