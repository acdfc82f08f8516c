"""kill -9 of a run at random moments, and what is left after the next run has ended."""

import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import web

from flows.servers import ROOT
from tests.model_server import Behaviour
from tests.night import CONCURRENCY, Night
from tests.reader import TABLES, digest
from tests.s3_proxy import Action
from tests.tally import tally
from tests.zygote import Run

LOG = logging.getLogger(__name__)
pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

# Of each test: there are two for each machine.
KILLS = int(os.environ.get("PAIRMILL_KILLS", "11"))
PARTS = 2
SEED = int(os.environ.get("PAIRMILL_KILLS_SEED", "1"))
ROWS = 120
LATENCY_SECONDS = 0.03
# A reply counts as uploaded when it had arrived this long before its segment's upload.
SLACK_SECONDS = 0.5

# The requests to the storage that a phase consists of, and how many of them to let pass at most.
PHASES = {
    "lease of the source": ("/staging/source-", 2),
    "lease of the plan": ("/staging/plan.lease", 2),
    "plan": ("/plan/", 4),
    "flush": ("PUT {place}/journal/", 1),
    "completions": ("/completions/", 5),
    "judged": ("/judged/", 5),
    "publish lease": ("/publish.lease", 2),
    "rejected table": ("{place}/rejected/", 9),
    "data of rejected": ("{place}/rejected/partition", 0),
    "first commit": ("PUT {place}/rejected/_delta_log/", 1),
    "data of pairs": ("{place}/pairs/partition", 0),
    "second commit": ("PUT {place}/pairs/_delta_log/", 1),
    "report": ("PUT {place}/runs/", 0),
    "removal of staging": ("POST /", 0),
}


@pytest.fixture
def reader(s3_endpoint: str, tmp_path: Path) -> Iterator[tuple[Callable[[str], None], Path]]:
    """Yield what names the destination that the reader polls, and the file of the states that it saw."""
    path = tmp_path / "states"
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.reader", str(path)],
        cwd=ROOT,
        env={**os.environ, "AWS_ENDPOINT_URL": s3_endpoint},
        stdin=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    write = child.stdin

    def watch(destination: str) -> None:
        write.write(destination + "\n")
        write.flush()

    yield watch, path
    child.kill()
    child.communicate()


def draw_moments(machine: str, part: int) -> list[tuple[str, str]]:
    """Return moments to kill at: phases, before or after the storage carried them out, and some by time or call."""
    draw = random.Random(f"{SEED} {machine}")
    moments = [(phase, draw.choice(["kill", "kill after"])) for phase in PHASES]
    moments += [(draw.choice(["time", "call"]), "") for _ in range(len(moments), PARTS * KILLS)]
    moments = draw.sample(moments, len(moments))[part::PARTS]
    # A run that ends before its moment has come does not count.
    return moments + [(draw.choice(["time", "call"]), "") for _ in range(KILLS)]


