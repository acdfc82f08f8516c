"""Which published pairs an export holds, in which split, and in which shapes.

Everything is decided over keys of one pinned table version, so the same version
and order give the same rows.
"""

from collections.abc import Sequence
from datetime import date

import polars as pl

from tasks.core.columns import LINEAGE, PAIR, with_missing
from tasks.core.duplicates import DUPLICATE, KEYS, NEAR_DUPLICATE, find_duplicates, find_groups
from tasks.core.exports import ExportOrder
from tasks.core.judging import pair_columns
from tasks.core.keys import fold, hash_words, pair_key, text_key
from tasks.core.languages import LANGUAGES

_FIRST_DAY = date(2000, 1, 1)
# Bits of a row's number that tell it from the others of its day; where two have the same, their pairs' keys do.
_ROW_BITS = 48


def select_pairs(published: pl.LazyFrame, order: ExportOrder) -> pl.LazyFrame:
    """Return the published pairs of the order's days and languages, numbered by `plan_row`.

    The number grows with the day; within one it is a part of the request's key.
    """
    rows = with_missing(published, {**KEYS, "flags": pl.List(pl.String), "group_id": pl.Int64}).with_columns(
        input_key=_known_key("input_key", "input"), positive_key=_known_key("positive_key", "positive_document")
    )
    rows = rows.with_columns(pl.col("pair_key").fill_null(pair_key()))
    if order.start_date:
        rows = rows.filter(pl.col("partition") >= order.start_date)
    if order.end_date:
        rows = rows.filter(pl.col("partition") <= order.end_date)
    if set(order.languages) != set(LANGUAGES):
        rows = rows.filter(pl.col("language").is_in(order.languages))
    day = (pl.col("partition").str.to_date() - _FIRST_DAY).dt.total_days()
    within = pl.col("request_key").str.slice(0, _ROW_BITS // 4).str.to_integer(base=16, dtype=pl.Int64)
    return rows.with_columns(plan_row=day * 2**_ROW_BITS + within)


def _known_key(key: str, text: str) -> pl.Expr:
    """Return the key of a text, anew where an older version has stored none."""
    unknown = pl.when(pl.col(key).is_null()).then(pl.col(text))
    return pl.col(key).fill_null(text_key(hash_words(fold(unknown))))


def split_of(validation_share: float, test_share: float) -> pl.Expr:
    """Return the split of each description by its hash: it never moves, and no other decides it.

    By the hash's end: by its beginning languages are drawn, and a split would hold few of them.
    """
    place = pl.col("description_hash").str.tail(8).str.to_integer(base=16, dtype=pl.Int64) / 2**32
    return (
        pl.when(place < test_share)
        .then(pl.lit("test"))
        .when(place < test_share + validation_share)
        .then(pl.lit("validation"))
        .otherwise(pl.lit("train"))
    )


def choose_rows(rows: pl.LazyFrame, order: ExportOrder, held_out: pl.Series) -> tuple[pl.DataFrame, dict[str, int]]:
    """Decide which rows the export holds.

    Of duplicates in the whole table the earliest partition's survives. A pair of
    train that shares a text with validation or test, in whichever place, is left
    out, and so is one of validation that shares one with test.

    Args:
        rows: As select_pairs returns them.
        order: The export.
        held_out: Keys of texts that must not be in it.

    Returns:
        plan_row, pair_key, split and group_id of the rows it holds; and how many it does not, by cause.
    """
    flagged = pl.any_horizontal(
        pl.lit(value=False), *(pl.col("flags").list.contains(f) for f in order.leave_out_flagged)
    )
    keys = rows.select(
        "plan_row",
        *KEYS,
        split=split_of(order.validation_share, order.test_share),
        flagged=flagged.fill_null(value=False),
    ).collect(engine="streaming")
    left_out: dict[str, int] = {}

    def leave_out(cause: str, gone: pl.Expr) -> None:
        nonlocal keys
        kept = keys.filter(~gone)
        left_out[cause] = left_out.get(cause, 0) + keys.height - kept.height
        keys = kept

    leave_out("flagged", pl.col("flagged"))
    kept = rows.join(keys.select("plan_row").lazy(), on="plan_row", how="semi")
    found = find_duplicates(kept)
    for cause in (DUPLICATE, NEAR_DUPLICATE):
        leave_out(cause, pl.col("plan_row").is_in(found.filter(pl.col("found") == cause)["plan_row"].implode()))
    leave_out("held_out", _holds(held_out))
    for split, others in (("validation", ["test"]), ("train", ["validation", "test"])):
        theirs = keys.filter(pl.col("split").is_in(others))
        shares = _holds(pl.concat([theirs["input_key"], theirs["positive_key"]]))
        leave_out("shared_with_another_split", (pl.col("split") == split) & shares)
    groups = find_groups(keys.lazy())
    chosen = keys.join(groups, on="pair_key", how="left").select("plan_row", "pair_key", "split", "group_id")
    return chosen, {cause: rows for cause, rows in left_out.items() if rows}


def _holds(texts: pl.Series) -> pl.Expr:
    """A text of the pair, whichever, has one of these keys."""
    return pl.any_horizontal(pl.col("input_key", "positive_key").is_in(texts.implode()))


def text_keys(texts: pl.Series) -> pl.Series:
    """Return the key of each text, without nulls and repeats."""
    keys = texts.drop_nulls().to_frame("text").select(text_key(hash_words(fold(pl.col("text")))))
    return keys.to_series().unique()


def as_pairs(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Return exactly anchor and positive: sentence-transformers takes every column as a text."""
    return rows.select(anchor="input", positive="positive_document")


def as_full(rows: pl.LazyFrame, columns: Sequence[str]) -> pl.LazyFrame:
    """Return the published columns, `group_id` anew over the whole export."""
    source = tuple(name for name in columns if name not in PAIR and name not in LINEAGE)
    return rows.select(name for name in pair_columns(source) if name in columns)


def as_flag_embedding(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Return query, pos and neg: all positives of one input in one row, no negatives yet."""
    alone = pl.col("group_id").is_null()
    one = rows.filter(alone).select(query="input", pos=pl.concat_list("positive_document"))
    shared = rows.filter(~alone).group_by("input_key", maintain_order=True)
    many = shared.agg(query=pl.col("input").first(), pos="positive_document").drop("input_key")
    return pl.concat([one, many]).with_columns(neg=pl.lit([], dtype=pl.List(pl.String)))
