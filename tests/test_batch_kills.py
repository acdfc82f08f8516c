"""kill -9 of a run with --batch at random moments, and what is left at the provider and in the tables."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from aiohttp import web

from tests.batch_server import NEVER, BatchServer, Fate
from tests.model_server import reset
from tests.night import LOST_LEASE, Night
from tests.s3_proxy import Action, S3Proxy
from tests.tally import tally
from tests.zygote import BATCH_LINES, SHORT_LEASE_SECONDS, Run, Zygote

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

KILLS = int(os.environ.get("PAIRMILL_KILLS", "11"))
SEED = int(os.environ.get("PAIRMILL_KILLS_SEED", "1"))
ROWS = 5_000
FEW_ROWS = 60
PARTS = 2
TRIES = 3

# Operations of the provider, and which of the requests for a batch's record in the bucket: each before or after it.
OPERATIONS = ("upload", "create", "create", "retrieve", "content", "delete")
RECORDS = ("its keys", "what will be sent", "what was sent", "its keys, read", "that it is collected")
MOMENTS = [(kind, when) for kind in (*OPERATIONS, *RECORDS) for when in ("before", "after")]


@pytest.fixture
def nights(
    bucket: str, zygote: Zygote, batch_server: BatchServer, s3_proxy: S3Proxy, tmp_path: Path
) -> Callable[[str], Night]:
    """Return what makes a destination of this name, with its source."""
    return lambda name: Night(bucket, name, zygote, batch_server, s3_proxy, tmp_path / "state")


def kill(run: Run) -> None:
    with suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGKILL)


def arm(run: Run, night: Night, server: BatchServer, moment: tuple[str, str], skip: int) -> None:
    """See to it that `run` is killed at `moment`, when it has passed `skip` times."""
    kind, when = moment
    if kind in RECORDS:
        action = cast("Action", {"before": "kill", "after": "kill after"}[when])
        night.proxy.fault("/batches/", action, skip=RECORDS.index(kind), times=1, pid=run.pid)
        return
    left = skip

    def hook(operation: str, moment: str, request: web.Request) -> web.Response | None:
        nonlocal left
        if (operation, moment) != (kind, when):
            return None
        left -= 1
        if left != -1:
            return None
        kill(run)
        return reset(request, {})

    server.hook = hook


def serve(night: Night, server: BatchServer, fates: list[Fate]) -> None:
    night.serve(0.0)
    server.fates = fates
    night.proxy.forget()


def test_five_thousand_requests_killed_twice_are_sent_once_and_rows_are_those_of_a_live_run(
    nights: Callable[[str], Night], batch_server: BatchServer
) -> None:
    draw = random.Random(f"{SEED} batches")
    live = replace(nights("live"), shard_rows=BATCH_LINES)
    live.put(0, ROWS)
    serve(live, batch_server, [])
    live.finish()
    assert len(batch_server.prompts) == ROWS

    night = replace(nights("batched"), shard_rows=BATCH_LINES, lease_seconds=SHORT_LEASE_SECONDS)
    night.put(0, ROWS)
    half = Fate("failed", looks=3, answered=0.5, says_so=False)
    serve(night, batch_server, [Fate(looks=3), Fate("expired", looks=4, answered=0.7), half, Fate(looks=5)])
    batches = ROWS // BATCH_LINES
    first = (draw.choice(["create", "upload"]), draw.choice(["before", "after"])), draw.randrange(batches)
    second = (draw.choice(["retrieve", "content"]), draw.choice(["before", "after"])), draw.randrange(2, batches)
    for moment, skip in (first, second):
        while True:
            run = night.start("--batch")
            arm(run, night, batch_server, moment, skip)
            if run.wait() == -signal.SIGKILL:
                break
            assert LOST_LEASE in run.said, (moment, skip, run.said)
        tally["kills of a run with --batch"] += 1
    batch_server.hook = lambda operation, moment, request: None
    report = night.finish("--batch")

    tally["requests sent twice"] += batch_server.doubled.total()
    tally["requests answered by batches"] += batch_server.answered.total()
    assert batch_server.doubled.total() == 0
    assert set(batch_server.answered.values()) == {1}
    assert len(batch_server.answered) == ROWS
    assert batch_server.prompts == [], "no live call was made"
    assert (report["judged"], report["paid"], report["cached"] + report["batched"]) == (ROWS, report["batched"], ROWS)
    for name in ("pairs", "rejected"):
        rows = [one.rows(name).sort("id").drop("run_id", "created_at", "cost_usd") for one in (live, night)]
        assert rows[0].height == ROWS * (9 if name == "pairs" else 1) // 10
        assert rows[0].equals(rows[1])
    assert batch_server.files == {}, "nothing is left at the provider"


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_waits_leaves_at_once_says_how_to_go_on_and_its_batch_is_collected_later(
    stop: signal.Signals, nights: Callable[[str], Night], batch_server: BatchServer
) -> None:
    night = nights("out")
    night.put(0, FEW_ROWS)
    serve(night, batch_server, [NEVER])
    run = night.start("--batch")
    while not any(job.looks for job in batch_server.jobs.values()):
        time.sleep(0.05)
    os.kill(run.pid, stop)
    assert run.wait() == {signal.SIGINT: 130, signal.SIGTERM: 143}[stop]
    assert "run the same command again to go on. Its batches go on at the provider" in run.said
    for job in batch_server.jobs.values():
        job.fate = Fate()
    assert night.finish("--batch")["batched"] == FEW_ROWS
    assert (len(batch_server.jobs), batch_server.prompts, night.check_rows(FEW_ROWS)) == (1, [], (0, 0))


@pytest.mark.parametrize("part", range(PARTS))
def test_a_run_killed_at_any_moment_of_a_batch_sends_nothing_twice(
    part: int, nights: Callable[[str], Night], batch_server: BatchServer
) -> None:
    draw = random.Random(f"{SEED} moments of batches")
    moments = [*MOMENTS, ("time", ""), ("time", "")]
    moments = draw.sample(moments, min(KILLS, len(moments)))[part::PARTS]
    killed = 0
    # A run that a busy machine holds up may end before its moment has come: it is tried again.
    left = [(moment, TRIES) for moment in moments]
    for number, (moment, tries) in enumerate(left):
        night = replace(nights(f"n{number}"), lease_seconds=SHORT_LEASE_SECONDS)
        night.put(0, FEW_ROWS)
        batch_server.begin_test()
        serve(night, batch_server, [Fate("expired", looks=2, answered=0.5), Fate(looks=2)])
        run = night.start("--batch")
        if moment[0] == "time":
            threading.Timer(draw.uniform(0.5, 3.0), kill, [run]).start()
        else:
            arm(run, night, batch_server, moment, draw.randrange(2) if moment[0] in OPERATIONS[:3] else 0)
        died = run.wait() == -signal.SIGKILL
        if draw.random() < 0.5:
            night.lose_machine()
        night.proxy.forget()
        batch_server.hook = lambda operation, moment, request: None
        night.finish("--batch")
        where = f"{moment}, seed {SEED}"
        tally["kills of a run with --batch"] += died
        tally["requests sent twice"] += batch_server.doubled.total()
        tally["requests answered by batches"] += batch_server.answered.total()
        if not died and moment[0] != "time":
            assert tries > 1, where
            left.append((moment, tries - 1))
        assert night.check_rows(FEW_ROWS) == (0, 0), where
        assert (batch_server.doubled.total(), set(batch_server.answered.values())) == (0, {1}), where
        assert batch_server.prompts == [], where
        killed += died
    assert killed or not moments
