import json

import pytest

from tasks.core.languages import LANGUAGES
from tasks.core.prompts import RESPONSE_SCHEMA, build_prompt
from tasks.core.variations import AXES, draw_variation, name_variation

DESCRIPTION = "Match a {title} with its 100% odd %s \\ skills."


@pytest.mark.parametrize("language", list(LANGUAGES))
def test_a_prompt_holds_the_description_and_the_language_as_they_are(language: str) -> None:
    prompt = build_prompt(DESCRIPTION, language)
    assert DESCRIPTION in prompt
    assert f": {LANGUAGES[language].prompt_name}." in prompt


def test_the_first_sample_is_asked_for_plainly_and_each_later_one_in_its_own_way() -> None:
    plain, *varied = (build_prompt("Match a dish with a wine.", "German", sample) for sample in range(8))
    assert plain == build_prompt("Match a dish with a wine.", "German")
    assert len(set(varied)) == 7
    assert all(prompt.startswith(plain) for prompt in varied)
    assert len(plain) < min(map(len, varied))


def test_a_variation_is_drawn_from_every_value_and_named_in_the_row() -> None:
    drawn = [draw_variation(f"task {row}", "English", 1 + row % 5) for row in range(600)]
    assert {axis: {one[axis] for one in drawn} for axis in AXES} == {axis: set(values) for axis, values in AXES.items()}
    assert drawn[7] == draw_variation("task 7", "English", 3)
    assert name_variation("x", "English", 0) is None
    named = name_variation("task 7", "English", 3)
    assert named == "; ".join(f"{axis}: {value}" for axis, value in drawn[7].items())
    assert not any(mark in value for values in AXES.values() for value in values for mark in (":", ";"))


def test_equal_requests_have_equal_prompts_and_others_do_not() -> None:
    prompts = {build_prompt(text, name) for text in ("a", "b") for name in LANGUAGES} | {build_prompt("a", "English")}
    assert len(prompts) == 2 * len(LANGUAGES)


@pytest.mark.parametrize(
    "said", ['"input"', '"positive_document"', "one JSON object", "very short", "different words", "variety", "strings"]
)
def test_the_prompt_asks_for_what_a_good_pair_is(said: str) -> None:
    assert said in build_prompt("x", "English")


def test_the_schema_allows_two_strings_and_nothing_else() -> None:
    schema = json.loads(json.dumps(RESPONSE_SCHEMA))["json_schema"]["schema"]
    assert schema["properties"] == {"input": {"type": "string"}, "positive_document": {"type": "string"}}
    assert (sorted(schema["required"]), schema["additionalProperties"]) == (["input", "positive_document"], False)
