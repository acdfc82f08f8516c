"""The whole table of measurements, on servers of its own on this machine.

    python -m tests.benchmarks [--scale 0.1] [--long] [--write table.md] [WORD ...]

Each line is measured in a process of its own. The share is of bare aiohttp's rows a
second in the same run, with as many calls in flight. CPU is that of the measured
process alone, without its imports; memory is its peak above them. WORDs choose the
lines that hold one of them.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path

import boto3
from rich.console import Console

from flows.servers import ROOT, serve, start_prefect_api
from tests.benchmarks.figures import BUCKET, Figures, put_source
from tests.benchmarks.shares import count_looks, watched

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "benchmark",
    "AWS_SECRET_ACCESS_KEY": "benchmark",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOG": "ERROR",
    "HOSTED_VLLM_API_KEY": "benchmark",
}
# How many keys a look-up is extrapolated to.
MANY_KEYS = 100_000_000
# Read in this order, written under these heads, to so many digits.
COLUMNS = {
    "rows": ("rows", 0),
    "rows_s": ("rows/s", 0),
    "share": ("of the limit", 2),
    "calls_s": ("calls/s", 0),
    "cpu_ms": ("CPU, ms a row", 3),
    "mb": ("MB", 0),
    "seconds": ("seconds", 1),
}


@dataclass(frozen=True)
class Line:
    """One line of the table: what is measured, by which function, and with what; a long one only where asked for."""

    text: str
    measure: str
    arguments: dict[str, int] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    long: bool = False

    def scaled(self, scale: float) -> "Line":
        """Return the same line with fewer rows and keys."""
        sizes = {
            name: max(200, int(self.arguments[name] * scale)) for name in ("rows", "keys") if name in self.arguments
        }
        return replace(self, arguments=self.arguments | sizes)


def _calls(rows: int, in_flight: int = 256, latency: int = 100) -> dict[str, int]:
    return {"rows": rows, "concurrency": in_flight, "latency": latency}


def _scaled(processes: int) -> dict[str, int]:
    return _calls(30_000, latency=0) | {"processes": processes}


WATCHED = "runs:watched"
STOCK_LANE = {"PAIRMILL_LANE": "stock"}
LINES = (
    Line("limit: bare aiohttp, 256 calls in flight, 100 ms", "calls:bare", _calls(20_000)),
    Line("calls: stock litellm.acompletion", "calls:stock", _calls(3_000)),
    Line("calls: our stock lane", "calls:lane", _calls(3_000), STOCK_LANE),
    Line("calls: our fast lane", "calls:lane", _calls(20_000)),
    Line("flow: 256 calls in flight, 100 ms", "runs:flow", _calls(20_000)),
    Line("limit: bare aiohttp, 1,024 calls in flight, 100 ms", "calls:bare", _calls(20_000, 1024)),
    Line("flow: 1,024 calls in flight, 100 ms", "runs:flow", _calls(20_000, 1024)),
    Line("flow: 10,000 rows, 0 ms", "runs:flow", _calls(10_000, latency=0)),
    Line("flow: 50,000 rows, 0 ms", "runs:flow", _calls(50_000, latency=0)),
    Line("flow: 100,000 rows, 0 ms", "runs:flow", _calls(100_000, latency=0)),
    Line("flow: 1,000,000 rows, 0 ms", "runs:flow", _calls(1_000_000, latency=0), long=True),
    Line("CPU: whose it is, 100,000 rows, 0 ms", WATCHED, _calls(100_000, latency=0)),
    Line("scale-out: one process, stock lane, 0 ms", "runs:scaled", _scaled(0), STOCK_LANE),
    Line("scale-out: two processes, stock lane, 0 ms", "runs:scaled", _scaled(2), STOCK_LANE),
    Line("memory: the last 150,000 of 200,000 calls", "calls:growth", _calls(200_000, latency=0)),
    Line("memory: extract, 50,000 descriptions", "runs:extract", {"rows": 50_000}),
    Line("memory: extract, 1,000,000 descriptions", "runs:extract", {"rows": 1_000_000}),
    Line("warm: generate alone, all in the journal", "runs:warm", {"rows": 100_000}),
    Line("warm: the flow, all in the journal", "runs:warm_flow", {"rows": 100_000}),
    Line("look-up: 1,000,000 requests in 5,000,000 keys", "runs:look_up", {"rows": 1_000_000, "keys": 5_000_000}),
    Line("look-up: 1,000,000 requests in 20,000,000 keys", "runs:look_up", {"rows": 1_000_000, "keys": 20_000_000}),
    Line("start: to the first request, Prefect's server runs", "runs:start", {"rows": 1_000}),
    Line(
        "start: to the first request, with a server of its own", "runs:start", {"rows": 1_000}, {"PREFECT_API_URL": ""}
    ),
)


def main(arguments: Sequence[str]) -> None:
    """Measure the lines that were asked for, print the table and write it as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("words", nargs="*", metavar="WORD", help="only lines that hold one of them")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rows and keys that is measured")
    parser.add_argument("--long", action="store_true", help="the run of 1,000,000 rows, too: about four minutes")
    parser.add_argument("--write", type=Path, help="file for the table, as Markdown")
    given = parser.parse_args(arguments)
    lines = [line.scaled(given.scale) for line in LINES if _holds(line.text, given.words) and given.long >= line.long]
    with servers() as provider:
        table = format_table(measure_all(lines, provider))
    Console().print(table, markup=False, highlight=False, soft_wrap=True)
    if given.write:
        given.write.write_text(table + "\n")


