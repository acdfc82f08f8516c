"""Whole runs beside each other, over a broken network, on a full disk and without permission."""

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from aiohttp import web

from flows.servers import serve
from tasks.clients.storage import list_folder, read_bytes
from tasks.events import PUBLISHED
from tests.kills import kill_at
from tests.model_server import answer, good_text, read_prompt
from tests.night import CONCURRENCY, DAY, Night
from tests.s3_proxy import Action, S3Proxy
from tests.tally import tally
from tests.zygote import SHORT_LEASE_SECONDS, Run

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

ROWS = 80
OTHER_DAY = "2026-11-02"
# Longer than any library tries by itself to reach one that refuses connections.
OUTAGE_SECONDS = 10.0


def check_whole(night: Night, rows: int = ROWS, again: int = 0) -> None:
    """Check that every description stands in the tables once, and that at most `again` completions were paid twice."""
    lost, doubled = night.check_rows(rows)
    tally["rows lost"] += lost
    tally["rows duplicated"] += doubled
    assert (lost, doubled) == (0, 0)
    assert night.paid_twice() <= again


def pad(request: web.Request, sent: dict[str, Any]) -> Any:
    """Answer with a pair and a long blank behind it."""
    return answer(good_text(read_prompt(sent)) + " " * 1_500)(request, sent)


