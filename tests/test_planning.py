import dataclasses

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.distinct import number_hashes
from tasks.core.planning import CLAIMED, GROUP, JUDGED, SERVED, next_requests, plan_requests
from tasks.core.requests import Order
from tests.orders import ORDER
from tests.test_distinct import describe, named


def plan(
    order: Order,
    descriptions: pl.DataFrame,
    served: pl.DataFrame | None = None,
    judged: pl.DataFrame | None = None,
    claimed: pl.DataFrame | None = None,
) -> tuple[pl.DataFrame, int, int]:
    pieces = list(
        plan_requests(
            descriptions,
            pl.DataFrame(schema=SERVED) if served is None else served,
            pl.DataFrame(schema=JUDGED) if judged is None else judged,
            pl.DataFrame(schema=CLAIMED) if claimed is None else claimed,
            order,
        )
    )
    used = pl.concat(piece.used for piece in pieces)
    return pl.concat(piece.requests for piece in pieces), sum(one.wanted for one in pieces), used["reason"].count()


def serve(descriptions: pl.DataFrame, language: str, pairs: int) -> pl.DataFrame:
    numbers = descriptions.select(number=number_hashes(pl.col("description_hash")))
    return numbers.with_columns(language=pl.lit(language), pairs=pl.lit(pairs, pl.Int64))


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


def test_what_another_run_is_making_is_left_to_it() -> None:
    order = dataclasses.replace(ORDER, languages=("English", "German"))
    two = describe("one", "two")
    claimed = serve(two.head(1), "German", 0).select(*CLAIMED)
    rows, wanted, _ = plan(order, two, claimed=claimed)
    assert rows.select("task", "language").rows() == [("one", "English"), ("two", "English"), ("two", "German")]
    assert wanted == 3
    [piece] = plan_requests(two, serve(two, "German", 1), pl.DataFrame(schema=JUDGED), claimed, order)
    assert (piece.served, piece.claimed) == (2, 0), "what is served needs no claim"


def judge(requests: pl.DataFrame, *reasons: str | None) -> pl.DataFrame:
    numbers = requests.head(len(reasons)).with_columns(
        number=number_hashes(pl.col("description_hash")), reason=pl.Series(reasons, dtype=pl.String)
    )
    return numbers.select(*JUDGED)


@pytest.mark.parametrize(("reason", "samples", "rejected"), [(None, [1], 0), ("empty", [1, 2], 1)])
def test_a_request_that_was_judged_gives_way_to_the_next_sample(
    reason: str | None, samples: list[int], rejected: int
) -> None:
    order = dataclasses.replace(ORDER, pairs_per_task=2)
    one = describe("one")
    judged = judge(plan(order, one)[0], reason)
    rows, _, known = plan(order, one, serve(one, "English", int(reason is None)), judged)
    assert (rows["sample_index"].to_list(), known) == (samples, rejected)


@pytest.mark.parametrize(("attempts", "samples", "missing"), [(2, [], [1]), (3, [2], [])])
def test_what_has_no_attempt_left_is_given_up_with_its_main_reason(
    attempts: int, samples: list[int], missing: list[int]
) -> None:
    one = describe("one")
    asked = plan(dataclasses.replace(ORDER, pairs_per_task=2), one)[0]
    order = dataclasses.replace(ORDER, max_attempts_per_pair=attempts)
    [piece] = plan_requests(
        one, pl.DataFrame(schema=SERVED), judge(asked, "empty", "empty"), pl.DataFrame(schema=CLAIMED), order
    )
    assert piece.requests["sample_index"].to_list() == samples
    assert piece.given_up["missing"].to_list() == missing
    assert set(piece.given_up["reason"]) <= {"empty"}


def test_a_judged_request_of_another_recipe_uses_nothing_up() -> None:
    one = describe("one")
    other = dataclasses.replace(ORDER, recipe=dataclasses.replace(ORDER.recipe, seed=1))
    judged = judge(plan(other, one)[0], "empty")
    assert plan(ORDER, one, judged=judged)[0]["sample_index"].to_list() == [0]


@given(
    outcomes=st.lists(st.booleans(), min_size=12, max_size=12),
    pairs=st.integers(1, 4),
    attempts=st.integers(1, 3),
)
def test_rounds_end_with_exactly_the_pairs_wanted_or_with_every_attempt_used(
    outcomes: list[bool], pairs: int, attempts: int
) -> None:
    order = dataclasses.replace(ORDER, pairs_per_task=pairs, max_attempts_per_pair=attempts)
    groups = describe("one").with_columns(language=pl.lit("English"))
    samples: list[int] = []
    while missing := pairs - sum(outcomes[sample] for sample in samples):
        used = pl.DataFrame({"sample_index": samples}, schema={"sample_index": pl.Int64}).join(
            groups.select(GROUP), how="cross"
        )
        asked = next_requests(groups.with_columns(missing=pl.lit(missing, pl.Int64)), used, order)
        if not asked.height:
            break
        assert asked.height <= missing
        samples += asked["sample_index"].to_list()
    assert samples == list(range(len(samples)))
    assert missing == 0 or len(samples) == pairs * attempts


@given(st.lists(st.sampled_from(["a", "b", "c", " a ", "", "é", "e\u0301"])))
def test_a_plan_is_the_same_however_it_is_cut(texts: list[str]) -> None:
    descriptions = describe(*texts).unique("description_hash", keep="first", maintain_order=True)
    order = dataclasses.replace(ORDER, languages=("English", "German"), pairs_per_task=2)
    whole = plan(order, descriptions)[0] if descriptions.height else pl.DataFrame()
    pieces = [plan(order, piece)[0] for piece in descriptions.iter_slices(1)]
    assert (pl.concat(pieces) if pieces else pl.DataFrame()).equals(whole)


def test_a_language_of_the_source_wins() -> None:
    order = dataclasses.replace(ORDER, languages=("English", "Thai"))
    asked = plan(order, named(("one", "de"), ("two", None)))[0]
    assert asked.select("task", "language").rows() == [("one", "German"), ("two", "English"), ("two", "Thai")]