@contextmanager
def servers() -> Iterator[str]:
    """Run what measurements need, storage, model and Prefect, and yield the model's address."""
    os.environ.update(ENVIRONMENT)
    with ExitStack() as stack:
        storage = stack.enter_context(serve("moto.server", "-H", "127.0.0.1", "-p", "{port}"))
        model = stack.enter_context(serve("tests.benchmarks.provider", "{port}"))
        counting = stack.enter_context(serve("tests.benchmarks.counting", "{port}", str(storage.port)))
        os.environ["PAIRMILL_STATE"] = stack.enter_context(tempfile.TemporaryDirectory(prefix="pairmill-benchmark-"))
        os.environ["PREFECT_HOME"] = os.environ["PAIRMILL_STATE"]
        os.environ.update(AWS_ENDPOINT_URL=storage.url, COUNTING_URL=counting.url)
        api = start_prefect_api()
        for server in (storage, model, counting, *([api] if api else [])):
            server.wait()
        boto3.client("s3").create_bucket(Bucket=BUCKET.removeprefix("s3://"))
        yield model.url


def measure_all(lines: Sequence[Line], provider: str) -> Iterator[tuple[str, Figures]]:
    """Measure each line in a process of its own."""
    console = Console(stderr=True)
    limit = 0.0
    sources: set[int] = set()
    for line in lines:
        rows = line.arguments["rows"]
        if line.measure.startswith("runs:") and rows not in sources and "keys" not in line.arguments:
            put_source(rows)
            sources.add(rows)
        figures = measure(line, provider)
        if line.text.startswith("limit:"):
            limit = figures["rows_s"]
        elif limit and line.arguments.get("latency"):
            figures["share"] = figures["rows_s"] / limit
        # The table comes at the end: this says how far it is.
        console.print(f"{line.text}: {json.dumps(figures)}", highlight=False, markup=False, soft_wrap=True)
        yield line.text, figures


def measure(line: Line, provider: str) -> Figures:
    """Measure one line in a process of its own."""
    given = json.dumps({**line.arguments, "provider": provider})
    command = [sys.executable, "-m", "tests.benchmarks", "--measure", line.measure, given]
    environment = os.environ | line.environment
    with tempfile.TemporaryDirectory(prefix="pairmill-benchmark-") as folder:
        looks = Path(folder) / "looks"
        if line.measure == WATCHED:
            command = watched(command, looks)
        ended = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True)
        if ended.returncode:
            raise RuntimeError(f"{line.text}: {ended.stderr[-3000:]}")
        figures: Figures = next(json.loads(said) for said in ended.stdout.splitlines() if said.startswith("{"))
        if line.measure == WATCHED:
            figures |= divide(count_looks(looks.read_text()))
    return figures


def divide(seen: Mapping[str, int]) -> Figures:
    """Return how many per cent of the looks saw each owner's work, the most frequent first."""
    looks = sum(seen.values())
    return {f"% of Python: {name}": 100 * seen[name] / looks for name in sorted(seen, key=lambda one: -seen[one])}


def format_table(measured: Iterator[tuple[str, Figures]]) -> str:
    """Return the measurements as a Markdown table; what else was counted stands under it."""
    heads = [head for head, _ in COLUMNS.values()]
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    notes = []
    look_ups = {}
    for text, figures in measured:
        if "keys" in figures:
            look_ups[figures.pop("keys")] = figures["seconds"]
        cells = [f"{figures[name]:,.{digits}f}" if name in figures else "" for name, (_, digits) in COLUMNS.items()]
        lines.append(f"| {text} | {' | '.join(cells)} |")
        rest = [f"{name} {value:,.0f}" for name, value in figures.items() if name not in COLUMNS]
        notes += [f"{text}: {', '.join(rest)}"] if rest else []
    if len(look_ups) > 1:
        (few, first), *_, (many, last) = sorted(look_ups.items())
        slope = (last - first) / (many - few)
        notes.append(f"look-up: by that slope {MANY_KEYS:,} keys take {last + slope * (MANY_KEYS - many):,.0f} seconds")
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def _holds(text: str, words: Sequence[str]) -> bool:
    return not words or any(word in text for word in words)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        module, _, name = sys.argv[2].partition(":")
        function = getattr(import_module(f"tests.benchmarks.{module}"), name)
        sys.stdout.write(json.dumps(function(**json.loads(sys.argv[3]))) + "\n")
    else:
        main(sys.argv[1:])
