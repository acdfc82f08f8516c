"""One run in the processes of a Dask cluster: what it needs before the first call, and what ends it."""

from collections.abc import Iterator
from contextlib import contextmanager

import distributed
from dask.base import annotate, get_annotations
from prefect import get_run_logger

from tasks.core.errors import RESUME, StoppedError, UsageError
from tasks.core.showing import as_option, as_sentence
from tasks.crew import NO_CHECKOUT, Crew
from tasks.models import open_lanes
from tasks.shared_model import Model


@contextmanager
def lead(model: Model, client: "distributed.Client") -> Iterator[Model]:
    """Hold the clients of a cluster's processes inside the block, and yield the model that they share.

    Raises:
        UsageError, ModelError: The model's name or key cannot work, or its calls cannot be divided by the processes.
        StorageError: A process could not upload what was paid for.
        StoppedError: The cluster is gone, or one shard has killed process after process.
    """
    _check_divisible(model)
    open_lanes(model.order)
    get_run_logger().info("%d processes at %s", model.processes, client.scheduler.address)
    crew = Crew(model, client)
    try:
        # Those that join later are for the place of one that dies.
        with annotate(workers=crew.seated, allow_other_workers=True):
            # Dask's own list, which steps to come are sent with.
            crew.seated = get_annotations()["workers"]
            crew.begin()
            try:
                if crew.gone is not None:
                    raise crew.gone
                yield model
            finally:
                crew.dismiss()
    except (distributed.KilledWorker, distributed.CancelledError, OSError, RuntimeError) as error:
        if isinstance(error, OSError | RuntimeError) and not _is_of_cluster(error):
            raise
        if crew.gone is not None:
            raise crew.gone from error
        if isinstance(error, RuntimeError):
            raise StoppedError(NO_CHECKOUT.format("The scheduler")) from error
        raise StoppedError(
            f"The Dask cluster does not carry on: {as_sentence(str(error) or type(error).__name__)} {RESUME}"
        ) from error
    if crew.lost is not None:
        raise crew.lost


def _is_of_cluster(error: OSError | RuntimeError) -> bool:
    """Whether it is not the disk's or the storage's: distributed has words of its own."""
    said = ("trying to connect to", "deserialization of the task graph")
    return isinstance(error, distributed.comm.CommClosedError) or any(words in str(error) for words in said)


def _check_divisible(model: Model) -> None:
    order = model.order
    for name in ("concurrency", "requests_per_minute", "tokens_per_minute"):
        if 0 < getattr(order, name) < model.processes:
            raise UsageError(
                f"{as_option(name)} is {getattr(order, name)}, and the cluster has {model.processes} processes "
                "that share it. Raise it, or take fewer processes."
            )
