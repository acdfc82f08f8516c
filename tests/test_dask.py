"""One run on a cluster of two processes: the same rows, and nothing is paid twice or above the budget."""

import logging
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import distributed
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.cluster import StepRunner
from flows.run import main
from flows.servers import ROOT
from flows.short_text_matching import generate_short_text_pairs
from flows.telling import call
from tests.kills import kill_at
from tests.model_server import error
from tests.night import CONCURRENCY, Night
from tests.own_cluster import run_cluster
from tests.test_stops import COST, PRICE
from tests.zygote import SHORT_LEASE_SECONDS, Run

# A busy machine is no reason to fail.
pytestmark = pytest.mark.timeout(1200)

ROWS = 120
# Without a call for so long, nobody makes any.
QUIET_SECONDS = 8.0


@pytest.fixture(scope="module")
def cluster(s3_endpoint: str, prefect_api: str) -> Iterator["distributed.LocalCluster"]:
    """Run a scheduler and two processes, as a team would have them beside its runs."""
    settings: dict[str, Any] = {"host": "127.0.0.1", "dashboard_address": None, "memory_limit": 0, "silence_logs": 50}
    settings["scheduler_kwargs"] = {"dashboard_address": "127.0.0.1:0"}
    # Of a process that is silent the scheduler itself says nothing.
    dask.config.set({"distributed.scheduler.worker-ttl": None})
    with distributed.LocalCluster(n_workers=2, threads_per_worker=6, preload=["tasks.generate"], **settings) as cluster:
        yield cluster


@pytest.fixture
def night(cluster: "distributed.LocalCluster", nights: Callable[[str], Night]) -> Night:
    """Return a destination with a source, whose runs generate on the cluster."""
    night = nights("dask")
    night.put(0, ROWS)
    night.serve(0.02)
    night.more = {"PAIRMILL_DASK_SCHEDULER": cluster.scheduler_address}
    return night


def writers(night: Night) -> set[str]:
    """Return who has written to the journal."""
    from tasks.clients import storage

    segments = [item.uri for item in storage.list_objects(f"{night.destination}/journal") if "/segments/" in item.uri]
    return {segment.rpartition("/")[2].rpartition("-")[0] for segment in segments}


@pytest.mark.runs
def test_two_processes_make_the_same_rows_as_one_and_pay_once(night: Night, nights: Callable[[str], Night]) -> None:
    night.model_server.held = True
    run = night.start()
    # The first call of each process goes alone.
    while night.model_server.in_flight < 2:
        time.sleep(0.05)
    night.model_server.held = False
    assert run.wait() == 0, run.said
    assert (run.report["judged"], run.report["paid"], run.report["published"]) == (ROWS, ROWS, True)
    assert len(writers(night)) == 2, "both have paid"
    alone = nights("alone")
    alone.put(0, ROWS)
    alone.finish()
    for name in ("pairs", "rejected"):
        ours, theirs = (one.rows(name).sort("id").drop("run_id", "created_at") for one in (night, alone))
        assert ours.equals(theirs.select(ours.columns))
    calls = len(night.model_server.prompts)
    redone = night.finish("--on-published", "redo")
    assert (redone["cached"], redone["paid"]) == (ROWS, 0)
    assert len(night.model_server.prompts) == calls


