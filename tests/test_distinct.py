import dataclasses

import polars as pl
import pytest

from tasks.core.distinct import draw_languages, find_first, normalise, number_hashes, number_languages
from tasks.core.languages import LANGUAGES
from tests.orders import ORDER


def describe(*texts: str | None) -> pl.DataFrame:
    return normalise(pl.DataFrame({"task": texts, "id": range(len(texts))}, schema_overrides={"task": pl.String}))


def named(*rows: tuple[str, str | None]) -> pl.DataFrame:
    return normalise(pl.DataFrame(rows, schema={"task": pl.String, "language": pl.String}, orient="row"))


def test_blank_descriptions_are_left_out_and_the_rest_keeps_its_columns() -> None:
    rows = describe("  one ", None, "", " \n", "two")
    assert rows.select("task", "id").rows() == [("one", 0), ("two", 4)]
    assert rows["description_hash"].str.len_chars().to_list() == [32, 32]


def test_numbers_tell_descriptions_apart() -> None:
    numbers = describe(*map(str, range(1000))).select(number_hashes(pl.col("description_hash"))).to_series()
    assert (numbers.n_unique(), numbers.null_count()) == (1000, 0)


def test_a_language_is_read_by_its_name_or_code_and_an_unknown_one_keeps_what_it_says() -> None:
    rows = named(("one", "de"), ("two", None), ("three", " "), ("four", "Klingon"))
    assert rows["language"].to_list() == ["German", None, None, "Klingon"]


def test_the_mix_draws_one_language_a_description_by_the_seed_in_the_published_shares() -> None:
    order = dataclasses.replace(ORDER, languages=tuple(LANGUAGES), language_mix="paper")
    rows = describe(*map(str, range(20_000)))
    drawn = draw_languages(rows, order)["language"]
    assert drawn.slice(7).equals(draw_languages(rows.slice(7), order)["language"])
    shares: dict[str, float] = dict(drawn.value_counts(normalize=True).iter_rows())
    assert shares["English"] == pytest.approx(0.431, abs=0.02)
    assert shares["Persian"] == pytest.approx(0.029, abs=0.006)
    assert len(shares) == len(LANGUAGES)
    other = draw_languages(rows, dataclasses.replace(order, recipe=dataclasses.replace(order.recipe, seed=43)))
    assert (other["language"] == drawn).sum() < 10_000
    assert draw_languages(named(("one", "th")), order)["language"].to_list() == ["Thai"]


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ([("a", "de"), ("a", "th"), ("a", "German")], [0, 1]),
        ([("a", None), ("a", None), ("b", None)], [0, 2]),
        ([("a", "de"), ("a", None), ("a", "en")], [0, 1]),
        ([("a", None), ("b", "en"), ("a", "en")], [0, 1]),
    ],
)
def test_each_description_and_language_counts_once(rows: list[tuple[str, str | None]], kept: list[int]) -> None:
    frame = named(*rows).select(
        number=number_hashes(pl.col("description_hash")), language=number_languages(pl.col("language"))
    )
    first = find_first(frame["number"], frame["language"], ORDER)
    assert [at for at, kept_ in enumerate(first) if kept_] == kept
