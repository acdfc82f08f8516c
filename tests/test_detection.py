"""Figures on short pairs in 86 languages, written for this test: data/languages.tsv."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import polars as pl
import pytest

from flows.stand_in import SAMPLES
from tasks.core.detection import detect_pair
from tasks.core.english import clearly_english
from tasks.core.keys import fold, split_words
from tasks.core.languages import LANGUAGES
from tasks.core.rules import judge

FIELDS = ("language", "input", "positive_document")


@cache
def labelled() -> tuple[tuple[str, str, str], ...]:
    lines = (Path(__file__).parent / "data" / "languages.tsv").read_text(encoding="utf-8").splitlines()
    return tuple((name, one, other) for name, one, other in (line.split("\t") for line in lines))


@cache
def samples() -> tuple[tuple[str, str, str], ...]:
    """Return the demo's pairs, which people wrote, too."""
    rows = (json.loads(line) for line in SAMPLES.read_text(encoding="utf-8").splitlines())
    return tuple((name, *pair) for row in rows for name, pairs in row["pairs"].items() for pair in pairs)


def judge_pairs(rows: Sequence[tuple[str, str, str]]) -> pl.LazyFrame:
    """Judge the texts of rows of FIELDS as if a model had just written them."""
    frame = pl.DataFrame(rows, schema=dict.fromkeys(FIELDS, pl.String), orient="row").lazy()
    null = pl.lit(None, pl.String)
    return judge(
        frame.with_columns(
            task=pl.lit("match things"), text=pl.lit("{}"), finish_reason=pl.lit("stop"), error=null, problem=null
        )
    )


def rejected_share(rows: Sequence[tuple[str, str, str]]) -> float:
    """Return the share of rows that are rejected for their language."""
    rejected = judge_pairs(rows).select(pl.col("reasons").list.contains("wrong_language").mean())
    return float(rejected.collect().item())


def wrong_rows(*, whole: bool) -> list[tuple[str, str, str]]:
    """Return pairs in one language under another that is not near it.

    whole: both texts are wrong; otherwise the positive document only.
    """
    rows = []
    for name, language in LANGUAGES.items():
        right = [row for row in labelled() if row[0] == name]
        others = [row for row in labelled() if LANGUAGES[row[0]].base not in language.near]
        if language.romanised or not right:
            continue
        for place, (other, one, positive) in enumerate(others):
            if not LANGUAGES[other].romanised:
                rows.append((name, one if whole else right[place % len(right)][1], positive))
    return rows


def test_the_labelled_set_is_broad() -> None:
    assert len({name for name, _, _ in labelled()}) >= 80
    assert {name for name, _, _ in labelled()} <= set(LANGUAGES)


def test_at_most_1_percent_of_right_pairs_are_rejected() -> None:
    assert rejected_share([*labelled(), *samples()]) <= 0.01


@pytest.mark.parametrize(("whole", "caught"), [(True, 0.99), (False, 0.9)])
def test_wrong_pairs_are_caught(whole: bool, caught: float) -> None:
    rows = wrong_rows(whole=whole)
    assert len(rows) > 5_000
    assert rejected_share(rows) >= caught


def test_wrong_pairs_in_the_same_script_are_caught() -> None:
    rows = [row for row in wrong_rows(whole=False) if _script_of(row[2]) == LANGUAGES[row[0]].script]
    assert len(rows) > 3_000
    assert rejected_share(rows) >= 0.85


def _script_of(positive: str) -> str:
    return next(LANGUAGES[name].script for name, _, other in labelled() if other == positive)


def test_every_english_pair_under_another_language_is_caught() -> None:
    english = [row for row in [*labelled(), *samples()] if row[0] == "English"]
    assert len(english) > 200
    assert rejected_share([(name, *row[1:]) for name in LANGUAGES if name != "English" for row in english]) == 1


@pytest.mark.parametrize("text", ["Anna Karenina", "São Paulo", "IKEA Billy", ""])
def test_names_and_fragments_are_not_judged(text: str) -> None:
    assert not detect_pair("German", text, text).sure


def test_control_characters_do_not_stop_the_detector() -> None:
    assert detect_pair("German", "who repairs old\x07 accordions in this\x00 county", "x").sure


@pytest.mark.parametrize("name", ["Serbian", "Uzbek"])
def test_a_second_script_of_a_language_is_right(name: str) -> None:
    texts = {
        "Serbian": ("gde mogu da popravim stari bicikl", "radionica pored stanice radi i subotom"),
        "Uzbek": ("болам кечаси яхши ухламайди", "ухлашдан олдин илиқ сут ва эртак ёрдам беради"),
    }
    assert rejected_share([(name, *texts[name])]) == 0


def test_nearness_is_mutual() -> None:
    by_base = {language.base: language for language in LANGUAGES.values()}
    for language in by_base.values():
        assert language.base in language.near
        assert all(language.base in by_base[code].near for code in language.near if code in by_base)


def test_clear_english_is_english() -> None:
    """No detector reads what is clear, so nothing of another language may be."""
    texts = [(name, text) for name, *pair in (*labelled(), *samples()) for text in pair]
    rows = pl.DataFrame(texts, schema=["language", "text"], orient="row").with_columns(folded=fold(pl.col("text")))
    clear = rows.filter(clearly_english(pl.col("folded"), split_words(pl.col("folded"))))
    assert set(clear["language"]) == {"English"}
    assert clear.height > 0.5 * rows.filter(language="English").height


@pytest.mark.parametrize(
    "text",
    [
        *("Find en god restaurant i centrum", "Vi skal have mad over hele ugen", "mat under hundre kroner i sentrum"),
        *("we hebben over een week water", "Wir suchen im Home Office Team Work Life Balance"),
        *("no time to die recensione", "first class a Dubai"),
    ],
)
def test_a_text_of_another_language_with_words_of_english_is_not_clear(text: str) -> None:
    rows = pl.DataFrame({"text": [text]}).with_columns(folded=fold(pl.col("text")))
    assert not rows.select(clearly_english(pl.col("folded"), split_words(pl.col("folded")))).item()
