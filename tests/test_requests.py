import dataclasses
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.brainstorming import BrainstormRecipe
from tasks.core.prompts import PROMPT_HASH, build_prompt
from tasks.core.requests import (
    Recipe,
    hash_descriptions,
    lists_descriptions,
    normalise_description,
    possible_keys,
    request_keys,
)

RECIPE = Recipe(model_name="openai/x")


def key(recipe: Recipe = RECIPE, prompt: str = "p", sample_index: int = 0) -> str:
    return request_keys(recipe, [prompt], [sample_index])[0]


def test_keys_do_not_change_unnoticed() -> None:
    """Other values here mean that every user pays for everything again: say so in the changelog."""
    assert PROMPT_HASH == "2e54e80a3b4762d7"
    assert RECIPE.recipe_id == "cd347730a886ef71"
    assert key(prompt=build_prompt("match a job with its skills", "English"), sample_index=1) == (
        "5ee9e70f5678f0812ab6af31e83954ce"
    )
    assert hash_descriptions(["match a job with its skills"]) == ["766666ecaa8eec09234fe1898c1881f9"]


CHANGES: dict[str, Any] = {
    "model_name": "openai/y",
    "model_revision": "2",
    "temperature": 0.9,
    "top_p": 0.9,
    "max_tokens": 100,
    "structured_output": False,
    "seed": 43,
}


def test_every_field_of_a_recipe_has_a_case() -> None:
    assert set(CHANGES) == {field.name for field in dataclasses.fields(Recipe)}


@pytest.mark.parametrize("name", list(CHANGES))
def test_another_recipe_is_another_request_under_another_prefix(name: str) -> None:
    other = dataclasses.replace(RECIPE, **{name: CHANGES[name]})
    assert key(other) != key()
    assert other.recipe_id != RECIPE.recipe_id


def test_another_prompt_or_sample_is_another_request() -> None:
    assert len({key(), key(prompt="q"), key(sample_index=1), key(prompt="1\0p"), key(sample_index=10)}) == 5


@given(st.lists(st.tuples(st.text(st.characters(codec="utf-8")), st.integers(0, 99)), unique=True))
def test_different_requests_have_different_keys(requests: list[tuple[str, int]]) -> None:
    prompts, samples = [prompt for prompt, _ in requests], [sample for _, sample in requests]
    keys = request_keys(RECIPE, prompts, samples)
    assert len(set(keys)) == len(requests)
    assert all(len(one) == 32 for one in keys)


@given(st.text())
def test_a_description_is_the_same_in_every_unicode_form_and_between_spaces(text: str) -> None:
    normalised = normalise_description(text)
    assert normalise_description(normalised) == normalised
    assert normalise_description(f" \t{unicodedata.normalize('NFD', text)}\n") == normalised


def test_what_must_be_forgotten_is_found_under_a_recipe_of_either_kind() -> None:
    asked = [("German", 0), ("Thai", 1), ("English", 1999)]
    prompts = [build_prompt("match a job", language, sample) for language, sample in asked]
    keys = request_keys(RECIPE, prompts, [sample for _, sample in asked])
    assert set(keys) <= set(possible_keys(RECIPE.canonical, "match a job"))
    assert not lists_descriptions(RECIPE.canonical)
    assert lists_descriptions(BrainstormRecipe(model_name="openai/x").canonical), "there it is looked for in the text"
