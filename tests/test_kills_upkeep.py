"""kill -9 of an upkeep at random moments."""

import random
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pytest

from tests.kills import SEED
from tests.night import CONCURRENCY, LOST_LEASE, Night
from tests.s3_proxy import Action
from tests.tally import tally
from tests.zygote import SHORT_LEASE_SECONDS

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

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
    night = replace(nights("upkeep"), lease_seconds=SHORT_LEASE_SECONDS)
    night.serve(0.0)
    for number, (phase, text) in enumerate(UPKEEP.items()):
        night.put(number * 10, 10)
        night.finish()
        action = cast("Action", draw.choice(["kill", "kill after"]))
        while True:
            upkeep = night.start_upkeep()
            night.proxy.fault(text.format(place=night.place), action, times=1, pid=upkeep.pid)
            died = upkeep.wait() == -signal.SIGKILL
            night.proxy.forget()
            if died:
                break
            assert LOST_LEASE in upkeep.said, f"{phase} was never reached"
        tally["kills survived"] += 1
        night.finish_upkeep()
        assert night.check_rows((number + 1) * 10) == (0, 0)
    redo = night.finish("--on-published", "redo")
    assert (redo["paid"], redo["cached"]) == (0, 10 * len(UPKEEP)), "the journal holds all that was paid for"
    assert night.paid_twice() <= CONCURRENCY * night.held_up
