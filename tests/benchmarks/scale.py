"""How much faster a run is on two processes than on one, where the client is what limits it.

    python -m tests.benchmarks.scale [REPEATS]

The provider answers at once. One process and two take turns, so that whatever else
the machine does meets both. Calls a second are from the first request to the last
reply; the better of each's repeats counts. In the stock lane a call costs the client
most, so there the share of the servers, which run on the same cores, is smallest.
"""

import sys

from rich.console import Console
from rich.table import Table

from tests.benchmarks.__main__ import Line, measure, servers
from tests.benchmarks.figures import put_source

# By lane: rows enough that the start of a second process is a small part.
ROWS = {"stock": 20_000, "fast": 100_000}


def main(repeats: int) -> None:
    """Measure both lanes and print the table."""
    table = Table("lane", "rows", "calls/s, one process", "two processes of Dask", "times", "CPU, ms a row", "of two")
    with servers() as provider:
        for lane, rows in ROWS.items():
            put_source(rows)
            best: dict[int, tuple[float, float]] = {0: (0.0, 0.0), 2: (0.0, 0.0)}
            for processes in [0, 2] * repeats:
                asked = {"rows": rows, "latency": 0, "concurrency": 256, "processes": processes}
                found = measure(Line(lane, "runs:scaled", asked, {"PAIRMILL_LANE": lane}), provider)
                best[processes] = max(best[processes], (found["calls_s"], found["cpu_ms"]))
            (one, one_cpu), (two, two_cpu) = best[0], best[2]
            table.add_row(
                lane, f"{rows:,}", f"{one:,.0f}", f"{two:,.0f}", f"{two / one:.2f}", f"{one_cpu:.2f}", f"{two_cpu:.2f}"
            )
    Console().print(table)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 2)