def arm(run: Run, night: Night, moment: tuple[str, str], draw: random.Random, *, seconds: float) -> None:
    """See to it that `run` is killed at `moment`; `seconds` is what a whole run takes."""

    def kill() -> None:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)

    phase, action = moment
    if phase == "time":
        threading.Timer(draw.uniform(0.1, seconds), kill).start()
    elif phase == "call":
        night.model_server.default = kill_at(draw.randrange(ROWS // 2), kill, night.model_server.default)
    else:
        text, most = PHASES[phase]
        text = text.format(place=night.place)
        night.proxy.fault(text, cast("Action", action), skip=draw.randint(0, most), times=1, pid=run.pid)


def kill_at(call: int, kill: Callable[[], None], behaviour: Behaviour) -> Behaviour:
    """Return a behaviour that kills the run when the model server has answered `call` calls."""
    answered = 0

    def behave(request: web.Request, body: dict[str, Any]) -> Any:
        nonlocal answered
        answered += 1
        if answered == call + 1:
            kill()
        return behaviour(request, body)

    return behave


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("machine", ["kept", "lost"])
def test_a_killed_run_loses_nothing_and_pays_only_what_was_in_flight_again(
    machine: str, part: int, nights: Callable[[str], Night], reader: tuple[Callable[[str], None], Path]
) -> None:
    watch, states = reader
    draw = random.Random(f"{SEED} {machine} {part} moments")
    whole: dict[str, set[str]] = {}
    killed, seconds = 0, 4.0
    for number, moment in enumerate(draw_moments(machine, part)):
        if killed == KILLS:
            break
        # A destination's story: half of the source, all of it, and all of it judged anew with fresh completions.
        chapter = number % 3
        if chapter == 0:
            night = nights(f"n{number}")
            whole |= {f"{night.destination} {name}": {digest(f"{night.destination}/{name}")} for name in TABLES}
            watch(night.destination)
        if chapter < 2:
            night.put(chapter * ROWS, ROWS)
        options = ["--on-published", "redo", "--seed", str(number)] if chapter == 2 else []
        night.serve(LATENCY_SECONDS)
        night.proxy.forget()
        run = night.start(*options)
        arm(run, night, moment, draw, seconds=seconds)
        died = run.wait() == -signal.SIGKILL
        where = (
            f"{machine} {part} {number}: {moment}, seed {SEED}, {time.monotonic() - run.started:.2f} s after the start"
        )
        bound = CONCURRENCY
        if machine == "lost":
            bound += calls_since_last_upload(night)
            night.lose_machine()
        night.proxy.forget()
        calls, started = len(night.model_server.prompts), time.monotonic()
        night.finish(*options)
        seconds = time.monotonic() - started
        again, (lost, doubled) = night.paid_twice(), night.check_rows(ROWS * min(chapter + 1, 2))
        LOG.info("%s: died %s, %d calls, %d paid twice of at most %d", where, died, calls, again, bound)
        tally["kills survived"] += died
        tally["rows lost"] += lost
        tally["rows duplicated"] += doubled
        tally[f"completions paid twice, machine {machine}"] += again
        tally[f"  of at most, machine {machine}"] += bound
        assert (lost, doubled) == (0, 0), where
        assert again <= bound, where
        assert len(set(night.model_server.prompts)) == (2 * ROWS if chapter == 2 else ROWS), where
        for name in TABLES:
            whole[f"{night.destination} {name}"].add(digest(f"{night.destination}/{name}"))
        killed += died
    for line in states.read_text().splitlines():
        destination, name, state = json.loads(line)
        assert state in whole[f"{destination} {name}"], f"a reader saw {name} of {destination} in part: {state}"
        tally["states that a reader saw, each whole"] += 1
    assert killed == KILLS


def calls_since_last_upload(night: Night) -> int:
    """Return how many calls had arrived after the journal's last upload, or so shortly before that it lacks them."""
    uploads = [seen["time"] for seen in night.proxy.seen() if "/segments/" in seen["path"] and seen["method"] == "PUT"]
    return sum(arrived > max(uploads, default=0.0) - SLACK_SECONDS for arrived in night.model_server.times)


# Of the upkeep, as PHASES.
UPKEEP = {
    "the lease of the compaction": "PUT {place}/journal/recipe",
    "the compacted file": "/compacted/",
    "the list of what it replaces": ".replaces.json",
    "a merged file of a table": "PUT {place}/pairs/partition",
    "the commit of a merge": "PUT {place}/pairs/_delta_log/",
}


def test_a_killed_upkeep_loses_nothing(nights: Callable[[str], Night]) -> None:
    draw = random.Random(f"{SEED} upkeep")
    night = nights("upkeep")
    night.serve(0.0)
    for number, (phase, text) in enumerate(UPKEEP.items()):
        night.put(number * 10, 10)
        night.finish()
        action = cast("Action", draw.choice(["kill", "kill after"]))
        upkeep = night.start_upkeep()
        night.proxy.fault(text.format(place=night.place), action, times=1, pid=upkeep.pid)
        died = upkeep.wait() == -signal.SIGKILL
        night.proxy.forget()
        tally["kills survived"] += died
        upkeep = night.start_upkeep()
        assert upkeep.wait() == 0, upkeep.said
        assert died, f"{phase} was never reached"
        assert night.check_rows((number + 1) * 10) == (0, 0)
    redo = night.finish("--on-published", "redo")
    assert (redo["paid"], redo["cached"]) == (0, 10 * len(UPKEEP)), "the journal holds all that was paid for"
    assert night.paid_twice() == 0
