"""Child servers on loopback that end with this process, whatever ends it."""

import fcntl
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tasks.core.errors import PairmillError

ROOT = Path(__file__).resolve().parent.parent
# A machine may be busy; a child that has ended is noticed at once.
START_SECONDS = 600.0
# Below those that systems give to outgoing connections.
PORTS = range(10_000, 32_768)


@dataclass
class Server:
    """A child process that will listen on `port` of 127.0.0.1; `starting` is a lock that it needs until then."""

    child: "subprocess.Popen[bytes]"
    port: int
    starting: IO[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def wait(self) -> None:
        """Wait until it takes connections.

        Raises:
            PairmillError: It ended, or takes too long; names its command.
        """
        is_up = self._await_connection()
        if self.starting is not None:
            self.starting.close()
        if not is_up:
            command = subprocess.list2cmdline(map(str, self.child.args))  # type: ignore[arg-type]
            raise PairmillError(f"A server on this machine did not start. To see why, run: {command}")

    def _await_connection(self) -> bool:
        deadline = time.monotonic() + START_SECONDS
        while self.child.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return True
        return False


def start(module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Server:
    """Start a server module; {port} in an argument is the port it gets.

    It has a session of its own, so that Ctrl-C is for this process alone.
    """
    _reach_directly()
    port = free_port()
    child = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "flows.child", module, *(argument.format(port=port) for argument in arguments)],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return Server(child, port)


@contextmanager
def serve(module: str, *arguments: str) -> Iterator[Server]:
    """Run a server module inside the block; see `start`."""
    server = start(module, *arguments)
    try:
        yield server
    finally:
        server.child.kill()
        server.child.communicate()


def start_prefect_api() -> Server | None:
    """Start a Prefect server unless one is configured; None where one is.

    Prefect's own temporary server shares our terminal: it would die of the same
    Ctrl-C, and the run could not say how it ended. This one lives as long as this
    process, since Prefect sends its last logs and events while Python exits. Its
    database is its own: in that of a server of the user's a backfill would find
    deployments, and wait for a worker.
    """
    from prefect.context import refresh_global_settings_context  # noqa: PLC0415  (1 s)
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME  # noqa: PLC0415

    if PREFECT_API_URL.value():
        return None
    home = PREFECT_HOME.value()
    home.mkdir(parents=True, exist_ok=True)
    settings = {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / 'pairmill.db'}",
        "PREFECT_UI_ENABLED": "0",
        "PREFECT__SERVER_EPHEMERAL": "1",
        "PREFECT__SERVER_FINAL": "1",
    }
    app = ("--factory", "prefect.server.api.server:create_app", "--lifespan", "on", "--log-level", "error")
    # Two that make the database at once fail.
    starting = (home / "pairmill.lock").open("wb")
    fcntl.flock(starting, fcntl.LOCK_EX)
    server = start("uvicorn", *app, "--host", "127.0.0.1", "--port", "{port}", environment=settings)
    server.starting = starting
    os.environ["PREFECT_API_URL"] = f"{server.url}/api"
    refresh_global_settings_context()
    return server


def _reach_directly() -> None:
    """Keep a proxy of the user's out of the way to our own servers."""
    for name in ("NO_PROXY", "no_proxy"):
        if "127.0.0.1" not in os.environ.get(name, ""):
            os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1"]))


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on, none that an outgoing connection is given meanwhile."""
    while True:
        port = random.choice(PORTS)  # noqa: S311
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
