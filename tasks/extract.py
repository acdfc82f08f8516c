"""Step 1: from a source's task descriptions to a staged plan of requests."""

import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import polars as pl
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from tasks.clients import journal, publishing, storage, table
from tasks.clients.descriptions import Descriptions, list_source, read_descriptions
from tasks.clients.holdings import find_judged, find_served, find_source_changes
from tasks.clients.lease import hold_lease
from tasks.core.columns import COMPLETIONS, fit_source_columns
from tasks.core.planning import number_hashes, plan_requests
from tasks.core.requests import Order, Plan, Shard
from tasks.policy import is_transient
from tasks.progress import progress

SHARD_ROWS = 5_000


@contextmanager
def hold_source(order: Order) -> Iterator[None]:
    """Be the only run of this source and destination inside the block: two would pay for the same requests.

    A second one waits, and then finds what the first has published. A preview waits for nobody.
    """
    if order.limit:
        yield
        return
    with hold_lease(order.layout.source_lease(order.source), order.run_id, on_wait=partial(progress.begin, "wait")):
        yield


@task(
    name="extract",
    task_run_name="extract descriptions",
    retries=3,
    retry_delay_seconds=exponential_backoff(2),
    retry_jitter_factor=0.5,
    retry_condition_fn=is_transient,
    cache_policy=NO_CACHE,
)
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
    storage.require_bucket(order.destination)
    objects = list_source(order.source, order.destination)
    with tempfile.TemporaryDirectory(prefix="pairmill-") as folder:
        scratch = Path(folder)
        found = read_descriptions(objects, scratch)
        plan = _plan_requests(order, found, scratch)
        shards = tuple(_stage_shards(order, plan.requests, scratch))
    cached = sum(shard.cached for shard in shards)
    get_run_logger().info(
        "%d descriptions, %d requests, %d of them in the journal", plan.descriptions, plan.requests, cached
    )
    return dataclasses.replace(plan, shards=shards, cached=cached)


def _plan_requests(order: Order, found: Descriptions, scratch: Path) -> Plan:
    """Write the wanted requests to plan-*.parquet in `scratch`, and count them."""
    publishing.settle(order.layout, order.partition, order.run_id)
    pairs, rejected = table.open_table(order.layout.pairs), table.open_table(order.layout.rejected)
    found.schema = fit_source_columns(found.schema, table.read_schema(pairs), order.layout.pairs)
    numbers = pl.concat(
        frame.select(number=number_hashes(pl.col("description_hash"))) for frame in found.frames(order.limit)
    )
    served = find_served(pairs, numbers, order)
    judged = find_judged(pairs, rejected, numbers, served, order)
    requests = wanted = already_rejected = 0
    for frame in found.frames(order.limit):
        for rows, missing, known in plan_requests(frame, served, judged, order):
            wanted += missing
            already_rejected += known
            if rows.height:
                plan_row = pl.int_range(requests, requests + rows.height, dtype=pl.Int64).alias("plan_row")
                path = scratch / f"plan-{requests:012}.parquet"
                rows.select(plan_row, pl.all()).write_parquet(path, compression="lz4")
                requests += rows.height
    return Plan(
        descriptions=numbers.height,
        blank=found.blank,
        repeated=found.repeated,
        already_served=served.filter(pl.col("pairs") >= order.pairs_per_task).height,
        already_rejected=already_rejected,
        wanted=wanted,
        requests=requests,
        source_columns=tuple(found.schema),
        objects=tuple({"uri": item.uri, "etag": item.etag, "size": item.size} for item in found.objects),
        source_changes=find_source_changes([pairs, rejected], order, found.objects),
    )


def _stage_shards(order: Order, requests: int, scratch: Path) -> Iterator[Shard]:
    """Look the whole plan up in the journal, once, and stage each shard with what is known of it."""
    if not requests:
        return
    # What a killed run paid for may still lie on this machine alone.
    journal.upload_leftovers(journal.local_folder() / "journal", order.layout.journal(order.recipe.recipe_id))
    plan = pl.scan_parquet(scratch / "plan-*.parquet")
    known = scratch / "known"
    number = (pl.col("plan_row") // SHARD_ROWS).alias("shard")
    journal.look_up(order.layout.journal(order.recipe.recipe_id), plan.select("request_key", "plan_row")).with_columns(
        number
    ).sink_parquet(pl.PartitionBy(known, key="shard", include_key=False), mkdir=True)
    for shard, first_row in enumerate(range(0, requests, SHARD_ROWS)):
        rows = plan.slice(first_row, SHARD_ROWS).collect()
        files = sorted((known / f"shard={shard}").glob("*.parquet"))
        completions = pl.DataFrame(schema={"request_key": pl.String, **COMPLETIONS})
        if files:
            completions = journal.keep_earliest(pl.read_parquet(files)).select(completions.columns)
        staged = rows.join(completions, on="request_key", how="left", maintain_order="left").with_columns(
            cached=pl.col("completed_at").is_not_null()
        )
        uri = f"{order.staging}/plan/{shard:06}.parquet"
        storage.write_frame(staged, uri)
        yield Shard(shard, uri, first_row, staged.height, int(staged["cached"].sum()))
