"""The real command with processes of its own, as a terminal runs it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from flows.servers import ROOT
from tests.kills import kill_at
from tests.night import CONCURRENCY, Night
from tests.stack import wait_for
from tests.test_dask import writers

# A busy machine is no reason to fail.
pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]

# Three shards, which are no smaller.
ROWS = 1_200


def start(night: Night, prefect_api: str) -> "subprocess.Popen[str]":
    """Start the command on two processes, in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "flows.run", *night.options, "--dask-scheduler", "2", "--output", "json"],
        cwd=ROOT,
        env={**os.environ, **night.environment, "PREFECT_API_URL": prefect_api},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def living(session: int) -> list[str]:
    """Return the command lines of a session's processes."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, sid = stat.read_text().rpartition(")")[2].split()[:4]
            if int(sid) == session and state != "Z":
                found.append(stat.with_name("cmdline").read_text().replace("\0", " "))
    return found


def test_ctrl_c_ends_all_processes_and_the_same_command_goes_on_to_its_end(
    nights: Callable[[str], Night], prefect_api: str
) -> None:
    night = nights("local")
    night.put(0, ROWS)
    night.serve(0.02)
    run = start(night, prefect_api)
    children = []

    def interrupt() -> None:
        children.extend(living(run.pid))
        # What is not stopped by then would go on for minutes.
        night.model_server.latency_seconds = 3.0
        # A terminal sends it to the whole group.
        os.killpg(run.pid, signal.SIGINT)

    night.model_server.default = kill_at(30, interrupt, night.model_server.default)
    out, said = run.communicate()
    assert (run.returncode, out) == (130, "")
    assert "Stopped by Ctrl-C. What was paid for is kept: run the same command again" in said.splitlines()[-1]
    assert len(children) > 2, "the run and two processes at least"
    wait_for("the end of all processes", lambda: not living(run.pid))
    calls = len(night.model_server.prompts)
    assert 30 < calls < ROWS

    night.model_server.latency_seconds = 0.02
    again = start(night, prefect_api)
    out, said = again.communicate()
    assert again.returncode == 0, said
    wait_for("the end of all processes", lambda: not living(again.pid))
    report = json.loads(out)
    assert (report["judged"], report["published"]) == (ROWS, True)
    assert night.check_rows(ROWS) == (0, 0)
    assert night.paid_twice() <= CONCURRENCY
    assert len(writers(night)) > 2, "of each run"
