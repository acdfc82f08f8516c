"""What stops a run early, from the command line: nothing is lost, and the same command goes on."""

import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from flows.run import main
from tasks.clients import storage
from tests.bucket import lines, put
from tests.model_server import Behaviour, ModelServer, answer, error
from tests.night import CONCURRENCY, Night

# A reply costs $0.0006 of 200 and 40 tokens.
PRICE = ["--input-cost-per-token", "0.000001", "--output-cost-per-token", "0.00001"]
COST = 0.0006


@pytest.fixture
def given(bucket: str, model_server: ModelServer, prefect_api: str) -> list[str]:
    """Return a real job's options, over a bucket with 60 descriptions."""
    put(bucket, "tasks/a.jsonl", lines(60))
    options = ["--source", f"{bucket}/tasks", "--destination", f"{bucket}/out", "--model-name", "openai/x"]
    return [*options, "--api-base", model_server.api_base, "--output", "json"]


def run(options: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any], str]:
    """Return the exit code, the report and the one line of error."""
    code = main(options)
    out, said = capfd.readouterr()
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == (code != 0)
    return code, json.loads(out) if out else {}, "".join(errors)


def test_a_run_that_a_budget_stopped_is_gone_on_with_and_pays_for_nothing_twice(
    given: list[str], model_server: ModelServer, capfd: pytest.CaptureFixture[str]
) -> None:
    code, _, said = run([*given, *PRICE, "--max-cost-usd", "0.02"], capfd)
    assert code == 1
    assert "would exceed the $0.0200 of --max-cost-usd" in said
    paid = len(model_server.prompts)
    assert 10 < paid <= 0.02 / COST
    code, report, _ = run([*given, *PRICE, "--max-cost-usd", "1"], capfd)
    assert (code, report["published"], report["accepted"], report["cached"]) == (0, True, 60, paid)
    assert report["cost_usd"] == pytest.approx(COST * (60 - paid))
    assert len(model_server.prompts) == len(set(model_server.prompts)) == 60
    assert report["calls_in_flight"] > 0


@pytest.mark.parametrize(("status", "says"), [(401, "Set the right API key"), (404, "--model-name and --api-base")])
def test_a_refused_key_or_model_costs_one_call_and_is_one_clear_line(
    given: list[str], model_server: ModelServer, capfd: pytest.CaptureFixture[str], status: int, says: str
) -> None:
    model_server.default = error(status)
    code, _, said = run(given, capfd)
    assert (code, len(model_server.prompts)) == (1, 1)
    assert says in said
    assert "What was paid for is kept: run the same command again to go on." in said


@pytest.mark.parametrize(
    ("model_name", "says"),
    [("nobody/x", "Write provider/model"), ("openai/o3-mini", "does not take a parameter")],
)
def test_a_model_that_cannot_be_asked_is_found_before_the_source_is_read(
    given: list[str], bucket: str, capfd: pytest.CaptureFixture[str], model_name: str, says: str
) -> None:
    options = [model_name if one == "openai/x" else one.replace("/tasks", "/nothing-there") for one in given]
    code, _, said = run([*options, "--temperature", "0.5"], capfd)
    assert (code, says in said) == (2, True)
    assert [item.uri for item in storage.list_objects(f"{bucket}/out")] == []


SPOILED: dict[str, Behaviour] = {
    "length": answer("{", finish_reason="length"),
    "unparsable": answer("no json"),
    "refused": answer(None),
    "bad_request": error(400),
}


@pytest.mark.parametrize("reason", list(SPOILED))
def test_fifty_rejections_for_one_reason_at_the_start_stop_the_run(
    given: list[str], model_server: ModelServer, capfd: pytest.CaptureFixture[str], reason: str
) -> None:
    model_server.default = SPOILED[reason]
    code, _, said = run([*given, "--concurrency", "4"], capfd)
    assert code == 1
    assert f"each of the first 50 requests came to nothing for one reason, {reason}" in said
    assert "--limit 20" in said
    assert 50 <= len(model_server.prompts) <= 54


@pytest.mark.faults
def test_a_second_ctrl_c_ends_at_once_and_what_was_paid_for_stays_on_this_machine(
    nights: Callable[[str], Night],
) -> None:
    night = nights("out")
    night.put(0, 60)
    night.serve(0.1)
    night.proxy.fault("/segments/", "stall", seconds=3600.0)
    run = night.start()
    while len(night.model_server.prompts) < 30:
        time.sleep(0.05)
    os.kill(run.pid, signal.SIGINT)
    while night.model_server.in_flight:
        time.sleep(0.05)
    # It has stopped paying, and waits for the storage.
    os.kill(run.pid, signal.SIGINT)
    assert run.wait() == 130
    assert run.said.endswith("run again here.\n")
    assert [path for path in night.state.rglob("*.jsonl") if path.stat().st_size]
    night.proxy.forget()
    night.finish()
    assert night.check_rows(60) == (0, 0)
    assert night.paid_twice() <= CONCURRENCY
