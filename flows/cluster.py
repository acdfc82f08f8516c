"""Where the steps of a run run: in its own process, or on a Dask cluster that the environment names."""

import logging
import os
import socket
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from tasks.core.errors import UsageError
from tasks.window import STEPS_IN_FLIGHT

# The address of a scheduler, or how many processes to start on this machine; empty: none.
SETTING = "PAIRMILL_DASK_SCHEDULER"
# No form has it: a worker's environment says it to its deployments.
OPTION = f"--dask-scheduler ({SETTING})"
# Generate steps wait most of the time, and validate steps run beside them.
THREADS = 2 * STEPS_IN_FLIGHT
CONNECT_SECONDS = 10.0


class StepRunner(ThreadPoolTaskRunner[Any]):
    """Threads of this process, or the cluster that PAIRMILL_DASK_SCHEDULER names when a run begins."""

    def __init__(self, max_workers: int = THREADS) -> None:
        super().__init__(max_workers)

    def __reduce__(self) -> tuple[Any, ...]:
        """Cross process borders, as a part of the flow."""
        return type(self), ()

    def duplicate(self) -> Any:
        """Return the runner of one flow run."""
        named = os.environ.get(SETTING, "")
        return cluster_runner(named) if named and find_spec("prefect_dask") else super().duplicate()


def cluster_runner(named: str) -> "TaskRunner[Any]":
    """Return what runs steps on the cluster of this name; it connects, or starts processes, with the first step."""
    import dask  # noqa: PLC0415  (an extra, and slow)
    from prefect_dask import DaskTaskRunner  # noqa: PLC0415

    # About seventy lines a run otherwise, of what concerns nobody.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    runner: TaskRunner[Any]
    if named.isdecimal():
        # Each process would look at every thread's stack a hundred times a second, and at the clock fifty times,
        # which takes the calls' turn from them.
        dask.config.set({"distributed.worker.profile.enabled": False, "distributed.admin.tick.interval": "500ms"})
        local = {
            "n_workers": int(named),
            "threads_per_worker": THREADS,
            "host": "127.0.0.1",
            "security": True,  # encrypted, and closed to other users of this machine
            "dashboard_address": None,
            "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"},  # not on 8787, which another run may have
            "memory_limit": 0,
            "silence_logs": logging.CRITICAL,
            "preload": ["flows.on_worker"],
        }
        runner = DaskTaskRunner(cluster_class="distributed.LocalCluster", cluster_kwargs=local)
    else:
        runner = DaskTaskRunner(address=named)
    return runner


def check_cluster(*, batch: bool) -> None:
    """Check that the cluster that the environment names can be used, by a run that has `batch`.

    Raises:
        UsageError: The extra is missing, the name is none, nothing answers there, or batches leave it nothing to do.
    """
    named = os.environ.get(SETTING, "")
    if not named:
        return
    if batch:
        raise UsageError(f"--batch has the provider do the work, {OPTION} a cluster. Leave one of them out.")
    if find_spec("prefect_dask") is None:
        raise UsageError(f"{OPTION} needs the extra dask: pip install prefect-dask==0.3.7.")
    if named.isdecimal() and 1 <= int(named) <= 256:
        return
    place = urlsplit(named)
    try:
        port = place.port
    except ValueError:
        port = None
    if place.scheme not in ("tcp", "tls") or not place.hostname or not port:
        raise UsageError(
            f"{OPTION} is {named!r}. Give the address of a scheduler, tcp://host:port, or how many "
            "processes to start on this machine."
        )
    try:
        socket.create_connection((place.hostname, port), timeout=CONNECT_SECONDS).close()
    except OSError:
        raise UsageError(
            f"No Dask scheduler answers at {named}. Start one there (python -m dask scheduler), or leave {OPTION} out."
        ) from None
