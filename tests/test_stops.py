"""What stops a run early, from the command line: nothing is lost, and the same command goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from flows.run import main
from flows.servers import ROOT
from tasks.clients import storage
from tasks.core.columns import TEXTS
from tasks.hold_source import hold_source
from tasks.stop import stop
from tests.bucket import lines, put
from tests.model_server import Behaviour, ModelServer, answer, error, good_text
from tests.night import CONCURRENCY, Night
from tests.orders import ORDER

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
    "empty": answer(json.dumps(dict.fromkeys(TEXTS, ""))),
    "identical": answer(json.dumps(dict.fromkeys(TEXTS, "the harbour of an old town"))),
    "duplicate": answer(good_text("whatever was asked for")),
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
    assert 50 <= len(model_server.prompts) <= 55


@pytest.mark.runs
def test_a_model_that_knows_one_of_several_languages_alone_stops_nothing_and_one_that_lacks_the_only_one_does(
    given: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    several = [*given, "--max-rejected-share", "1", "--max-attempts-per-pair", "1", "--languages"]
    assert run([*several, "Thai"], capfd)[2].count("for one reason, wrong_language") == 1
    assert run([*several, "Thai", "Swahili", "--seed", "43"], capfd)[0] == 0


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


# A signal that arrives in a finaliser, whose exceptions Python ignores.
LOST = """
import os, signal, sys, types
from flows import commands, run
from tasks.stop import stop

class Closing:
    def __del__(self) -> None:
        os.kill(os.getpid(), signal.{signal})

def wait(**_):
    Closing()
    stop.check()

waiting = types.ModuleType("waiting")
waiting.check = wait
sys.modules["waiting"] = waiting
before = commands.COMMANDS["maintain"]
commands.COMMANDS["maintain"] = commands.Command(before.flow, "waiting:check", before.show)
sys.exit(run.main(["maintain", "--destination", "s3://bucket/out"]))
"""


# A flow whose parameters' check is stopped while pydantic writes a model, as Prefect does all the time.
STOPPED_IN_PYDANTIC = """
import os, signal, sys, types
from pydantic import BaseModel, model_serializer
from flows import commands, run

class Slow(BaseModel):
    @model_serializer
    def write(self) -> str:
        os.kill(os.getpid(), signal.{signal})
        return ""

stopped = types.ModuleType("stopped")
stopped.check = lambda **_: Slow().model_dump_json()
sys.modules["stopped"] = stopped
before = commands.COMMANDS["maintain"]
commands.COMMANDS["maintain"] = commands.Command(before.flow, "stopped:check", before.show)
sys.exit(run.main(["maintain", "--destination", "s3://bucket/out"]))
"""


@pytest.mark.parametrize(("name", "code", "said"), [("SIGINT", 130, "Ctrl-C"), ("SIGTERM", 143, "SIGTERM")])
@pytest.mark.parametrize("script", [LOST, STOPPED_IN_PYDANTIC])
def test_a_signal_that_arrives_where_its_exception_is_lost_is_told_as_what_it_is(
    script: str, name: str, code: int, said: str
) -> None:
    command = [sys.executable, "-c", script.replace("{signal}", name)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert f"error: Stopped by {said}. What was paid for is kept" in ended.stderr, ended.stderr
    assert ended.returncode == code


def test_a_run_hears_of_a_stop_whose_exception_was_lost(bucket: str) -> None:
    order = replace(ORDER, source=f"{bucket}/tasks", destination=f"{bucket}/out")
    with hold_source(order) as check:
        check()
        stop.by = "Ctrl-C"
        try:
            with pytest.raises(KeyboardInterrupt):
                check()
        finally:
            stop.by = ""
