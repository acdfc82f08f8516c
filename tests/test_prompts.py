import json

import pytest

from tasks.core.languages import LANGUAGES
from tasks.core.prompts import RESPONSE_SCHEMA, build_prompt

DESCRIPTION = "Match a {title} with its 100% odd %s \\ skills."


@pytest.mark.parametrize("language", list(LANGUAGES))
def test_a_prompt_holds_the_description_and_the_language_as_they_are(language: str) -> None:
    prompt = build_prompt(DESCRIPTION, language)
    assert DESCRIPTION in prompt
    assert f": {LANGUAGES[language].prompt_name}." in prompt


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
