"""Step 3: a shard's completions are parsed and judged."""

from dataclasses import replace

import polars as pl
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from tasks.clients import frames
from tasks.core.judging import judge_completions
from tasks.core.plans import Shard
from tasks.core.requests import Order
from tasks.policy import is_transient


@task(
    name="validate",
    task_run_name="validate shard {shard.label}",
    retries=3,
    retry_delay_seconds=exponential_backoff(2),
    retry_jitter_factor=0.5,
    retry_condition_fn=is_transient,
    cache_policy=NO_CACHE,
)
def validate_pairs(shard: Shard, order: Order) -> Shard:
    """Judge every row of `shard` and stage it with its `reasons`, none for an accepted row.

    Returns:
        Where the judged rows lie, and how many were rejected; see `judge_completions` for their columns.
    """
    judged = judge_completions(frames.read_frame(shard.uri).lazy(), order)
    uri = f"{order.staging}/judged/{shard.number:06}.parquet"
    frames.write_frame(judged, uri)
    return replace(shard, uri=uri, rejected=judged.filter(pl.col("reasons").list.len() > 0).height)
