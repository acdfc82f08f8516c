"""A Dask cluster as a team would start it: a scheduler and its processes, from the command line."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import distributed

from flows.servers import ROOT, free_port
from tests.stack import wait_for


@contextmanager
def run_cluster(
    folder: Path, environment: Mapping[str, str], folders: Mapping[str, Path] | None = None
) -> Iterator[tuple[str, bytearray]]:
    """Run a scheduler and two processes as the README says, and yield an address and all that passes it.

    `folders` are those of the scheduler or the workers where they are not the checkout.
    """
    told = {**os.environ, **environment, "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "debug"}
    port, crossed = free_port(), bytearray()
    common = ["--no-dashboard", "--host", "127.0.0.1"]
    relay = Relay(port, crossed)
    programs = {
        "scheduler": ["scheduler", "--port", str(port)],
        "workers": ["worker", relay.address, "--nthreads", "6", "--nworkers", "2", "--local-directory", str(folder)],
    }
    with ExitStack() as stack:
        stack.callback(relay.end)
        for name, line in programs.items():
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            program = subprocess.Popen(
                [sys.executable, "-m", "dask", *line, *common],
                cwd=(folders or {}).get(name, ROOT),
                env=told,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            stack.callback(program.wait)
            stack.callback(program.terminate)
        with distributed.Client(relay.address) as client:
            client.wait_for_workers(2)
        yield relay.address, crossed


class Relay:
    """Passes connections on to a port, and notes every byte."""

    def __init__(self, port: int, crossed: bytearray) -> None:
        self._port, self._crossed = port, crossed
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Take no further connection, and close all that there are."""
        # Which wakes up who waits for one.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for one in (self._listener, *self._open):
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = wait_for("the scheduler", self._connect)
                self._open += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _connect(self) -> socket.socket | None:
        with suppress(ConnectionError):
            return socket.create_connection(("127.0.0.1", self._port))
        return None

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(1 << 16):
                self._crossed.extend(data)
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
