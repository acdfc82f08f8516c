import dataclasses

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.planning import JUDGED, SERVED, normalise, number_hashes, plan_requests
from tasks.core.requests import Order
from tests.orders import ORDER


def describe(*texts: str | None) -> pl.DataFrame:
    return normalise(pl.DataFrame({"task": texts, "id": range(len(texts))}, schema_overrides={"task": pl.String}))


def plan(
    order: Order,
    descriptions: pl.DataFrame,
    served: pl.DataFrame | None = None,
    judged: pl.DataFrame | None = None,
) -> tuple[pl.DataFrame, int, int]:
    pieces = list(
        plan_requests(
            descriptions,
            pl.DataFrame(schema=SERVED) if served is None else served,
            pl.DataFrame(schema=JUDGED) if judged is None else judged,
            order,
        )
    )
    return pl.concat([rows for rows, _, _ in pieces]), sum(one[1] for one in pieces), sum(one[2] for one in pieces)


def serve(descriptions: pl.DataFrame, language: str, pairs: int) -> pl.DataFrame:
    numbers = descriptions.select(number=number_hashes(pl.col("description_hash")))
    return numbers.with_columns(language=pl.lit(language), pairs=pl.lit(pairs, pl.Int64))


def test_blank_descriptions_are_left_out_and_the_rest_keeps_its_columns() -> None:
    rows = describe("  one ", None, "", " \n", "two")
    assert rows.select("task", "id").rows() == [("one", 0), ("two", 4)]
    assert rows["description_hash"].str.len_chars().to_list() == [32, 32]


def test_numbers_tell_descriptions_apart() -> None:
    numbers = describe(*map(str, range(1000))).select(number_hashes(pl.col("description_hash"))).to_series()
    assert (numbers.n_unique(), numbers.null_count()) == (1000, 0)


def test_a_plan_goes_by_description_then_language_then_sample() -> None:
    order = dataclasses.replace(ORDER, languages=("German", "English"), pairs_per_task=2)
    rows, wanted, _ = plan(order, describe("one", "two"))
    assert wanted == rows.height == 8
    assert rows.select("task", "language", "sample_index").rows() == [
        (task, language, sample) for task in ("one", "two") for language in order.languages for sample in (0, 1)
    ]
    assert rows["request_key"].n_unique() == 8
    assert rows["id"].to_list() == [0] * 4 + [1] * 4


@pytest.mark.parametrize(("pairs", "samples"), [(0, [0, 1, 2]), (1, [0, 1]), (2, [0]), (3, []), (4, [])])
def test_what_is_served_is_not_asked_for(pairs: int, samples: list[int]) -> None:
    one = describe("one")
    order = dataclasses.replace(ORDER, pairs_per_task=3)
    rows, wanted, _ = plan(order, one, serve(one, "English", pairs))
    assert (rows["sample_index"].to_list(), wanted) == (samples, len(samples))


def test_another_languages_pairs_serve_nothing() -> None:
    one = describe("one")
    assert plan(ORDER, one, serve(one, "German", 9))[1] == 1


@pytest.mark.parametrize(("accepted", "left_out"), [(True, 0), (False, 1)])
def test_a_request_that_was_judged_gives_way_to_the_next_sample(accepted: bool, left_out: int) -> None:
    order = dataclasses.replace(ORDER, pairs_per_task=2)
    one = describe("one")
    first = plan(order, one)[0]["request_key"][0]
    judged = pl.DataFrame({"request_key": [first], "accepted": [accepted]}, schema=JUDGED)
    rows, _, known = plan(order, one, serve(one, "English", int(accepted)), judged)
    assert (rows["sample_index"].to_list(), known) == ([1], left_out)


@given(st.lists(st.sampled_from(["a", "b", "c", " a ", "", "é", "e\u0301"])))
def test_a_plan_is_the_same_however_it_is_cut(texts: list[str]) -> None:
    descriptions = describe(*texts).unique("description_hash", keep="first", maintain_order=True)
    order = dataclasses.replace(ORDER, languages=("English", "German"), pairs_per_task=2)
    whole = plan(order, descriptions)[0] if descriptions.height else pl.DataFrame()
    pieces = [plan(order, piece)[0] for piece in descriptions.iter_slices(1)]
    assert (pl.concat(pieces) if pieces else pl.DataFrame()).equals(whole)
