"""The columns of every frame that crosses a step.

128-bit keys are hex text and 64-bit keys Int64: Delta has no unsigned integers.
"""

import polars as pl

Schema = dict[str, pl.DataType | type[pl.DataType]]

UTC_TIME = pl.Datetime("us", "UTC")

# The texts that the model writes; the names are those of the system we follow.
TEXTS = ("input", "positive_document")

# One row per wanted completion. `plan_row` counts from 0 in plan order; `model_name` is who shall write it.
REQUESTS: Schema = {
    "plan_row": pl.Int64,
    "request_key": pl.String,
    "description_hash": pl.String,
    "task": pl.String,
    "language": pl.String,
    "sample_index": pl.Int64,
    "model_name": pl.String,
}

# One row per request that was answered or refused for good. `text` is null where
# the provider sent none, `error` is the reason of a call that failed for good,
# `cost_usd` is null when no price is known, `latency_s` is of the last attempt, and `throttled` counts
# the attempts that were told to wait, which `attempts` leaves out.
COMPLETIONS: Schema = {
    "text": pl.String,
    "finish_reason": pl.String,
    "model_answered": pl.String,
    "input_tokens": pl.Int64,
    "output_tokens": pl.Int64,
    "cost_usd": pl.Float64,
    "latency_s": pl.Float64,
    "attempts": pl.Int64,
    "throttled": pl.Int64,
    "error": pl.String,
    "completed_at": UTC_TIME,
}

NO_CHOICES = "no_choices"
# A reply came, good or not, and was paid for.
REPLIED = pl.col("error").is_null() | (pl.col("error") == NO_CHOICES)

JOURNAL: Schema = {"request_key": pl.String, **COMPLETIONS}

# What a published row says beyond the source's own columns. Keys of equal texts are
# equal (see keys); `group_id` is null for a pair that shares neither text with another.
PAIR: Schema = {
    "partition": pl.String,
    "task": pl.String,
    "language": pl.String,
    "input": pl.String,
    "positive_document": pl.String,
    "model_name": pl.String,
}
LINEAGE: Schema = {
    "request_key": pl.String,
    "description_hash": pl.String,
    "sample_index": pl.Int64,
    "variation": pl.String,
    "prompt_hash": pl.String,
    "model_answered": pl.String,
    "repair_stage": pl.String,
    "input_tokens": pl.Int64,
    "output_tokens": pl.Int64,
    "cost_usd": pl.Float64,
    "pair_key": pl.Int64,
    "input_key": pl.Int64,
    "positive_key": pl.Int64,
    "group_id": pl.Int64,
    "flags": pl.List(pl.String),
    "run_id": pl.String,
    "created_at": UTC_TIME,
}
REJECTION: Schema = {"reasons": pl.List(pl.String), "text": pl.String}

ACCEPTED = pl.col("reasons").list.len() == 0

# What is staged beside them: whether the journal knew the completion, and the models that turned the request down.
STAGED: Schema = {"cached": pl.Boolean, "turned_down_by": pl.List(pl.String)}
# A row of a shard, but for the source's own columns.
SHARD: Schema = {**REQUESTS, **COMPLETIONS, **STAGED}

OURS = frozenset({**REQUESTS, **COMPLETIONS, **PAIR, **LINEAGE, **REJECTION, **STAGED})


def with_missing(rows: pl.LazyFrame, wanted: Schema) -> pl.LazyFrame:
    """Return `rows` with nulls for the `wanted` columns that it lacks: an older version wrote it."""
    held = rows.collect_schema()
    return rows.with_columns(pl.lit(None, dtype).alias(name) for name, dtype in wanted.items() if name not in held)
