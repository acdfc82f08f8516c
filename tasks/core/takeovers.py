"""Which model writes which request, and which one takes it over.

A request belongs to one model of the mix, on every night and in every round. What
that model turns down goes to the fallbacks, in their order, under their own keys.
"""

import polars as pl

from tasks.core.columns import COMPLETIONS, REPLIED
from tasks.core.mix import draw_model, next_model
from tasks.core.plans import TurnedDown
from tasks.core.prompts import build_prompt
from tasks.core.replies import parse_replies
from tasks.core.requests import Order, request_keys
from tasks.core.rules import CALL_FAILED, MAYBE_REFUSED, REFUSAL, REFUSED, RULES, TURNED_DOWN


def assign_models(samples: pl.DataFrame, order: Order) -> pl.Series:
    """Return `model_name`: the model of the mix that each sample belongs to.

    Args:
        samples: description_hash, language and sample_index.
        order: The run.
    """
    if len(order.shares) == 1:
        return pl.repeat(order.recipe.model_name, samples.height, dtype=pl.String, eager=True).alias("model_name")
    rows = samples.select("description_hash", "language", "sample_index").iter_rows()
    drawn = [draw_model(order.shares, *row, order.recipe.seed) for row in rows]
    return pl.Series("model_name", drawn, dtype=pl.String)


def key_requests(samples: pl.DataFrame, order: Order) -> pl.DataFrame:
    """Return `samples` with the request_key of each, under the recipe of its model_name."""
    keys = [""] * samples.height
    for model_name in samples["model_name"].unique():
        at = (samples["model_name"] == model_name).arg_true()
        theirs = samples[at].select("task", "language", "sample_index")
        prompts = (build_prompt(*row) for row in theirs.iter_rows())
        found = request_keys(order.recipe_of(model_name), prompts, theirs["sample_index"].to_list())
        for place, key in zip(at, found, strict=True):
            keys[place] = key
    return samples.with_columns(pl.Series("request_key", keys, dtype=pl.String))


def pass_on(rows: pl.DataFrame, order: Order) -> pl.DataFrame:
    """Return the requests by which fallbacks take over `rows`, in their order; a row is left out where none is left.

    Args:
        rows: Requests without a pair, with model_name and turned_down_by, the models asked before that one.
        order: The run.

    Returns:
        The same columns, the next fallback's, without a completion.
    """
    asked = rows.with_columns(turned_down_by=pl.concat_list("turned_down_by", pl.concat_list("model_name")))
    after = [next_model(order.fallback_models, tried) for tried in asked["turned_down_by"]]
    passed = asked.with_columns(
        pl.Series("model_name", after, dtype=pl.String),
        *(pl.lit(None, dtype).alias(name) for name, dtype in COMPLETIONS.items()),
        cached=pl.lit(value=False),
    )
    return key_requests(passed.filter(pl.col("model_name").is_not_null()), order)


def find_turned_down(completions: pl.DataFrame) -> pl.Series:
    """Return why each model would not or could not write a pair, null for every other row.

    Another model may: it is not for a reply that is only bad.
    """
    answered = pl.col("completed_at").is_not_null() & pl.col("error").is_null()
    whole = pl.col("finish_reason").ne_missing("length")
    # Few rows have any of it; only these are read as validation reads them.
    telling = (
        pl.col("finish_reason").eq_missing("content_filter")
        | pl.col("text").is_null()
        | pl.any_horizontal(pl.col("text").str.contains(rule) for rule in (REFUSAL, MAYBE_REFUSED))
    )
    rows = completions.select(*COMPLETIONS).with_row_index("row")
    doubtful = rows.filter(answered & whole & telling)
    refused = doubtful.hstack(parse_replies(doubtful)).filter(RULES[REFUSED])["row"]
    return rows.select(
        turned_down=pl.when(pl.col("row").is_in(refused.implode()))
        .then(pl.lit(REFUSED))
        .when(pl.col("completed_at").is_not_null())
        .then("error")
    ).to_series()


def is_over(order: Order, first: str, model_name: str, reason: str | None) -> bool:
    """Tell whether a judged request of `first` has come to its end with `model_name`; `reason` is null for a pair."""
    if model_name not in (first, *order.fallback_models):
        return False
    chain = [first, *(name for name in order.fallback_models if name != first)]
    return reason not in TURNED_DOWN or model_name == chain[-1]


def follow(
    rows: pl.DataFrame, known: pl.DataFrame, order: Order, *, fresh: bool = False
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Take `rows` as far along the fallbacks as they go without a call.

    A refusal is passed on, unless `order` is a redo, which asks no further model. So is a `fresh` failure;
    an old one is asked for again, unless a later model has answered: what came of that was paid for.

    Args:
        rows: Requests with `cached`, turned_down_by and the completions of their model, null where there is none.
        known: What the journal has for the keys of fallbacks: request_key and COMPLETIONS.
        order: The run.
        fresh: Whether the completions are this run's.

    Returns:
        (reached, left): the rows in their order, without a completion where one is wanted, and those
        by models that turned them down, as they were.
    """
    if not order.fallback_models:
        return rows, rows.clear()
    failed = pl.col("error").eq_missing(CALL_FAILED)
    blank = [pl.when(~failed).then(name).alias(name) for name in COMPLETIONS]
    reached = [rows if fresh else rows.with_columns(*blank, cached=pl.col("cached") & ~failed)]
    here, turned_down = rows, []
    while (refused := here.filter(find_turned_down(here).is_not_null())).height:
        turned_down.append(refused)
        passed = pass_on(refused, order)
        if order.on_published == "add":
            answered = refused.filter(pl.lit(fresh) | ~failed)
            reached.append(passed.join(answered.select("plan_row"), on="plan_row", how="semi"))
        here = _answer(passed, known)
        reached.append(here.filter(~failed))
    ends = pl.concat(reached).unique("plan_row", keep="last").sort("plan_row")
    asked = ends.select("plan_row", asked="turned_down_by")
    left = pl.concat(turned_down or [rows.clear()]).join(asked, on="plan_row")
    return ends, left.filter(pl.col("model_name").is_in(pl.col("asked"))).drop("asked")


def _answer(passed: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """Return the requests that `known` answers, with their completions."""
    found = passed.drop(COMPLETIONS).join(known.select("request_key", *COMPLETIONS), on="request_key", how="inner")
    return found.with_columns(cached=pl.lit(value=True)).select(passed.columns)


def sum_up(left: pl.DataFrame) -> tuple[TurnedDown, ...]:
    """Count what models turned down, by model and reason."""
    fresh, asked = ~pl.col("cached"), pl.col("attempts") > 0
    paid = fresh & REPLIED
    figures = (
        left.with_columns(find_turned_down(left).alias("reason"))
        .group_by("model_name", "reason")
        .agg(
            requests=pl.len(),
            paid=paid.sum(),
            failed=(fresh & ~REPLIED & asked).sum(),
            retried=(pl.col("attempts") - 1).filter(fresh & asked).sum(),
            throttled=pl.col("throttled").filter(fresh).sum(),
            input_tokens=pl.col("input_tokens").filter(paid).sum(),
            output_tokens=pl.col("output_tokens").filter(paid).sum(),
            cost_usd=pl.col("cost_usd").filter(REPLIED).sum(),
            paid_usd=pl.col("cost_usd").filter(paid).sum(),
            unpriced=pl.col("cost_usd").filter(REPLIED).is_null().sum(),
        )
        .sort("model_name", "reason")
    )
    return tuple(TurnedDown(**row) for row in figures.iter_rows(named=True))
