"""kill -9 of a run at random moments, and what is left after the next run has ended."""

import json
import logging
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from aiohttp import web

from tasks.clients import frames, storage
from tests.model_server import Behaviour
from tests.night import CONCURRENCY, Night
from tests.reader import TABLES, digest
from tests.s3_proxy import Action
from tests.tally import tally
from tests.zygote import SHARD_ROWS, SHORT_LEASE_SECONDS, Run

LOG = logging.getLogger(__name__)

# Twice as many for each machine, shared out among parts: a part is what one of xdist's workers takes at a time,
# and has one kill at least.
PARTS = 4
KILLS = max(PARTS // 2, int(os.environ.get("PAIRMILL_KILLS", "10")))
SEED = int(os.environ.get("PAIRMILL_KILLS_SEED", "1"))
ROWS = 120
ATTEMPTS = 3
LATENCY_SECONDS = 0.03

# The requests to the storage that a phase consists of, and how many of them to let pass at most.
PHASES = {
    "lease of the source": ("/staging/source-", 2),
    "lease of the plan": ("/staging/plan.lease", 2),
    "plan": ("/plan/", 4),
    "flush": ("PUT {place}/journal/", 1),
    "completions": ("/completions/", 5),
    "judged": ("/judged/", 5),
    "plan of the second round": (f"/plan/{ROWS // SHARD_ROWS:06}", 0),
    "completions of the second round": (f"/completions/{ROWS // SHARD_ROWS:06}", 0),
    "judged in the second round": (f"/judged/{ROWS // SHARD_ROWS:06}", 0),
    "publish lease": ("/publish.lease", 2),
    "rejected table": ("{place}/rejected/", 9),
    "data of rejected": ("{place}/rejected/partition", 0),
    "first commit": ("PUT {place}/rejected/_delta_log/", 1),
    "data of pairs": ("{place}/pairs/partition", 0),
    "second commit": ("PUT {place}/pairs/_delta_log/", 1),
    "report": ("PUT {place}/runs/", 0),
    "removal of staging": ("POST /", 0),
}


def draw_moments(machine: str, part: int) -> list[tuple[str, str]]:
    """Return moments to kill at: phases, before or after the storage carried them out, and some by time or call."""
    draw = random.Random(f"{SEED} {machine}")
    moments = [(phase, draw.choice(["kill", "kill after"])) for phase in PHASES]
    moments += [(draw.choice(["time", "call"]), "") for _ in range(len(moments), 2 * KILLS)]
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


def kill_runs(
    machine: str, part: int, nights: Callable[[str], Night], reader: tuple[Callable[[str], None], Path]
) -> None:
    """Kill runs at the moments of one part, and check what is left after the next run has ended."""
    watch, states = reader
    draw = random.Random(f"{SEED} {machine} {part} moments")
    whole: dict[str, set[str]] = {}
    killed, seconds, kills = 0, 4.0, len(range(part, 2 * KILLS, PARTS))
    for number, moment in enumerate(draw_moments(machine, part)):
        if killed == kills:
            break
        # A destination's story: half of the source, all of it, and all of it judged anew with fresh completions.
        chapter = number % 3
        if chapter == 0:
            night = replace(nights(f"n{number}"), attempts=ATTEMPTS, lease_seconds=SHORT_LEASE_SECONDS)
            rows_before = 0
            whole |= {f"{night.destination} {name}": {digest(f"{night.destination}/{name}")} for name in TABLES}
            watch(night.destination)
        if chapter < 2:
            night.put(chapter * ROWS, ROWS)
        options = ["--on-published", "redo", "--seed", str(number)] if chapter == 2 else []
        night.serve(LATENCY_SECONDS)
        night.proxy.forget()
        uploaded, run = count_uploaded(night), night.start(*options)
        arm(run, night, moment, draw, seconds=seconds)
        died = run.wait() == -signal.SIGKILL
        where = (
            f"{machine} {part} {number}: {moment}, seed {SEED}, {time.monotonic() - run.started:.2f} s after the start"
        )
        bound = CONCURRENCY
        if machine == "lost":
            # What was paid for and is not in the bucket, however long ago that was on a busy machine.
            bound += len(night.model_server.prompts) - (count_uploaded(night) - uploaded)
            night.lose_machine()
        night.proxy.forget()
        calls, started = len(night.model_server.prompts), time.monotonic()
        held_up = night.held_up
        night.finish(*options)
        bound += CONCURRENCY * (night.held_up - held_up)
        seconds = time.monotonic() - started
        again, rows = night.paid_twice(), night.count_rows()
        # A redo pays for no other try.
        lost, doubled = night.check_rows(ROWS * min(chapter + 1, 2), 1 if chapter == 2 else ATTEMPTS)
        LOG.info("%s: died %s, %d calls, %d paid twice of at most %d", where, died, calls, again, bound)
        tally["kills survived"] += died
        tally["rows lost"] += lost
        tally["rows duplicated"] += doubled
        tally[f"completions paid twice, machine {machine}"] += again
        tally[f"  of at most, machine {machine}"] += bound
        assert (lost, doubled) == (0, 0), where
        assert again <= bound, where
        assert len(set(night.model_server.prompts)) == (rows if chapter == 2 else rows - rows_before), where
        rows_before = rows
        for name in TABLES:
            whole[f"{night.destination} {name}"].add(digest(f"{night.destination}/{name}"))
        killed += died
    for line in states.read_text().splitlines():
        destination, name, state = json.loads(line)
        assert state in whole[f"{destination} {name}"], f"a reader saw {name} of {destination} in part: {state}"
        tally["states that a reader saw, each whole"] += 1
    assert killed == kills


def count_uploaded(night: Night) -> int:
    """Return how many completions the journal holds in the bucket."""
    objects = storage.list_objects(f"{night.destination}/journal")
    return sum(frames.read_frame(item.uri).height for item in objects if "/segments/" in item.uri)
