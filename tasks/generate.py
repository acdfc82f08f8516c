"""Step 2: a shard's requests get their completions, from the journal or paid."""

from dataclasses import replace
from uuid import uuid4

import polars as pl

from tasks.clients import frames, storage
from tasks.clients.attempts import Request
from tasks.clients.calls import ModelClient
from tasks.clients.lookup import find_paid
from tasks.core.columns import COMPLETIONS, JOURNAL, SHARD
from tasks.core.mix import next_model
from tasks.core.plans import Shard
from tasks.core.prompts import build_prompt
from tasks.core.requests import Order
from tasks.core.takeovers import follow, sum_up
from tasks.policy import step
from tasks.shared_model import Model


@step("generate", "generate shard {shard.label}", retries=3)
def generate_completions(shard: Shard, order: Order, model: Model) -> Shard:
    """Give every request of `shard` its completion, each durable before it counts.

    What a model turns down goes to the next fallback. Writes the shard's rows with the columns
    of COMPLETIONS filled in.

    Returns:
        Where they lie.

    Raises:
        UsageError, ModelError, StoppedError: The run is over; what was paid for is in the journal.
    """
    rows = frames.read_frame(shard.uri, SHARD)
    known = frames.read_frame(shard.known_uri, JOURNAL) if shard.known_uri else rows.clear()
    again = shard.cached < shard.rows and not _is_first(shard, order, model)
    if again:
        # Its completions may still be on their way to the bucket.
        model.flush()
    # A batch has asked the first models only.
    rows, passed = follow(rows, known, order, fresh=True)
    left, asked = [passed], False
    while (wanted := rows.filter(pl.col("completed_at").is_null())).height:
        found = _look_up(wanted, order) if again else wanted.clear()
        rest = wanted.join(found, on="request_key", how="anti", maintain_order="left")
        if rest.height:
            found, asked = pl.concat([found, _complete(rest, order, model())]), True
            model.keep()
        reached, passed = follow(found, known, order, fresh=True)
        left.append(passed)
        rows = pl.concat([rows.filter(pl.col("completed_at").is_not_null()), reached])
    uri = f"{order.staging}/completions/{shard.number:06}.parquet"
    frames.write_frame(rows.sort("plan_row"), uri)
    turned_down = (*shard.turned_down, *sum_up(pl.concat(left)))
    return replace(shard, uri=uri, calls_in_flight=model.calls_in_flight if asked else 0, turned_down=turned_down)


def _complete(wanted: pl.DataFrame, order: Order, model: ModelClient) -> pl.DataFrame:
    """Return `wanted` with the completions of the models that are asked."""
    asked = wanted.select("request_key", "task", "language", "sample_index", "model_name", "turned_down_by").iter_rows()
    requests = [
        Request(
            key,
            build_prompt(task, language, sample),
            name,
            order.on_published == "add" and next_model(order.fallback_models, [*before, name]) is not None,
            task,
            language,
        )
        for key, task, language, sample, name, before in asked
    ]
    completions = pl.DataFrame(model.complete(requests), schema=COMPLETIONS, orient="row")
    return wanted.drop(COMPLETIONS).hstack(completions).select(wanted.columns)


def _is_first(shard: Shard, order: Order, model: Model) -> bool:
    """Whether nobody has begun `shard` before: neither this step, which was tried again, nor a process that died."""
    return storage.create_bytes(f"{order.staging}/begun/{model.token}/{shard.number:06}", uuid4().bytes)


def _look_up(wanted: pl.DataFrame, order: Order) -> pl.DataFrame:
    """Return those of `wanted` that were paid for when this shard was begun before: by this run, so not `cached`."""
    found = []
    for name in wanted["model_name"].unique():
        keys = wanted.filter(pl.col("model_name") == name).select("request_key").lazy()
        known = find_paid(order.journal_of(name), keys, failures=bool(order.fallback_models))
        found.append(known.drop("segment"))
    return wanted.drop(COMPLETIONS).join(pl.concat(found), on="request_key", how="inner").select(wanted.columns)
