"""From completions to judged rows, and from judged rows to what is published."""

import polars as pl

from tasks.core.columns import LINEAGE, PAIR, REJECTION, TEXTS
from tasks.core.parsing import Parsed, parse_pair
from tasks.core.prompts import PROMPT_HASH
from tasks.core.requests import Order
from tasks.core.rules import DUPLICATE, judge, pair_keys

_PARSED = dict.fromkeys((*TEXTS, "repair_stage", "problem"), pl.String)


def judge_completions(rows: pl.LazyFrame, order: Order) -> pl.DataFrame:
    """Parse and judge completions.

    Args:
        rows: REQUESTS, COMPLETIONS, `cached` and the source's own columns.
        order: The run.

    Returns:
        The same rows in their order with PAIR, LINEAGE and REJECTION: what both
        tables publish, beside `plan_row`, `cached` and the completion's other columns.
    """
    completions = rows.collect()
    parsed = [
        parse_pair(text) if text is not None and finish_reason != "length" else Parsed(None, None, None, None)
        for text, finish_reason in completions.select("text", "finish_reason").iter_rows()
    ]
    read = pl.DataFrame(parsed, schema=_PARSED, orient="row")
    judged = judge(completions.hstack(read).lazy()).collect(engine="streaming")
    keys = pair_keys(
        judged["language"].to_list(),
        judged["key_input"].fill_null("").to_list(),
        judged["key_positive_document"].fill_null("").to_list(),
    )
    return judged.drop("key_input", "key_positive_document", "problem").with_columns(
        pl.Series("pair_key", keys, dtype=pl.Int64),
        partition=pl.lit(order.partition),
        model_name=pl.lit(order.recipe.model_name),
        prompt_hash=pl.lit(PROMPT_HASH),
        run_id=pl.lit(order.run_id),
        created_at=pl.col("completed_at"),
    )


def find_duplicates(judged: pl.LazyFrame, published: pl.LazyFrame | None) -> pl.DataFrame:
    """Return the plan rows of accepted pairs that stand earlier, in plan order or already published.

    Args:
        judged: plan_row, pair_key and reasons.
        published: pair_key of the pairs that stay in the partition, None where there are none.

    Returns:
        Column plan_row.
    """
    keys = judged.filter(pl.col("reasons").list.len() == 0).select("plan_row", "pair_key").sort("plan_row")
    repeated = keys.filter(~pl.col("pair_key").is_first_distinct())
    if published is not None:
        known = keys.join(published.select("pair_key"), on="pair_key", how="semi")
        repeated = pl.concat([repeated, known]).unique("plan_row")
    return repeated.select("plan_row").collect(engine="streaming")


def mark_duplicates(judged: pl.LazyFrame, duplicates: pl.DataFrame) -> pl.LazyFrame:
    """Return `judged` in its order, with the reason `duplicate` added to those plan rows."""
    marks = duplicates.lazy().with_columns(found=pl.lit([DUPLICATE]))
    return (
        judged.join(marks, on="plan_row", how="left", maintain_order="left")
        .with_columns(reasons=pl.col("reasons").list.concat(pl.col("found").fill_null([])))
        .drop("found")
    )


def pair_columns(source_columns: tuple[str, ...]) -> list[str]:
    """Return the columns of the pairs table: ours, the source's own, then lineage."""
    return [*PAIR, *source_columns, *LINEAGE]


def rejected_columns(source_columns: tuple[str, ...]) -> list[str]:
    """Return the columns of the rejected table: those of a pair, with reasons and raw text."""
    return [*PAIR, *REJECTION, "finish_reason", *source_columns, *LINEAGE]
