"""The figures of a report, counted from a plan and its judged rows."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import polars as pl

from tasks.core.columns import ACCEPTED, REPLIED
from tasks.core.diversity import measure_variations
from tasks.core.drift import SamplePair
from tasks.core.plans import Plan, Shard, TurnedDown
from tasks.core.requests import Order
from tasks.core.shortfalls import find_shortfalls

SAMPLE_PAIRS = 5
MOST_SHORTFALLS = 100


def summarise(order: Order, plan: Plan, judged: pl.LazyFrame | None, shards: Sequence[Shard] = ()) -> dict[str, Any]:
    """Return the figures of RunReport that `plan` and the judged rows hold.

    Args:
        order: The run.
        plan: What was planned.
        judged: Judged rows with all their reasons, None where nothing was planned.
        shards: Those of the judged rows.
    """
    counts = _count(plan, judged) if judged is not None else _NOTHING
    counts = counts | _count_turned_down(counts, [one for shard in shards for one in shard.turned_down])
    return (
        _list_planned(order, plan)
        | {
            "calls_in_flight": next((shard.calls_in_flight for shard in reversed(shards) if shard.calls_in_flight), 0),
            "batched": sum(shard.batched for shard in shards),
            "batches": len({name for shard in shards for name in shard.batches}),
        }
        | counts
        | {"requests": counts["judged"], "by_model": _compare_models(order, judged, shards)}
        | _count_missing(plan, judged, counts)
    )


def _list_planned(order: Order, plan: Plan) -> dict[str, Any]:
    """Return what was ordered, and what the plan has counted of the source."""
    return {
        "run_id": order.run_id,
        "partition": order.partition,
        "source": order.source,
        "destination": order.destination,
        "model_name": order.recipe.model_name,
        "languages": list(order.languages),
        "language_mix": order.language_mix,
        "pairs_per_task": order.pairs_per_task,
        "max_attempts_per_pair": order.max_attempts_per_pair,
        "on_published": order.on_published,
        "seed": order.recipe.seed,
        "descriptions": plan.descriptions,
        "blank": plan.blank,
        "too_long": plan.too_long,
        "repeated": plan.repeated,
        "unknown_languages": dict(plan.unknown_languages),
        "already_served": plan.already_served,
        "already_rejected": plan.already_rejected,
        "claimed": plan.claimed,
        "given_up": plan.given_up,
        "objects": list(plan.objects),
        "source_changes": list(plan.source_changes),
    }


def _count_missing(plan: Plan, judged: pl.LazyFrame | None, counts: dict[str, Any]) -> dict[str, Any]:
    """Return the shortfall of `counts`, and by language what came of it and what is missing."""
    short = find_shortfalls(plan, judged)
    reasons = short.group_by("reason").agg(pl.col("missing").sum()).sort("missing", "reason", descending=[True, False])
    missing = dict(short.group_by("language").agg(pl.col("missing").sum()).iter_rows())
    judged_languages = counts["by_language"]
    return {
        "by_language": {
            language: {"accepted": 0, "rejected": 0, "missing": missing.get(language, 0)}
            | judged_languages.get(language, {})
            for language in sorted(judged_languages.keys() | missing.keys())
        },
        "shortfall": plan.wanted - counts["accepted"],
        "shortfall_reasons": dict(reasons.iter_rows()),
        "shortfalls": short.drop_nulls("task").head(MOST_SHORTFALLS).to_dicts(),
    }


def _count_turned_down(counts: dict[str, Any], turned_down: Sequence[TurnedDown]) -> dict[str, Any]:
    """Return the counts of calls and their cost with those of requests that another model took over."""
    names = ("paid", "failed", "retried", "throttled", "input_tokens", "output_tokens")
    found = {name: counts[name] + sum(getattr(one, name) for one in turned_down) for name in names}
    unpriced = counts["cost_usd"] is None or any(one.paid and one.unpriced for one in turned_down)
    cost = None if unpriced else counts["cost_usd"] + sum(one.paid_usd for one in turned_down)
    return found | {"cost_usd": cost, "turned_down": sum(one.requests for one in turned_down)}


def _compare_models(order: Order, judged: pl.LazyFrame | None, shards: Sequence[Shard]) -> dict[str, dict[str, Any]]:
    """Return ModelFigures of each model that the run could call, in the order that it named them."""
    found: dict[str, dict[str, Any]] = {name: {"turned_down": Counter(), "cost_usd": 0.0} for name in order.models}
    if judged is None:
        return found
    rows = judged.group_by("model_name").agg(
        judged=pl.len(),
        accepted=ACCEPTED.sum(),
        rejected=(~ACCEPTED).sum(),
        taken_over=(pl.col("turned_down_by").list.len() > 0).sum(),
        cost_usd=pl.col("cost_usd").filter(REPLIED).sum(),
        unpriced=pl.col("cost_usd").filter(REPLIED).is_null().sum(),
    )
    unpriced = Counter[str]()
    for row in rows.collect(engine="streaming").iter_rows(named=True):
        name = row.pop("model_name")
        unpriced[name] += row.pop("unpriced")
        found[name] |= row
    for one in (one for shard in shards for one in shard.turned_down):
        unpriced[one.model_name] += one.unpriced
        found[one.model_name]["cost_usd"] += one.cost_usd
        found[one.model_name]["turned_down"][one.reason] += one.requests
    return found | {name: found[name] | {"cost_usd": None} for name, count in unpriced.items() if count}


_COUNTS = (
    *("judged", "accepted", "rejected", "cached", "paid", "failed", "retried", "throttled"),
    *("input_tokens", "output_tokens", "rounds"),
)
_NOTHING: dict[str, Any] = dict.fromkeys(_COUNTS, 0) | {
    "cost_usd": 0.0,
    "reasons": {},
    "flags": {},
    "shared_texts": {},
    "by_language": {},
    "samples": [],
}


def _count(plan: Plan, judged: pl.LazyFrame) -> dict[str, Any]:
    fresh = ~pl.col("cached")
    paid = fresh & REPLIED
    # One after the other: together they would hold every row that they share.
    totals, languages, reasons, flags, groups = (
        one.collect(engine="streaming")
        for one in [
            judged.select(
                judged=pl.len(),
                rounds=pl.col("plan_row").max() // plan.requests + 1,
                accepted=ACCEPTED.sum(),
                rejected=(~ACCEPTED).sum(),
                cached=pl.col("cached").sum(),
                paid=paid.sum(),
                failed=(fresh & ~REPLIED).sum(),
                # A model that is down was asked nothing.
                retried=_sum(pl.col("attempts") - 1, fresh & (pl.col("attempts") > 0)),
                throttled=_sum(pl.col("throttled"), fresh),
                input_tokens=_sum(pl.col("input_tokens"), paid),
                output_tokens=_sum(pl.col("output_tokens"), paid),
                cost_usd=_sum(pl.col("cost_usd"), paid),
                unpriced=(paid & pl.col("cost_usd").is_null()).sum(),
            ),
            judged.group_by("language").agg(accepted=ACCEPTED.sum(), rejected=(~ACCEPTED).sum()).sort("language"),
            _count_names(judged, "reasons"),
            _count_names(judged.filter(ACCEPTED), "flags"),
            judged.filter(ACCEPTED & pl.col("group_id").is_not_null())
            .group_by("group_id")
            .agg(rows=pl.len())
            .select(groups=pl.len(), pairs=pl.col("rows").sum(), largest=pl.col("rows").max().fill_null(0)),
        ]
    )
    figures = totals.row(0, named=True)
    if figures.pop("unpriced"):
        figures["cost_usd"] = None
    every = max(1, figures["accepted"] // SAMPLE_PAIRS)
    samples = judged.filter(ACCEPTED).select(*SamplePair.model_fields).gather_every(every).head(SAMPLE_PAIRS)
    return figures | {
        "by_language": {row.pop("language"): row for row in languages.iter_rows(named=True)},
        "by_variation": measure_variations(judged),
        "reasons": dict(reasons.iter_rows()),
        "flags": dict(flags.iter_rows()),
        "shared_texts": groups.row(0, named=True),
        "samples": samples.collect().to_dicts(),
    }


def _sum(column: pl.Expr, where: pl.Expr) -> pl.Expr:
    """Sum the rows that are meant; with a filter inside its select polars would hold every row."""
    return pl.when(where).then(column).sum()


def _count_names(rows: pl.LazyFrame, column: str) -> pl.LazyFrame:
    """Count the rows of each name in a list column, the most frequent first."""
    names = rows.select(pl.col(column).explode(empty_as_null=False)).group_by(column).agg(rows=pl.len())
    return names.sort("rows", column, descending=[True, False])
