"""Errors that are not ours bring no key into Prefect, from a step, a flow or a child flow, on Dask or not."""

import os
import subprocess
import sys

import pytest

from flows.servers import ROOT
from tasks.clients.concealment import conceal, keys_concealed
from tasks.core.errors import ModelError
from tests.test_security import CANARIES, prefects_database

KEY = CANARIES["OPENAI_API_KEY"]
# How Prefect is left by a bug whose text, cause or context holds a key.
BREAK = """
import os, sys
from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner
from flows.telling import tell
from tasks.core.errors import ModelError
from tasks.policy import step

def fail(where):
    key = os.environ["OPENAI_API_KEY"]
    try:
        raise LookupError(f"{where}: the cause holds {key}")
    except LookupError as error:
        if where == "ours":
            raise ModelError("the key was refused by ours") from error
        raise ValueError(f"a bug of {where} at {key}") from error

@step("break", "break")
def break_step(where):
    fail(where)

def runner():
    if sys.argv[1] == "thread":
        return ThreadPoolTaskRunner()
    from prefect_dask import DaskTaskRunner
    return DaskTaskRunner(cluster_kwargs={"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None})

@flow(name="child")
@tell(str)
def child():
    fail("child")

@flow(name="parent")
@tell(str)
def parent(where):
    if where == "child":
        child()
    elif where == "flow":
        fail(where)
    else:
        break_step.submit(where).result()

if __name__ == "__main__":
    for where in ("step", "ours", "flow", "child"):
        flow = parent.with_options(task_runner=runner()) if where in ("step", "ours") else parent
        state = flow(where, return_state=True)
        print(where, state.type, state.message)
"""


@pytest.mark.parametrize("runner", ["thread", pytest.param("dask", marks=pytest.mark.runs)])
def test_an_error_of_a_library_brings_no_key_into_prefect(runner: str, prefect_api: str) -> None:
    environment = {
        **os.environ,
        **CANARIES,
        "PREFECT_API_URL": prefect_api,
        "PREFECT_LOGGING_LEVEL": "DEBUG",
        "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.1",
    }
    done = subprocess.run(
        [sys.executable, "-c", BREAK, runner], check=False, cwd=ROOT, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    stored = prefects_database()
    for said in ("a bug of step at [OPENAI_API_KEY]", "by ours", "a bug of flow at [OPENAI_API_KEY]", "a bug of child"):
        assert said.encode() in stored, "a search that finds nothing proves nothing"
    assert b"Traceback" in stored
    assert KEY.encode() not in stored
    assert KEY not in done.stdout + done.stderr


def test_an_error_without_a_key_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(ZeroDivisionError) as caught, keys_concealed():
        raise ZeroDivisionError
    assert caught.value.__traceback__ is not None
    with pytest.raises(ModelError, match=r"^refused \[OPENAI_API_KEY\]$"), keys_concealed():
        raise ModelError(f"refused {KEY}")


def test_a_key_with_a_line_break_behind_it_is_concealed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "sk-0123456789\n")
    assert conceal("Illegal header value b'Bearer sk-0123456789\\n'") == "Illegal header value b'Bearer [A_KEY]\\n'"


def test_of_two_keys_that_begin_alike_no_part_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "sk-0123456789")
    monkeypatch.setenv("B_KEY", "sk-0123456789-tail")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:tell-nobody@proxy:3128")
    assert conceal("sk-0123456789-tail sk-0123456789 http://user:tell-nobody@proxy:3128") == (
        "[B_KEY] [A_KEY] http://user:[HTTPS_PROXY]@proxy:3128"
    )
