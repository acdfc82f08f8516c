"""A run's model is open while its steps need it: in this process, or in those of a cluster."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from tasks.core.plans import Plan
from tasks.core.requests import Order
from tasks.models import Expects
from tasks.processes import count_processes, find_cluster
from tasks.progress import progress
from tasks.shared_model import Model, hold_model


@contextmanager
def open_model(order: Order, plan: Plan) -> Iterator[Model]:
    """Hold the run's model clients and journals inside the block, in this process or in those of a cluster.

    Where the journal answers the whole plan, they are opened only by the first step
    that has something to pay for. Leaving the block by whatever way stops paying at
    once and flushes the journals.

    Raises:
        UsageError, ModelError: The model's name or key cannot work.
        StorageError: What an earlier process left behind cannot be uploaded.
        StoppedError: The cluster is gone.
    """
    if plan.requests:
        progress.begin("generate", plan.requests)
        progress.cached = plan.cached
    model = Model(order, _expects(plan))
    if cluster := find_cluster():
        from tasks.lead import lead  # noqa: PLC0415  (needs the extra dask)

        with lead(replace(model, processes=count_processes()), cluster) as shared:
            yield shared
    else:
        with hold_model(model, now=plan.requests > plan.cached):
            yield model


def _expects(plan: Plan) -> Expects:
    """Return what the first replies must hold.

    Where the destination has judged descriptions of this source before, those left
    may well be the ones that nothing ever comes of; where the journal answers some, those that rules reject.
    """
    if not plan.requests:
        return "text"
    if plan.already_served or plan.already_rejected:
        return "nothing"
    return "shape" if plan.cached else "pairs"
