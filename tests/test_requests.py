import dataclasses
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.prompts import PROMPT_HASH, build_prompt
from tasks.core.requests import Recipe, hash_descriptions, normalise_description, request_keys

RECIPE = Recipe(model_name="openai/x")


def key(recipe: Recipe = RECIPE, prompt: str = "p", sample_index: int = 0) -> str:
    return request_keys(recipe, [prompt], [sample_index])[0]


def test_keys_do_not_change_unnoticed() -> None:
    """Other values here mean that every user pays for everything again: say so in the changelog."""
    assert PROMPT_HASH == "f17c961cb764e759"
    assert RECIPE.recipe_id == "5331a3d99193974c"
    assert key(prompt=build_prompt("match a job with its skills", "English"), sample_index=1) == (
        "ceb9c3ac4063e373256126db42e4f33a"
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
