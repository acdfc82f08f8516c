"""The figures of a report, counted from a plan and its judged rows."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from tasks.core.report import SamplePair
from tasks.core.requests import Order, Plan, Shard

SAMPLE_PAIRS = 5


def summarise(order: Order, plan: Plan, judged: pl.LazyFrame | None, shards: Sequence[Shard] = ()) -> dict[str, Any]:
    """Return the figures of RunReport that `plan` and the judged rows hold.

    Args:
        order: The run.
        plan: What was planned.
        judged: Judged rows with all their reasons, None where nothing was planned.
        shards: Those of the judged rows.
    """
    figures: dict[str, Any] = {
        "run_id": order.run_id,
        "partition": order.partition,
        "source": order.source,
        "destination": order.destination,
        "model_name": order.recipe.model_name,
        "languages": list(order.languages),
        "pairs_per_task": order.pairs_per_task,
        "on_published": order.on_published,
        "seed": order.recipe.seed,
        "descriptions": plan.descriptions,
        "blank": plan.blank,
        "repeated": plan.repeated,
        "already_served": plan.already_served,
        "already_rejected": plan.already_rejected,
        "requests": plan.requests,
        "objects": list(plan.objects),
        "source_changes": list(plan.source_changes),
        "calls_in_flight": next((shard.calls_in_flight for shard in reversed(shards) if shard.calls_in_flight), 0),
    }
    counts = _count(judged) if judged is not None else _NOTHING
    return figures | counts | {"shortfall": max(0, plan.wanted - counts["accepted"])}


_COUNTS = (
    *("judged", "accepted", "rejected", "cached", "paid", "failed", "retried", "throttled"),
    *("input_tokens", "output_tokens"),
)
_NOTHING: dict[str, Any] = dict.fromkeys(_COUNTS, 0) | {
    "cost_usd": 0.0,
    "reasons": {},
    "by_language": {},
    "samples": [],
}


def _count(judged: pl.LazyFrame) -> dict[str, Any]:
    accepted = pl.col("reasons").list.len() == 0
    replied = pl.col("error").is_null() | (pl.col("error") == "no_choices")
    fresh = ~pl.col("cached")
    paid = fresh & replied
    totals, languages, reasons = pl.collect_all(
        [
            judged.select(
                judged=pl.len(),
                accepted=accepted.sum(),
                rejected=(~accepted).sum(),
                cached=pl.col("cached").sum(),
                paid=paid.sum(),
                failed=(fresh & ~replied).sum(),
                retried=(pl.col("attempts") - 1).filter(fresh).sum(),
                throttled=pl.col("throttled").filter(fresh).sum(),
                input_tokens=pl.col("input_tokens").filter(paid).sum(),
                output_tokens=pl.col("output_tokens").filter(paid).sum(),
                cost_usd=pl.col("cost_usd").filter(paid).sum(),
                unpriced=pl.col("cost_usd").filter(paid).is_null().sum(),
            ),
            judged.group_by("language").agg(accepted=accepted.sum(), rejected=(~accepted).sum()).sort("language"),
            judged.select(pl.col("reasons").explode(empty_as_null=False))
            .group_by("reasons")
            .agg(rows=pl.len())
            .sort("rows", "reasons", descending=[True, False]),
        ],
        engine="streaming",
    )
    figures = totals.row(0, named=True)
    if figures.pop("unpriced"):
        figures["cost_usd"] = None
    every = max(1, figures["accepted"] // SAMPLE_PAIRS)
    samples = judged.filter(accepted).select(*SamplePair.model_fields).gather_every(every).head(SAMPLE_PAIRS)
    return figures | {
        "by_language": {row.pop("language"): row for row in languages.iter_rows(named=True)},
        "reasons": dict(reasons.iter_rows()),
        "samples": samples.collect().to_dicts(),
    }
