"""How much faster a run is on two processes than on one, where the client is what limits it.

    python -m tests.benchmarks.scale [REPEATS]

The provider answers at once. One process and two take turns, so that whatever else
the machine does meets both; the better of each's repeats counts. What two processes
can bring at best is measured beside it: two of Python alone, which say how far the
machine's cores are two, and two that do nothing but call, each its own provider, which
counts its calls, without Dask, journal or rules. In the stock lane a call costs the
client most, so there the share of the servers, which run on the same cores, is
smallest. Calls a second are from the first request to the last reply.
"""

import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from rich.console import Console
from rich.table import Table

from flows.servers import serve
from tests.benchmarks.__main__ import Line, measure, servers
from tests.benchmarks.figures import put_source

IN_FLIGHT = 256
SECONDS = 3.0


@dataclass(frozen=True)
class Lane:
    """What is measured in a lane: so many calls alone, and runs so long that the start of a process is little."""

    name: str
    calls: int
    rows: int


LANES = (Lane("stock", 4_000, 30_000), Lane("fast", 40_000, 60_000))


def main(repeats: int, lanes: Sequence[Lane] = LANES) -> None:
    """Measure the lanes and print the table."""
    table = Table("0 ms a call", "a second, one process", "two", "times", "of what two can bring")
    with servers() as provider, serve("tests.benchmarks.provider", "{port}") as other:
        other.wait()
        spun = {processes: max(_spin(processes) for _ in range(repeats)) for processes in (1, 2)}
        table.add_row("Python alone, thousand", f"{spun[1]:,.0f}", f"{spun[2]:,.0f}", f"{spun[2] / spun[1]:.2f}")
        for lane in lanes:
            put_source(lane.rows)
            alone: dict[int, float] = {1: 0.0, 2: 0.0}
            run = dict(alone)
            for processes in [1, 2] * repeats:
                alone[processes] = max(alone[processes], _call_alone(lane, [provider, other.url][:processes]))
                run[processes] = max(run[processes], _run(lane, provider, processes))
            limit, times = alone[2] / alone[1], run[2] / run[1]
            table.add_row(f"{lane.name} lane, calls alone", f"{alone[1]:,.0f}", f"{alone[2]:,.0f}", f"{limit:.2f}")
            table.add_row(
                f"{lane.name} lane, the whole run",
                f"{run[1]:,.0f}",
                f"{run[2]:,.0f}",
                f"{times:.2f}",
                f"{times / limit:.2f}",
            )
    Console().print(table)


def _spin(processes: int) -> float:
    """Return how many thousand pieces of JSON a second so many processes at once write."""
    with ProcessPoolExecutor(processes) as pool:
        return sum(pool.map(_write_json, [SECONDS] * processes))


def _write_json(seconds: float) -> float:
    began, thousands = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        for number in range(1_000):
            json.dumps({"number": number})
        thousands += 1
    return thousands / seconds


def _call_alone(lane: Lane, providers: Sequence[str]) -> float:
    """Return the calls a second of one process for each provider, all at once, that do nothing else."""
    asked = {"rows": lane.calls, "latency": 0, "concurrency": IN_FLIGHT // len(providers)}
    line = Line(lane.name, "calls:lane", asked, {"PAIRMILL_LANE": lane.name})
    with ThreadPoolExecutor(len(providers)) as pool:
        return sum(found["rows_s"] for found in pool.map(partial(measure, line), providers))


def _run(lane: Lane, provider: str, processes: int) -> float:
    """Return the calls a second of a run in its own process, or on a cluster of two."""
    asked = {"rows": lane.rows, "latency": 0, "concurrency": IN_FLIGHT, "processes": processes if processes > 1 else 0}
    return measure(Line(lane.name, "runs:scaled", asked, {"PAIRMILL_LANE": lane.name}), provider)["calls_s"]


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 2)
