"""What is still missing after a run: which pairs of which descriptions, and for what reason."""

from collections import Counter

import polars as pl

from tasks.core.columns import ACCEPTED, Schema
from tasks.core.planning import GROUP
from tasks.core.plans import Plan

SHORTFALL: Schema = {"task": pl.String, "language": pl.String, "missing": pl.Int64, "reason": pl.String}


def find_shortfalls(plan: Plan, judged: pl.LazyFrame | None) -> pl.DataFrame:
    """Return SHORTFALL of what is still missing, in plan order.

    Of what was given up before, only the examples name their task.
    """
    examples = pl.DataFrame(plan.given_up_examples, schema=SHORTFALL)
    rest = Counter(plan.given_up_pairs)
    for _, language, missing, reason in examples.iter_rows():
        rest[language, reason] -= missing
    unnamed = [(None, language, missing, reason) for (language, reason), missing in rest.items() if missing]
    found = [examples, pl.DataFrame(unnamed, schema=SHORTFALL, orient="row")]
    if judged is not None:
        found.insert(0, _find_rejected_for_good(plan, judged))
    return pl.concat(found)


def _find_rejected_for_good(plan: Plan, judged: pl.LazyFrame) -> pl.DataFrame:
    """Return SHORTFALL of rejected rows: each is a missing pair, unless a later round's row took its place."""
    again = pl.col("plan_row") >= plan.requests
    rows = judged.select("plan_row", "task", *GROUP, "reasons").filter(~ACCEPTED | again)
    groups = rows.group_by(GROUP).agg(
        pl.col("plan_row").min(), pl.col("task").first(), missing=(~ACCEPTED).sum().cast(pl.Int64) - again.sum()
    )
    reasons = (
        rows.explode("reasons", empty_as_null=False)
        .group_by(*GROUP, "reasons")
        .agg(rows=pl.len())
        .group_by(GROUP)
        .agg(reason=pl.col("reasons").sort_by("rows", "reasons", descending=[True, False]).first())
    )
    return (
        groups.filter(pl.col("missing") > 0)
        .join(reasons, on=GROUP)
        .sort("plan_row")
        .select(*SHORTFALL)
        .collect(engine="streaming")
    )
