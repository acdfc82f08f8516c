"""From completions to judged rows, and from judged rows to what is published."""

import polars as pl

from tasks.core.columns import ACCEPTED, LINEAGE, PAIR, REJECTION
from tasks.core.duplicates import KEYS, find_duplicates, find_groups
from tasks.core.keys import pair_key
from tasks.core.prompts import PROMPT_HASH
from tasks.core.replies import parse_replies
from tasks.core.requests import Order
from tasks.core.rules import judge
from tasks.core.variations import name_variation

DUPLICATE_ELSEWHERE = "duplicate_elsewhere"


def judge_completions(rows: pl.LazyFrame, order: Order) -> pl.DataFrame:
    """Parse and judge completions.

    Args:
        rows: REQUESTS, COMPLETIONS, STAGED and the source's own columns.
        order: The run.

    Returns:
        The same rows in their order with PAIR, LINEAGE and REJECTION: what both
        tables publish, beside `plan_row`, `cached` and the completion's other columns.
    """
    completions = rows.collect()
    read = completions.hstack(parse_replies(completions))
    judged = judge(read.lazy(), order.reject_flagged).collect(engine="streaming")
    asked = judged.select("task", "language", "sample_index").iter_rows()
    return judged.drop("problem").with_columns(
        pl.Series("variation", [name_variation(*row) for row in asked], dtype=pl.String),
        pair_key=pair_key(),
        group_id=pl.lit(None, pl.Int64),
        partition=pl.lit(order.partition),
        prompt_hash=pl.lit(PROMPT_HASH),
        run_id=pl.lit(order.run_id),
        created_at=pl.col("completed_at"),
    )


def find_reason(task: str, language: str, text: str, finish_reason: str | None) -> str | None:
    """Return the first reason to reject a reply by itself, None for a good one."""
    said = {"task": task, "language": language, "text": text, "finish_reason": finish_reason, "error": None}
    reply = pl.DataFrame([said], schema=dict.fromkeys(said, pl.String))
    reasons = judge(reply.hstack(parse_replies(reply)).lazy()).collect()["reasons"].item()
    return str(reasons[0]) if len(reasons) else None


def reject_duplicates(
    judged: pl.LazyFrame, staying: pl.LazyFrame | None = None, among: pl.LazyFrame | None = None
) -> pl.LazyFrame:
    """Return `judged` in its order, with the reasons `duplicate` and `near_duplicate` added.

    Args:
        judged: Judged rows of one partition, as judge_completions returns them.
        staying: Pairs that stay published in the partition, None where there are none.
        among: Judged rows that they are compared with, `judged` itself where it is None.
    """
    found = find_duplicates((judged if among is None else among).filter(ACCEPTED), staying)
    marked = judged.join(found.lazy(), on="plan_row", how="left", maintain_order="left")
    return marked.with_columns(reasons=_append("reasons", pl.col("found"))).drop("found")


def relate(judged: pl.LazyFrame, staying: pl.LazyFrame | None, elsewhere: pl.LazyFrame | None) -> pl.LazyFrame:
    """Return `judged` in its order, with `group_id` and the flag `duplicate_elsewhere`.

    The flag marks the same pair in another partition. It rejects nothing: two
    partitions may be published at once, and an export decides between them.

    Args:
        judged: Judged rows without their duplicates.
        staying: Pairs that stay published in the partition, None where there are none.
        elsewhere: Pairs of the other partitions, None where there are none.
    """
    keys = judged.filter(ACCEPTED).select(*KEYS)
    groups = find_groups(keys if staying is None else pl.concat([staying.select(*KEYS), keys]))
    related = judged.drop("group_id").join(groups.lazy(), on="pair_key", how="left", maintain_order="left")
    if elsewhere is None:
        return related
    known = elsewhere.select("pair_key").join(keys, on="pair_key", how="semi").unique()
    known = known.with_columns(found=pl.lit(DUPLICATE_ELSEWHERE)).collect(engine="streaming").lazy()
    related = related.join(known, on="pair_key", how="left", maintain_order="left")
    return related.with_columns(flags=_append("flags", pl.col("found"))).drop("found")


def _append(column: str, name: pl.Expr) -> pl.Expr:
    """Append `name` to a list column, where it is not null."""
    return pl.col(column).list.concat(pl.concat_list(name).list.drop_nulls())


def pair_columns(source_columns: tuple[str, ...]) -> list[str]:
    """Return the columns of the pairs table: ours, the source's own, then lineage."""
    return [*PAIR, *source_columns, *LINEAGE]


def rejected_columns(source_columns: tuple[str, ...]) -> list[str]:
    """Return the columns of the rejected table: those of a pair, with reasons and raw text."""
    return [*PAIR, *REJECTION, "finish_reason", *source_columns, *LINEAGE]
