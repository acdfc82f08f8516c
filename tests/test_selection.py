import dataclasses

import polars as pl

from tasks.core.distinct import draw_languages, normalise
from tasks.core.exports import ExportOrder
from tasks.core.languages import LANGUAGES
from tasks.core.selection import choose_rows, select_pairs, split_of, text_keys
from tests.orders import ORDER
from tests.test_duplicates import keyed

EXPORT = ExportOrder(
    destination="s3://bucket/out",
    version="one",
    start_date="",
    end_date="",
    languages=tuple(LANGUAGES),
    leave_out_flagged=(),
    held_out=(),
    licence="other",
    validation_share=0.25,
    test_share=0.25,
)


def describe(count: int) -> pl.DataFrame:
    return normalise(pl.DataFrame({"task": [f"match thing {row}" for row in range(count)]}))


def test_no_split_is_of_few_languages() -> None:
    order = dataclasses.replace(ORDER, languages=tuple(LANGUAGES), language_mix="paper")
    rows = draw_languages(describe(20_000), order).with_columns(split=split_of(0.05, 0.05))
    english = rows.group_by("split").agg(share=(pl.col("language") == "English").mean())
    assert english.filter((pl.col("share") - 0.431).abs() > 0.06).rows() == []
    assert rows.filter(split="train")["language"].n_unique() == len(LANGUAGES)


def test_a_text_that_is_an_input_in_one_split_is_no_positive_document_in_another() -> None:
    pairs = [(f"question number {row}", f"answer number {row}") for row in range(200)]
    rows = keyed(*pairs, *((answer, question) for question, answer in pairs)).with_columns(
        pl.Series("description_hash", describe(400)["description_hash"]), flags=pl.lit([], pl.List(pl.String))
    )
    chosen, left_out = choose_rows(rows, EXPORT, pl.Series(dtype=pl.Int64))
    texts = rows.join(chosen.lazy(), on="plan_row").select("split", text=pl.concat_list("input", "positive_document"))
    spread = texts.explode("text").group_by("text").agg(pl.col("split").n_unique())
    assert spread.filter(pl.col("split") > 1).collect().rows() == []
    assert set(chosen["split"]) == {"train", "validation", "test"}
    assert chosen.height + sum(left_out.values()) == 400


def test_pairs_that_an_older_version_published_without_keys_are_told_apart_like_any() -> None:
    pairs = [("a question to keep", "its answer"), ("a question to hold out", "another answer")]
    rows = (
        keyed(*pairs, pairs[0])
        .drop("plan_row")
        .with_columns(
            pl.Series("description_hash", describe(3)["description_hash"]),
            pl.Series("request_key", ["1" * 32, "2" * 32, "3" * 32]),
            language=pl.lit("English"),
            partition=pl.lit("2026-01-01"),
        )
    )
    order = dataclasses.replace(EXPORT, validation_share=0.0, test_share=0.0)
    for known in (rows, rows.drop("pair_key", "input_key", "positive_key")):
        chosen, left_out = choose_rows(select_pairs(known, order), order, text_keys(pl.Series([pairs[1][0]])))
        assert (chosen.height, left_out) == (1, {"duplicate": 1, "held_out": 1})
