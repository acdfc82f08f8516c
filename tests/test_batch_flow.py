"""The whole flow with --batch, against a provider that has a batch API."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from flows.run import main
from tasks.clients import frames
from tasks.collect import _wants_batches
from tasks.core.batching import FEWEST_REQUESTS
from tasks.core.plans import Shard
from tests.batch_server import BatchServer, Fate
from tests.bucket import lines, put, read_table
from tests.model_server import answer, error
from tests.orders import ORDER

Run = Callable[..., dict[str, Any]]
MODEL = "openai/gpt-4o-mini"
# What a live run has another one of: when and by whom, and what it cost.
LINEAGE = ("run_id", "created_at", "cost_usd")


@pytest.fixture
def run(bucket: str, batch_server: BatchServer, prefect_api: str, capfd: pytest.CaptureFixture[str]) -> Run:
    """Return what runs the command line in this process, to a destination of this name, and reads its report."""

    def command(name: str, *options: str, code: int = 0) -> dict[str, Any]:
        line = ["--source", f"{bucket}/tasks", "--destination", f"{bucket}/{name}", "--model-name", MODEL]
        line += ["--partition", "2026-01-01"]  # midnight may pass between two runs
        ended = main([*line, "--api-base", batch_server.api_base, "--output", "json", *options])
        out, said = capfd.readouterr()
        assert ended == code, said
        if code:
            return {"said": said}
        report: dict[str, Any] = json.loads(out)
        assert report["cached"] + report["paid"] + report["failed"] == report["judged"]
        return report

    return command


def spoil(server: BatchServer) -> None:
    """Answer some descriptions in ways that a row may be rejected for."""
    server.script("thing 7 ", [answer("no json")])
    server.script("thing 8 ", [error(400, "too long", "context_length_exceeded")])
    server.script("thing 9 ", [answer("{", finish_reason="length")])


def read(bucket: str, name: str, table_name: str) -> pl.DataFrame:
    return read_table(f"{bucket}/{name}/{table_name}").sort("id", "sample_index").drop(LINEAGE)


@pytest.mark.runs
def test_rows_are_those_of_a_live_run_at_half_the_price(run: Run, bucket: str, batch_server: BatchServer) -> None:
    put(bucket, "tasks/a.jsonl", lines(120))
    spoil(batch_server)
    live = run("live")
    calls = len(batch_server.prompts)
    spoil(batch_server)
    batched = run("batched", "--batch")
    # The few that were rejected are asked for again live: they are not worth hours.
    assert (batched["batched"], batched["batches"], batch_server.sent.total()) == (119, 1, 120)
    assert len(batch_server.prompts) - calls == live["paid"] + live["failed"] - 120
    for name in ("pairs", "rejected"):
        assert read(bucket, "batched", name).equals(read(bucket, "live", name))
    for figure in ("judged", "accepted", "rejected", "reasons", "paid", "failed", "input_tokens", "output_tokens"):
        assert batched[figure] == live[figure]
    by_call = live["cost_usd"] / live["paid"]
    assert batched["cost_usd"] == pytest.approx(by_call * (live["paid"] - 119 / 2))
    # Nothing of it is left at the provider, nor to be collected.
    assert batch_server.files == {}
    assert run("batched", "--batch")["requests"] == 0


@pytest.mark.runs
def test_what_batches_do_not_answer_is_sent_again_and_only_that(
    run: Run, bucket: str, batch_server: BatchServer
) -> None:
    put(bucket, "tasks/a.jsonl", lines(40))
    batch_server.fates = [Fate("expired", answered=0.5), Fate("failed", answered=0.5, says_so=False), Fate()]
    report = run("out", "--batch")
    assert (report["accepted"], report["batched"], report["batches"]) == (40, 40, 3)
    assert [job.body["request_counts"]["total"] for job in batch_server.jobs.values()] == [40, 20, 10]
    assert set(batch_server.answered.values()) == {1}
    assert batch_server.prompts == []


@pytest.mark.parametrize("own", [FEWEST_REQUESTS - 1, FEWEST_REQUESTS])
def test_a_later_round_waits_for_a_batch_only_where_the_main_model_has_enough_of_it(bucket: str, own: int) -> None:
    uri = f"{bucket}/out/shard.parquet"
    models = ["openai/x"] * own + ["openai/b"] * FEWEST_REQUESTS
    pl.DataFrame({"model_name": models}).with_columns(completed_at=pl.lit(None, pl.Datetime)).pipe(
        frames.write_frame, uri
    )
    shards = (Shard(0, uri, round=1, rows=len(models), cached=0),)
    order = replace(ORDER, batch=True, model_mix={"openai/x": 0.5, "openai/b": 0.5})
    assert _wants_batches(shards, order) == (own >= FEWEST_REQUESTS)


def test_a_provider_without_a_batch_api_says_so_and_nothing_is_paid(
    run: Run, bucket: str, batch_server: BatchServer
) -> None:
    put(bucket, "tasks/a.jsonl", lines(10))
    from aiohttp import web

    batch_server.hook = lambda operation, moment, request: web.Response(status=404)
    said = run("out", "--batch", code=1)["said"]
    assert "its provider has no batch API" in said
    batch_server.hook = lambda operation, moment, request: None
    assert run("out")["paid"] == 10
    assert batch_server.seen == ["upload"]
