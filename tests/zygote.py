"""Starts runs of the command line from one process that has imported everything: each in a second, not in ten.

    python -m tests.zygote

Each run is a process and a session of its own, so that its whole group can be killed.
"""

import atexit
import json
import os
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Self

from flows.servers import ROOT

SHARD_ROWS = 40
# Longer than a busy machine holds a run up; and what a run is given that may wait for a killed one.
LEASE_SECONDS, SHORT_LEASE_SECONDS = 20.0, 4.0
BATCH_LINES = 1_000
# What others import only when a run needs it, and every run does.
LATE_IMPORTS = ("anyio._backends._asyncio", "cyclopts.core", "fastapi", "graphviz", "py3langid.langid")


@dataclass
class Run:
    """A run that was started; `pid` is its process group, too."""

    pid: int
    out: Path
    zygote: "Zygote"
    started: float = field(default_factory=time.monotonic)

    def wait(self) -> int:
        """Return its exit code, or the number of the signal that ended it, negative."""
        return int(self.zygote.ask({"wait": self.pid}))

    @property
    def report(self) -> dict[str, Any]:
        """What it printed on standard output."""
        found: dict[str, Any] = json.loads(self.out.read_text())
        return found

    @property
    def said(self) -> str:
        """What it printed on standard error."""
        return self.out.with_suffix(".err").read_text()


class Zygote:
    """The process; use as a context manager."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder, self._environment = folder, environment
        self._runs = 0

    def __enter__(self) -> Self:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.zygote"],
            cwd=ROOT,
            env={**os.environ, **self._environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answer() == "ready"
        return self

    def __exit__(self, *exc: object) -> None:
        self._child.kill()
        self._child.communicate()

    def start(
        self,
        arguments: list[str],
        environment: dict[str, str],
        limits: dict[str, int] | None = None,
        lease_seconds: float = LEASE_SECONDS,
        shard_rows: int = SHARD_ROWS,
    ) -> Run:
        """Start `python -m flows.run` with these arguments.

        `limits` are names of resource limits, `lease_seconds` the term of the run's leases, and
        `shard_rows` the rows of its shards.
        """
        self._runs += 1
        out = self._folder / f"run-{self._runs}.out"
        order: dict[str, Any] = {"arguments": arguments, "environment": environment, "out": str(out)}
        order |= {"limits": limits or {}, "lease_seconds": lease_seconds, "shard_rows": shard_rows}
        return Run(int(self.ask(order)), out, self)

    def ask(self, order: dict[str, Any]) -> Any:
        """Send one order and return the answer."""
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(order) + "\n")
        self._child.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._child.stdout is not None
        return json.loads(self._child.stdout.readline())


def serve() -> None:
    """Carry out the orders on standard input, one a line."""
    import deltalake  # noqa: F401
    import litellm  # noqa: F401
    import s3fs  # noqa: F401

    import flows.launch
    import flows.reports
    import flows.short_text_matching  # noqa: F401
    import tasks.collect
    import tasks.extract
    import tasks.generate
    import tasks.load
    import tasks.publicise
    import tasks.validate  # noqa: F401
    from tasks.clients import batch_sending
    from tasks.core import batching

    for name in LATE_IMPORTS:
        import_module(name)
    batching.POLL_SECONDS, batching.MOST_LINES, batch_sending.LISTED_SECONDS = (0.1, 0.5), BATCH_LINES, 0.5
    _say("ready")
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            _say(os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1]))
        else:
            pid = os.fork()
            if not pid:
                _become(order)
            _say(pid)


def _become(order: dict[str, Any]) -> None:
    import resource

    from flows import run
    from tasks import staging
    from tasks.clients import lease

    os.setsid()
    lease.TERM_SECONDS, staging.SHARD_ROWS = order["lease_seconds"], order["shard_rows"]
    for descriptor, name in ((1, order["out"]), (2, order["out"].replace(".out", ".err"))):
        os.dup2(os.open(name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), descriptor)
    os.environ.update(order["environment"])
    for name, limit in order["limits"].items():
        resource.setrlimit(getattr(resource, name), (limit, limit))
    code = 1
    try:
        code = run.main([*order["arguments"], "--output", "json"])
    except BaseException:  # noqa: BLE001  (as Python itself would show it)
        traceback.print_exc()
    finally:
        # Prefect sends its last logs there.
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _say(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    serve()
