"""Step 2: a shard's requests get their completions, from the journal or paid."""

from dataclasses import replace
from uuid import uuid4

import polars as pl
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from tasks.clients import frames, journal, storage
from tasks.clients.attempts import Request
from tasks.core.columns import COMPLETIONS
from tasks.core.prompts import build_prompt
from tasks.core.requests import Order, Shard
from tasks.policy import is_transient
from tasks.session import Model


@task(
    name="generate",
    task_run_name="generate shard {shard.label}",
    retries=2,
    retry_delay_seconds=exponential_backoff(2),
    retry_jitter_factor=0.5,
    retry_condition_fn=is_transient,
    cache_policy=NO_CACHE,
)
def generate_completions(shard: Shard, order: Order, model: Model) -> Shard:
    """Give every request of `shard` its completion, each durable before it counts.

    Writes the shard's rows with the columns of COMPLETIONS filled in.

    Returns:
        Where they lie.

    Raises:
        UsageError, ModelError, StoppedError: The run is over; what was paid for is in the journal.
    """
    rows = frames.read_frame(shard.uri)
    unanswered = pl.col("completed_at").is_null()
    if shard.cached < shard.rows and not _is_first(shard, order, model):
        rows = _look_up_again(rows, order)
    wanted = rows.filter(unanswered)
    if wanted.height:
        prompts = map(build_prompt, wanted["task"], wanted["language"], wanted["sample_index"])
        completions = model().complete([Request(*pair) for pair in zip(wanted["request_key"], prompts, strict=True)])
        model.keep()
        answered = wanted.drop(COMPLETIONS).hstack(pl.DataFrame(completions, schema=COMPLETIONS, orient="row"))
        rows = pl.concat([rows.filter(~unanswered), answered.select(rows.columns)]).sort("plan_row")
    uri = f"{order.staging}/completions/{shard.number:06}.parquet"
    frames.write_frame(rows, uri)
    return replace(shard, uri=uri, calls_in_flight=model.calls_in_flight if wanted.height else 0)


def _is_first(shard: Shard, order: Order, model: Model) -> bool:
    """Whether nobody has begun `shard` before: neither this step, which was tried again, nor a process that died."""
    return storage.create_bytes(f"{order.staging}/begun/{model.token}/{shard.number:06}", uuid4().bytes)


def _look_up_again(rows: pl.DataFrame, order: Order) -> pl.DataFrame:
    """Find what was paid for when this shard was begun before."""
    uri = order.layout.journal(order.recipe.recipe_id)
    journal.upload_leftovers(journal.local_folder() / "journal", uri)
    keys = rows.filter(pl.col("completed_at").is_null()).select("request_key")
    found = journal.keep_earliest(journal.look_up(uri, keys.lazy()).collect(engine="streaming"))
    known = rows.drop(COMPLETIONS, "cached").join(found.drop("segment"), on="request_key", how="inner")
    known = known.with_columns(cached=pl.lit(value=True))
    rest = rows.join(found, on="request_key", how="anti")
    return pl.concat([rest, known.select(rows.columns)]).sort("plan_row")
