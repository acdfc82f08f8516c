"""Keys go nowhere but to where they belong, wherever a run is carried out: by batches, by fallbacks, on a cluster."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.batch_server import NEVER, BatchServer, Fate
from tests.dialects import DIALECTS
from tests.model_server import error, good
from tests.night import Night
from tests.own_cluster import run_cluster
from tests.test_security import CANARIES, echo_key, find_leaks
from tests.zygote import Run

# A busy machine is no reason to fail.
pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]

ROWS = 60
OPENAI, ANTHROPIC = CANARIES["OPENAI_API_KEY"], CANARIES["ANTHROPIC_API_KEY"]


def test_no_key_is_in_what_a_run_keeps_of_its_batches(
    nights: Callable[[str], Night], batch_server: BatchServer
) -> None:
    night = replace(nights("batch"), model_server=batch_server)
    night.put(0, ROWS)
    night.serve(0.0)
    batch_server.fates = [NEVER]
    stopped = night.start("--batch", environment=CANARIES)
    while "retrieve" not in batch_server.seen:
        time.sleep(0.1)
    os.kill(stopped.pid, signal.SIGINT)
    assert stopped.wait() == 130, stopped.said
    runs = [stopped]
    # Its record is open, and nothing of it has a key.
    assert find_leaks(night, runs, expected="/batches/") == set()
    (job,) = batch_server.jobs.values()
    job.fate = Fate("failed", answered=0.5, problem=f"the key {OPENAI} is not known")
    batch_server.script("spoiled", [echo_key])
    runs.append(night.start("--batch", environment=CANARIES))
    assert runs[-1].wait() in (0, 1)
    batch_server.hook = lambda operation, moment, request: (
        web.json_response({"error": {"message": f"the key {OPENAI} is not known"}}, status=401)
        if (operation, moment) == ("create", "before")
        else None
    )
    night.put(ROWS, ROWS)
    runs.append(night.start("--batch", environment=CANARIES))
    assert runs[-1].wait() == 1
    assert "[OPENAI_API_KEY]" in runs[-1].said
    assert find_leaks(night, runs, expected="/batches/") == set()


def test_no_key_of_a_fallback_is_in_anything_that_a_run_writes(nights: Callable[[str], Night]) -> None:
    dialect = DIALECTS["anthropic"]
    night = nights("fallback")
    night.put(0, ROWS)
    night.serve(0.0)
    night.model_server.script("spoiled", [refuse_ours])
    environment = {**CANARIES, "ANTHROPIC_API_BASE": dialect.api_base(night.model_server)}
    options = ["--fallback-models", dialect.model_name]
    runs = [night.start(*options, environment=environment)]
    assert runs[0].wait() == 0, runs[0].said
    assert runs[0].report["by_model"][dialect.model_name]["taken_over"] == ROWS // 10
    mixed = ["--model-mix", f"{dialect.model_name}=0.5", "--on-published", "redo"]
    runs.append(night.start(*mixed, "--seed", "7", environment=environment))
    assert runs[-1].wait() in (0, 1), runs[-1].said
    night.model_server.default = lambda request, sent: (echo_their_key if is_theirs(request) else good)(request, sent)
    night.model_server.script("spoiled", [night.model_server.default])
    for more in ([], ["--debug"]):
        runs.append(night.start(*mixed, "--seed", "8", *more, environment=environment))
        assert runs[-1].wait() == 1
        assert "[ANTHROPIC_API_KEY]" in runs[-1].said
    assert find_leaks(night, runs, expected=dialect.model_name) == set()


def is_theirs(request: web.Request) -> bool:
    """Whether a request is for Anthropic."""
    return request.path.endswith("/messages")


def refuse_ours(request: web.Request, sent: dict[str, Any]) -> web.Response:
    """Refuse what is not for Anthropic."""
    answered: web.Response = (good if is_theirs(request) else error(422))(request, sent)
    return answered


def echo_their_key(request: web.Request, sent: dict[str, Any]) -> web.Response:
    """Refuse Anthropic's key by saying it."""
    key = request.headers["x-api-key"]
    assert key == ANTHROPIC
    answered: web.Response = DIALECTS["anthropic"].error(401, f"the key {key} is not known")(request, sent)
    return answered


def test_no_key_is_in_what_a_run_on_a_cluster_sends_and_leaves(nights: Callable[[str], Night], tmp_path: Path) -> None:
    night = nights("cluster")
    night.put(0, ROWS)
    night.serve(0.0)
    with run_cluster(tmp_path, {**CANARIES, **night.environment}) as (address, crossed):
        night.more = {"PAIRMILL_DASK_SCHEDULER": address}
        runs: list[Run] = [night.start(environment=CANARIES)]
        assert runs[0].wait() == 0, runs[0].said
        assert set(night.model_server.keys) == {f"Bearer {OPENAI}"}, "the processes have paid"
        night.model_server.default = echo_key
        night.model_server.script("spoiled", [echo_key])
        runs.append(night.start("--seed", "7", "--on-published", "redo", environment=CANARIES))
        assert runs[-1].wait() == 1
        assert "[OPENAI_API_KEY]" in runs[-1].said
        left = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    left["what crossed"] = bytes(crossed)
    assert b"generate" in left["what crossed"], "a search that finds nothing proves nothing"
    assert any(path.endswith(".log") and data for path, data in left.items())
    assert find_leaks(night, runs, left, expected="cluster") == set()
