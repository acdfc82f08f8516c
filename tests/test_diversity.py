import polars as pl
import pytest

from tasks.core.diversity import VARIED_PAIRS, measure_variations


def judged(rows: int, *, same: bool = False) -> pl.LazyFrame:
    """Return accepted rows of one variation, as many rejected duplicates of another, and a plain row."""
    text = "one thing that is said" if same else ""
    varied = [
        {
            "request_key": f"{kind}{row:06}",
            "variation": f"form: {kind}; tone: plain",
            "reasons": [] if kind == "a question" else ["duplicate"],
            "input": text or f"thing {row} is asked for by {row + 1}",
            "positive_document": text or f"answer {row} to {row * 7}",
        }
        for row in range(rows)
        for kind in ("a question", "a statement")
    ]
    plain: dict[str, object] = {
        "request_key": "p",
        "variation": None,
        "reasons": [],
        "input": "x y",
        "positive_document": "z",
    }
    return pl.LazyFrame([*varied, plain], schema_overrides={"reasons": pl.List(pl.String)})


def test_each_value_is_counted_over_the_rows_that_were_asked_for_with_it() -> None:
    found = measure_variations(judged(3))
    assert {value: (one.accepted, one.rejected, one.duplicates) for value, one in found.items()} == {
        "form: a question": (3, 0, 0),
        "form: a statement": (0, 3, 3),
        "tone: plain": (3, 3, 3),
    }


@pytest.mark.parametrize(("rows", "told"), [(VARIED_PAIRS - 1, False), (VARIED_PAIRS, True), (VARIED_PAIRS + 9, True)])
def test_variety_is_told_at_one_number_of_pairs_only(rows: int, told: bool) -> None:
    assert (measure_variations(judged(rows))["form: a question"].distinct_2 is not None) == told


def test_equal_texts_are_less_various_than_different_ones() -> None:
    same, different = (measure_variations(judged(VARIED_PAIRS, same=same))["tone: plain"] for same in (True, False))
    assert same.distinct_2 is not None
    assert different.distinct_2 is not None
    assert same.distinct_2 < 0.1 < different.distinct_2


def test_rows_without_a_variation_have_no_figures() -> None:
    assert measure_variations(judged(0)) == {}
