"""Which processes a run generates in: its own, or those of a Dask cluster."""

from typing import Any

from prefect.context import FlowRunContext

from tasks.core.errors import StoppedError

WITHIN_SECONDS = 60.0


def find_cluster() -> Any:
    """Return Dask's client of this flow run's cluster, with at least one process; None where it has no cluster.

    Raises:
        StoppedError: It cannot be reached, or no process comes.
    """
    context = FlowRunContext.get()
    client = getattr(context.task_runner, "client", None) if context else None
    if client is not None:
        try:
            client.wait_for_workers(1, timeout=WITHIN_SECONDS)
        except OSError as error:
            raise StoppedError(
                f"No process of the Dask cluster is there: {error}. Start some with python -m dask worker, and run "
                "again."
            ) from error
    return client


def count_processes() -> int:
    """Return how many processes of a cluster the run generates in, 0 where it does so in its own."""
    client = find_cluster()
    return len(client.scheduler_info(n_workers=-1)["workers"]) if client else 0
