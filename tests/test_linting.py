import itertools
import tracemalloc
from typing import Any

import pytest

from flows.stand_in import load_samples
from tasks.core.linting import Linter

FAULTS: dict[str, tuple[Any, list[str]]] = {
    "good": ("Given a recipe title, find the ingredient that it needs most.", []),
    "numbered": ("12) Given a recipe title, find the ingredient that it needs most.", []),
    "a title is short": ("Given a book title, find its author.", []),
    "so is a headline of an article": ("Match the headline of an article with a second one.", []),
    "a language is no name": ("Match a word with its French translation.", []),
    "nor is one of two scripts": ("Match an old Chinese proverb with its meaning.", []),
    "a number": (7, ["not_text"]),
    "a list": (["x"], ["not_text"]),
    "nothing": ("  ", ["empty"]),
    "numbered nothing": ("3. ", ["too_short"]),
    "three words": ("Match two things.", ["too_short"]),
    "31 words": ("Match " + "word " * 30, ["too_long"]),
    "a document": ("Match a news article with its author's next thought.", ["long_texts"]),
    "a summary": ("Given a long text, retrieve its best summary.", ["long_texts"]),
    "two things": ("Find a word and then list all its meanings.", ["several_things"]),
    "two sentences": ("Match a dish with a wine. The wine is dry.", ["several_things"]),
    "an example": ("Given a dish (e.g. a soup), find a fitting wine.", []),
    "a year": ("Match a song of 1987 with its singer.", ["over_specific"]),
    "a name": ("Given a question about Napoleon, find the answer.", ["over_specific"]),
    "half a surrogate pair": ("Match a \ud83d tea with the biscuit that it suits.", ["mojibake"]),
    "a command to the terminal": ("Match a tea \x1b[2J with the biscuit that it suits.", ["control_characters"]),
    "a nought byte": ("Match a \0 tea with the biscuit that it suits.", ["control_characters"]),
    "an order of letters": ("Match a tea with the \u202ebiscuit that it suits.", ["control_characters"]),
    "half a pair in an object": ({"a": "\ud800"}, ["not_text"]),
    "a quotation": ("Find who would say “never again” in a dispute.", ["over_specific"]),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_wrong_with_a_description_has_a_reason(name: str) -> None:
    item, reasons = FAULTS[name]
    [(text, found)] = Linter().judge([item])
    assert found == reasons
    assert text.encode() or reasons == ["empty"]


def test_a_number_in_front_is_taken_off() -> None:
    assert next(Linter().judge([FAULTS["numbered"][0]]))[0] == FAULTS["good"][0]


def test_a_description_that_was_seen_is_no_new_one_in_other_words_either() -> None:
    linter = Linter()
    assert linter.remember(["Match a dish with a fitting wine.", "match a DISH with a fitting wine", ""]) == 1
    found = linter.judge(
        [
            *(
                "MATCH a dish with a fitting wine!",
                "Given a dish, find the fitting wines.",
                "Match a cheese with bread.",
            ),
            *("match a cheese with bread", "For a dish find one fitting wine."),
        ]
    )
    assert [reasons for _, reasons in found] == [["repeated"], ["near_duplicate"], [], ["repeated"], ["near_duplicate"]]


def test_a_text_that_is_far_too_long_costs_no_memory_to_turn_down() -> None:
    long = " ".join(map("".join, itertools.islice(itertools.product("bcdfghjklm", repeat=4), 10_000)))
    tracemalloc.start()
    try:
        assert [found for _, found in Linter().judge([long])] == [["too_long"]]
        assert Linter().remember([long]) == 1
        assert tracemalloc.get_traced_memory()[1] < 100 * len(long)
    finally:
        tracemalloc.stop()


def test_nobody_would_turn_down_the_sample_descriptions() -> None:
    assert [text for text, reasons in Linter().judge(list(load_samples())) if reasons] == []
