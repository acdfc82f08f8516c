"""Step 1: from a source's task descriptions to a staged plan of requests."""

import dataclasses
import tempfile
from contextlib import nullcontext
from pathlib import Path

import polars as pl
from prefect import get_run_logger

from tasks.clients import frames, publishing
from tasks.clients.descriptions import list_source, read_descriptions
from tasks.clients.lease import hold_lease
from tasks.core.plans import Plan
from tasks.core.requests import Order
from tasks.plan import plan_into
from tasks.policy import step
from tasks.progress import progress
from tasks.staging import Scratch, stage_shards


@step("extract", "extract descriptions", retries=3)
def extract_task_descriptions(order: Order) -> Plan:
    """Stage the requests that `order` still wants for the descriptions of its source.

    Writes one Parquet object a shard under staging/: the columns of REQUESTS, the
    source's own, COMPLETIONS (null where the journal has none) and `cached`, in
    the order of the source's objects and lines.

    Returns:
        Where the shards lie and what was counted, never rows.

    Raises:
        SourceError: Nothing to read, or an object that cannot be read.
        SchemaError: A source column does not fit the published table.
        StorageError: Bucket, credentials or endpoint.
    """
    progress.begin("extract")
    objects = list_source(order.source, order.destination)
    with tempfile.TemporaryDirectory(prefix="pairmill-") as folder:
        found = read_descriptions(objects, Path(folder), order)
        requests = Scratch(Path(folder))
        publishing.settle(order.layout, order.partition, order.run_id)
        # One plan after the other: the later one leaves out what the earlier one claims.
        with nullcontext() if order.limit else hold_lease(order.layout.plan_lease, order.run_id):
            if (now := list_source(order.source, order.destination)) != objects:
                # What was erased from it while this run waited is not planned any more.
                found = read_descriptions(now, Path(folder), order)
            plan, used = plan_into(requests, order, found)
            plan = dataclasses.replace(plan, used_uri=_stage_used(order, used) if requests.rows else "")
            shards = tuple(stage_shards(order, requests))
    cached = sum(shard.cached for shard in shards)
    get_run_logger().info(
        "%d descriptions, %d requests, %d of them in the journal", plan.descriptions, plan.requests, cached
    )
    return dataclasses.replace(plan, shards=shards, cached=cached)


def _stage_used(order: Order, used: pl.DataFrame) -> str:
    """Keep the samples that are used up for the rounds to come; empty where there are none."""
    if not used.height:
        return ""
    uri = f"{order.staging}/used.parquet"
    frames.write_frame(used, uri)
    return uri