def said_once(night: Night, *options: str, **how: dict[str, int]) -> str:
    """Run into a fault and return the one line of the error, which says that a run goes on, or what to do."""
    run = night.start(*options, limits=how.get("limits"))
    assert run.wait() == 1, run.said
    (line,) = [line for line in run.said.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in run.said
    return line


@pytest.fixture
def night(nights: Callable[[str], Night]) -> Night:
    one = nights("out")
    one.put(0, ROWS)
    one.serve(0.01)
    return one


def test_two_runs_of_one_partition_pay_once_and_agree(night: Night) -> None:
    night.serve(0.05)
    runs = [night.start(), night.start()]
    assert [run.wait() for run in runs] == [0, 0], runs[0].said + runs[1].said
    check_whole(night)
    assert sorted(run.report["requests"] for run in runs) == [0, ROWS]


def test_two_partitions_at_once_both_succeed(night: Night) -> None:
    other = replace(night, name="other", into=night.name, day=OTHER_DAY)
    other.put(ROWS, ROWS)
    runs = [night.start(), other.start()]
    assert [run.wait() for run in runs] == [0, 0], runs[0].said + runs[1].said
    check_whole(night, 2 * ROWS)
    assert set(night.rows("pairs")["partition"]) == {DAY, OTHER_DAY}


def test_two_partitions_with_common_descriptions_share_them_out(night: Night) -> None:
    night.model_server.held = True
    other = replace(night, name="other", into=night.name, day=OTHER_DAY)
    other.put(ROWS // 2, ROWS)
    runs = [night.start(), other.start()]
    plans: set[str] = set()
    while len(plans) < len(runs):
        time.sleep(0.1)
        plans |= {seen["path"] for seen in night.proxy.seen() if "/plan/000000" in seen["path"]}
    night.model_server.held = False
    assert [run.wait() for run in runs] == [0, 0], runs[0].said + runs[1].said
    check_whole(night, ROWS + ROWS // 2)
    reports = [run.report for run in runs]
    assert sorted(report["claimed"] for report in reports) == [0, ROWS // 2]
    assert {report["published"] for report in reports} == {True}


def test_a_redo_beside_a_run_of_the_same_descriptions_removes_nothing_and_says_to_wait(night: Night) -> None:
    night.model_server.held = True
    run = night.start()
    while not night.model_server.prompts:
        time.sleep(0.05)
    other = replace(night, name="other", into=night.name, day=OTHER_DAY)
    other.put(ROWS // 2, ROWS)
    beside = other.start("--on-published", "redo")
    assert beside.wait() == 1
    assert "Run again when it has ended" in beside.said
    night.model_server.held = False
    assert run.wait() == 0, run.said
    other.finish("--on-published", "redo")
    # What nothing was accepted of for the one day was tried for the other, too.
    assert night.rows("pairs")["id"].is_unique().all()
    assert set(night.rows("pairs")["id"]) | set(night.rows("rejected")["id"]) == set(range(ROWS + ROWS // 2))


def test_what_a_dead_run_has_claimed_is_made_by_the_next(night: Night) -> None:
    night = replace(night, lease_seconds=SHORT_LEASE_SECONDS)
    night.proxy.fault("/judged/", "kill", times=1, pid=(run := night.start()).pid)
    assert run.wait() == -signal.SIGKILL
    night.proxy.forget()
    other = replace(night, name="other", into=night.name, day=OTHER_DAY)
    other.put(0, ROWS)
    report = other.finish()
    assert (report["claimed"], report["requests"]) == (0, ROWS)
    check_whole(night, again=CONCURRENCY)


@pytest.mark.parametrize("written", [0, 2])
def test_a_run_that_is_killed_around_its_report_gets_report_and_event_from_the_next(
    night: Night, prefect_api: str, written: int
) -> None:
    night = replace(night, lease_seconds=SHORT_LEASE_SECONDS)
    night.proxy.fault(f"PUT {night.place}/runs/", "kill", skip=written, times=1, pid=(run := night.start()).pid)
    assert run.wait() == -signal.SIGKILL
    night.proxy.forget()
    assert night.finish()["requests"] == 0
    tally["faults injected"] += 1
    check_whole(night)
    reports = [read_json(item.uri) for item in list_folder(f"{night.destination}/runs") if item.uri.endswith(".json")]
    (dead,) = [report for report in reports if report["published"]]
    assert (dead["accepted"], dead["rejected"], len(reports)) == (night.rows("pairs").height, ROWS // 10, 2)
    asked = {"filter": {"event": {"name": [PUBLISHED]}}}
    while True:
        events = httpx.post(f"{prefect_api}/events/filter", json=asked).json()["events"]
        if found := [one["payload"] for one in events if one["payload"]["run_id"] == dead["run_id"]]:
            break
        time.sleep(0.2)
    assert [payload["files"] for payload in found] == [dead["files"]]


def read_json(uri: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(read_bytes(uri))
    return found


LOST_REPLIES = {
    "the lease of the source": "PUT {place}/staging/source-",
    "a plan": "/plan/",
    "a segment": "PUT {place}/journal/",
    "judged rows": "/judged/",
    "the publish lease": "PUT {place}/staging/publish.lease",
    "a new table": "PUT {place}/rejected/_delta_log/00000000000000000000.json",
    "the first commit": "PUT {place}/rejected/_delta_log/00000000000000000001.json",
    "the second commit": "PUT {place}/pairs/_delta_log/00000000000000000001.json",
    "the report": "PUT {place}/runs/",
}


@pytest.mark.parametrize("what", list(LOST_REPLIES))
def test_a_write_whose_reply_is_lost_is_recognised(what: str, night: Night) -> None:
    night.proxy.fault(LOST_REPLIES[what].format(place=night.place), "lose", times=1)
    night.finish()
    lost = [seen for seen in night.proxy.seen() if seen["fault"] == "lose"]
    assert len(lost) == 1
    tally["faults injected"] += 1
    check_whole(night)


@pytest.mark.parametrize("action", ["reset", "lose", "truncate", "stall"])
def test_a_hostile_network_to_the_bucket_loses_nothing(action: Action, night: Night) -> None:
    night.proxy.fault(night.place, action, share=0.1, seconds=1.0)
    run = night.start()
    code = run.wait()
    tally["faults injected"] += sum(seen["fault"] == action for seen in night.proxy.seen())
    night.proxy.forget()
    assert code == 0 or (code == 1 and run.said.count("error: ") == 1 and "Traceback" not in run.said), run.said
    night.finish()
    check_whole(night, again=CONCURRENCY)


def test_a_scan_that_fails_for_good_is_tried_again_by_its_step(night: Night) -> None:
    # Both shards' rows are written; then each read of them is dropped, more often than polars itself tries.
    night.proxy.fault("/judged/", "reset", skip=2, times=18)
    night.finish()
    tally["faults injected"] += sum(seen["fault"] == "reset" for seen in night.proxy.seen())
    check_whole(night)


def test_a_storage_that_is_away_for_some_seconds_is_waited_for(night: Night, s3_endpoint: str) -> None:
    night.model_server.held = True
    with serve("tests.s3_proxy", "{port}", s3_endpoint) as server:
        server.wait()
        run = replace(night, proxy=S3Proxy(server.url), lease_seconds=120.0).start()
        while not night.model_server.prompts:
            time.sleep(0.05)
    night.model_server.held = False
    time.sleep(OUTAGE_SECONDS)
    with serve("tests.s3_proxy", str(server.port), s3_endpoint):
        assert run.wait() == 0, run.said
    tally["faults injected"] += 1
    check_whole(night)


@pytest.mark.parametrize("prefix", ["staging/", "journal/", "rejected/", "pairs/", "runs/"])
def test_a_prefix_that_may_not_be_written_is_named_and_nothing_is_lost(prefix: str, night: Night) -> None:
    night.proxy.fail(f"PUT {night.place}/{prefix}", 403, "AccessDenied")
    assert f"{night.destination}/{prefix.rstrip('/')}" in said_once(night)
    tally["faults injected"] += 1
    night.proxy.forget()
    night.finish()
    check_whole(night)


def test_a_bucket_that_vanishes_is_named_and_nothing_is_lost(night: Night) -> None:
    bucket = night.bucket.removeprefix("s3://")
    night.proxy.fault(f"/{bucket}", "error", skip=20, status=404, code="NoSuchBucket")
    assert bucket in said_once(night)
    tally["faults injected"] += 1
    night.proxy.forget()
    night.finish()
    check_whole(night, again=CONCURRENCY)


def test_a_full_disk_stops_the_run_and_nothing_is_lost(night: Night) -> None:
    # Of such replies a few fill the file, before it is uploaded and another one begins.
    night.model_server.default = pad
    line = said_once(night, limits={"RLIMIT_FSIZE": 12_000})
    assert "PAIRMILL_STATE" in line
    tally["faults injected"] += 1
    paid = len(night.model_server.prompts)
    assert 0 < paid < ROWS, "it was to stop in the middle"
    night.finish()
    check_whole(night, again=CONCURRENCY)


def test_a_disk_that_is_full_before_a_call_is_named(night: Night) -> None:
    night.put(ROWS, 3_000)
    assert said_once(night, limits={"RLIMIT_FSIZE": 12_000}).startswith("error: The disk of ")
    tally["faults injected"] += 1
    assert night.model_server.prompts == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_flushes_and_says_how_to_go_on(number: signal.Signals, code: int, night: Night) -> None:
    night.serve(0.2)
    runs: list[Run] = []
    good = night.model_server.default
    night.model_server.default = kill_at(ROWS // 4, lambda: os.kill(runs[0].pid, number), good)
    runs.append(run := night.start())
    assert run.wait() == code
    assert "run the same command again" in run.said
    assert list(night.state.rglob("*.jsonl")) == [], "the journal was flushed"
    night.finish()
    check_whole(night, again=CONCURRENCY)