@pytest.mark.runs
def test_the_process_that_leads_logs_the_lane_of_each_model(
    night: Night, prefect_api: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in night.more.items():
        monkeypatch.setenv(name, value)
    options = {"model_name": "openai/x", "api_base": night.model_server.api_base, "model_mix": ["openai/y=0.5"]}
    with temporary_settings({PREFECT_API_URL: prefect_api}), caplog.at_level(logging.INFO, logger="prefect"):
        call(generate_short_text_pairs, source=night.source, destination=night.destination, **options)
    # What the other processes log does not come here.
    said = [record.getMessage() for record in caplog.records]
    for name in ("openai/x", "openai/y"):
        assert [line.startswith(f"{name}: fast lane: ") for line in said].count(True) == 1


@pytest.mark.runs
def test_the_budget_holds_over_all_processes_and_is_used_up(night: Night) -> None:
    run = night.start(*PRICE, "--max-cost-usd", "0.04")
    assert run.wait() == 1
    assert "would exceed the $0.0400 of --max-cost-usd" in run.said
    assert run.said.count("error: ") == 1
    paid = len(night.model_server.prompts)
    worst = 0.0075
    assert (0.04 - 2 * worst) / COST < paid <= 0.04 / COST
    report = night.finish(*PRICE, "--max-cost-usd", "1")
    assert (report["cached"], report["paid"]) == (paid, ROWS - paid)
    assert night.paid_twice() == 0


@pytest.mark.runs
def test_a_refused_key_stops_all_processes_with_one_clear_line(night: Night) -> None:
    night.model_server.default = error(401)
    run = night.start()
    assert run.wait() == 1
    assert run.said.count("error: ") == 1
    assert "Set the right API key" in run.said.splitlines()[-1]
    assert len(night.model_server.prompts) <= 4, "the first call of each process goes alone"


@pytest.mark.runs
def test_a_pace_that_processes_cannot_share_is_refused(night: Night) -> None:
    run = night.start("--requests-per-minute", "1")
    assert run.wait() == 2
    assert "--requests-per-minute is 1, and the cluster has 2 processes that share it" in run.said
    assert not night.model_server.prompts


@pytest.mark.faults
def test_a_process_that_is_killed_loses_what_was_in_flight_and_no_more(
    night: Night, cluster: "distributed.LocalCluster"
) -> None:
    with distributed.Client(cluster) as client:
        pids = list(client.run(os.getpid).values())
    night.model_server.default = kill_at(40, lambda: os.kill(pids[0], signal.SIGKILL), night.model_server.default)
    report = night.finish()
    assert (report["judged"], report["published"]) == (ROWS, True)
    assert night.check_rows(ROWS) == (0, 0)
    assert night.paid_twice() <= CONCURRENCY // 2


@pytest.mark.faults
def test_ctrl_c_stops_paying_at_once_and_the_same_command_goes_on(night: Night) -> None:
    runs: list[Run] = []

    def press() -> None:
        # What is not stopped by then would go on for minutes.
        night.model_server.latency_seconds = 30.0
        os.kill(runs[0].pid, signal.SIGINT)

    night.model_server.default = kill_at(30, press, night.model_server.default)
    runs.append(run := night.start())
    assert run.wait() == 130
    night.model_server.latency_seconds = 0.0
    assert "Stopped by Ctrl-C. What was paid for is kept" in run.said.splitlines()[-1]
    calls = len(night.model_server.prompts)
    assert calls < ROWS
    night.finish()
    assert night.check_rows(ROWS) == (0, 0)
    assert night.paid_twice() <= CONCURRENCY


# So that what is left of ten sources takes minutes.
SLOW_SECONDS = 2.0
# With more calls than these, the other process has made some since one of two stood still after 20.
GONE_ON = 20 + CONCURRENCY


def stop_one(night: Night, cluster: "distributed.LocalCluster", after: int) -> int:
    """Have one process stand still once so many calls were made, and return its id."""
    with distributed.Client(cluster) as client:
        pid: int = min(client.run(os.getpid).values())
    night.model_server.default = kill_at(after, lambda: os.kill(pid, signal.SIGSTOP), night.model_server.default)
    return pid


@pytest.mark.faults
def test_a_process_that_stands_still_for_a_while_holds_up_no_other(
    night: Night, cluster: "distributed.LocalCluster"
) -> None:
    pid = stop_one(night, cluster, 20)
    run = night.start(*PRICE, "--max-cost-usd", "1")
    calls = -1
    while calls < len(night.model_server.prompts) or calls <= GONE_ON:
        calls = len(night.model_server.prompts)
        time.sleep(4)
    assert calls < ROWS, "the shards that it has in hand are not made"
    os.kill(pid, signal.SIGCONT)
    assert run.wait() == 0, run.said
    assert night.check_rows(ROWS) == (0, 0)
    with distributed.Client(cluster) as client:
        given_up = pid not in client.run(os.getpid).values()
    # On a slow machine it may have stood still for as long as one that is given up.
    assert night.paid_twice() <= (CONCURRENCY // 2 if given_up else 0)


@pytest.mark.faults
def test_a_process_that_answers_no_more_is_given_up_and_its_shard_goes_to_others(
    night: Night, cluster: "distributed.LocalCluster"
) -> None:
    pid = stop_one(night, cluster, 20)
    night.finish(*PRICE, "--max-cost-usd", "1")
    assert night.check_rows(ROWS) == (0, 0)
    assert night.paid_twice() <= CONCURRENCY // 2
    with distributed.Client(cluster) as client:
        client.wait_for_workers(2)
        assert pid not in client.run(os.getpid).values()


@pytest.mark.faults
def test_ctrl_c_does_not_wait_for_a_process_that_stands_still(
    night: Night, cluster: "distributed.LocalCluster"
) -> None:
    pid = stop_one(night, cluster, 20)
    run = night.start()
    while len(night.model_server.prompts) <= GONE_ON:
        time.sleep(0.1)
    os.kill(run.pid, signal.SIGINT)
    assert run.wait() == 130
    os.kill(pid, signal.SIGCONT)
    night.finish()
    assert night.check_rows(ROWS) == (0, 0)
    assert night.paid_twice() <= CONCURRENCY


@pytest.mark.faults
def test_a_process_that_joins_takes_the_place_of_one_that_died_and_no_other(
    night: Night, cluster: "distributed.LocalCluster"
) -> None:
    night.put(ROWS, 9 * ROWS)
    night.model_server.held = True
    run = night.start()
    while night.model_server.in_flight < 2:
        time.sleep(0.1)
    with distributed.Client(cluster) as client:
        before = set(client.run(os.getpid).values())
        dead = min(before)
        cluster.scale(3)
        try:
            client.wait_for_workers(3)
            (joined,) = set(client.run(os.getpid).values()) - before
            night.model_server.held = False
            while len(night.model_server.prompts) < 5 * ROWS:
                time.sleep(0.1)
            assert len(writers(night)) <= 2, "it has taken no place"
            # Both have found how many calls they may make, so the one that is left makes no more of them. It has
            # the shards of the dead one, too, so some must come to their end before another is dealt.
            night.model_server.latency_seconds = SLOW_SECONDS
            os.kill(dead, signal.SIGKILL)
            while night.model_server.in_flight > CONCURRENCY // 2:
                time.sleep(0.1)
            while night.model_server.in_flight <= CONCURRENCY // 2:
                assert len(night.model_server.prompts) < 10 * ROWS, "its place was not taken"
                time.sleep(0.1)
            assert joined in client.run(os.getpid).values()
            night.model_server.latency_seconds = 0.0
            assert run.wait() == 0, run.said
        finally:
            night.model_server.held = False
            cluster.scale(2)
    assert len(writers(night)) > 2, "the place was taken"
    assert night.model_server.most_in_flight <= CONCURRENCY
    assert night.check_rows(10 * ROWS) == (0, 0)
    assert night.paid_twice() <= CONCURRENCY // 2


@pytest.mark.faults
def test_processes_whose_leader_is_killed_stop_paying_by_themselves(night: Night) -> None:
    # All of them would take two minutes.
    night.model_server.latency_seconds = 8.0
    night = replace(night, lease_seconds=SHORT_LEASE_SECONDS)
    run = night.start()
    while len(night.model_server.prompts) <= CONCURRENCY:
        time.sleep(0.1)
    os.kill(run.pid, signal.SIGKILL)
    # Closed connections end calls in flight at the server, too.
    since = time.monotonic()
    while time.monotonic() - since < QUIET_SECONDS:
        time.sleep(0.1)
        if night.model_server.in_flight:
            since = time.monotonic()
    assert len(night.model_server.prompts) < ROWS
    night.model_server.latency_seconds = 0.0
    night.finish()
    assert night.check_rows(ROWS) == (0, 0)
    assert night.paid_twice() <= CONCURRENCY


@pytest.mark.faults
@pytest.mark.parametrize("name", ["scheduler", "workers"])
def test_a_cluster_without_the_checkout_is_refused_before_a_call(
    name: str, nights: Callable[[str], Night], tmp_path: Path
) -> None:
    night = nights("lacking")
    night.put(0, 3)
    night.serve(0.0)
    with run_cluster(tmp_path, night.environment, {name: tmp_path}) as (address, _):
        run = night.start(environment={"PAIRMILL_DASK_SCHEDULER": address})
        assert run.wait() == 1
    assert "does not find this checkout. Start scheduler and processes with it" in run.said.splitlines()[-1]
    assert run.said.count("error: ") == 1
    assert not night.model_server.prompts


@pytest.mark.faults
def test_a_run_whose_processes_are_all_gone_ends_and_the_same_command_goes_on(
    nights: Callable[[str], Night], tmp_path: Path
) -> None:
    night = nights("gone")
    night.put(0, ROWS)
    night.serve(0.05)
    with run_cluster(tmp_path, night.environment) as (address, _):
        with distributed.Client(address) as client:
            group = os.getpgid(min(client.run(os.getpid).values()))
        night.model_server.default = kill_at(40, lambda: os.killpg(group, signal.SIGKILL), night.model_server.default)
        run = night.start(environment={"PAIRMILL_DASK_SCHEDULER": address})
        assert run.wait() == 1
    assert "No process of the Dask cluster has been there for 60 seconds" in run.said.splitlines()[-1]
    assert run.said.count("error: ") == 1
    night.finish()
    assert night.check_rows(ROWS) == (0, 0)
    assert night.paid_twice() <= CONCURRENCY


def test_a_flow_crosses_process_borders_with_its_runner() -> None:
    assert isinstance(pickle.loads(pickle.dumps(StepRunner())), StepRunner)


OPTIONS = ["--source", "s3://b/x", "--destination", "s3://b/y", "--model-name", "openai/x", "--dask-scheduler"]
WRONG = {
    "nonsense": "Give the address of a scheduler, tcp://host:port, or how many processes",
    "0": "--dask-scheduler (PAIRMILL_DASK_SCHEDULER) is '0'. Give the address",
    "tcp://127.0.0.1:9": "No Dask scheduler answers at tcp://127.0.0.1:9",
}


@pytest.mark.parametrize("named", WRONG)
def test_a_cluster_that_cannot_be_is_refused_at_once(
    named: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAIRMILL_DASK_SCHEDULER", "")
    assert main([*OPTIONS, named]) == 2
    assert WRONG[named] in capfd.readouterr().err


def test_without_the_extra_one_line_names_it() -> None:
    code = "import sys; sys.modules['prefect_dask'] = None; from flows.run import main; sys.exit(main(sys.argv[1:]))"
    line = [sys.executable, "-c", code, *OPTIONS, "2"]
    ended = subprocess.run(line, cwd=ROOT, check=False, capture_output=True, text=True)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)
    assert "needs the extra dask" in ended.stderr
