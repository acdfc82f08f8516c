import hashlib
import math

import pytest

from tasks.core.errors import UsageError
from tasks.core.languages import LANGUAGES
from tasks.core.naming import check_language, find_language, mix_shares, resolve_languages


def test_there_are_a_hundred_languages_with_codes_of_their_own() -> None:
    assert len(LANGUAGES) == len({language.code for language in LANGUAGES.values()}) == 100
    assert list(LANGUAGES) == sorted(LANGUAGES)


def test_the_list_does_not_change_unnoticed() -> None:
    """Names are in prompts and so in every key: a new spelling pays for all its completions again."""
    table = "".join(f"{name},{language.code},{language.script}\n" for name, language in LANGUAGES.items())
    assert hashlib.blake2b(table.encode(), digest_size=8).hexdigest() == "93135c4ddf952d54"


KNOWN = {
    "English": ("en", "Latin", True),
    "Chinese (Simplified)": ("zh-Hans", "Han", False),
    "Chinese (Traditional)": ("zh-Hant", "Han", False),
    "Japanese": ("ja", "Japanese", False),
    "Thai": ("th", "Thai", False),
    "Burmese (Zawgyi font)": ("my_zaw", "Myanmar", False),
    "Korean": ("ko", "Hangul", True),
    "Serbian": ("sr", "Cyrillic", True),
    "Yiddish": ("yi", "Hebrew", True),
    "Hindi Romanized": ("hi_rom", "Latin", True),
    "Urdu": ("ur", "Arabic", True),
    "Punjabi": ("pa", "Gurmukhi", True),
}


@pytest.mark.parametrize("name", list(KNOWN))
def test_a_language_has_its_code_script_and_spaces(name: str) -> None:
    language = LANGUAGES[name]
    assert (language.code, language.script, language.spaced) == KNOWN[name]


def test_the_prompt_says_how_a_romanised_language_is_written() -> None:
    assert LANGUAGES["Tamil Romanized"].prompt_name == "Tamil written in Latin letters"
    assert LANGUAGES["Tamil"].prompt_name == "Tamil"


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("Germn", "German"),
        ("german", "German"),
        ("de", "German"),
        ("Chinese", "Chinese (Simplified)"),
        ("zh", "Chinese"),
        ("Norwegan", "Norwegian"),
        ("Qqqqqq", "tasks/core/languages.py"),
        ("", "tasks/core/languages.py"),
    ],
)
def test_an_unknown_language_is_refused_with_the_nearest_names(given: str, nearest: str) -> None:
    with pytest.raises(UsageError, match="Unknown language") as caught:
        check_language(given)
    assert nearest in str(caught.value)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["English"], ["English"]),
        (["German", "English", "German"], ["German", "English"]),
        (["English", "all"], list(LANGUAGES)),
    ],
)
def test_languages_are_meant_once_and_in_order(given: list[str], meant: list[str]) -> None:
    assert resolve_languages(given) == meant


def test_no_language_at_all_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one"):
        resolve_languages([])


@pytest.mark.parametrize(
    ("said", "name"),
    [
        *(("German", "German"), (" german ", "German"), ("DE", "German"), ("de-AT", "German"), ("de_CH", "German")),
        *(("zh", "Chinese (Simplified)"), ("zh-Hant", "Chinese (Traditional)"), ("zh_TW", "Chinese (Traditional)")),
        *(("zh-Hant-TW", "Chinese (Traditional)"), ("zh_MO", "Chinese (Traditional)"), ("sr-Latn-RS", "Serbian")),
        *(("hi-Latn", "Hindi Romanized"), ("Chinese-Traditional", None), ("Kurdish_Sorani", None)),
        *(("hi_rom", "Hindi Romanized"), ("nb", "Norwegian"), ("Germn", None), ("", None), ("xx", None)),
    ],
)
def test_a_source_may_write_names_or_codes(said: str, name: str | None) -> None:
    assert find_language(said) == name


def test_every_language_is_found_by_its_own_name_and_code() -> None:
    assert [find_language(one.name) for one in LANGUAGES.values()] == list(LANGUAGES)
    assert [find_language(one.code) for one in LANGUAGES.values()] == list(LANGUAGES)


def test_the_published_mix_has_its_shares() -> None:
    shares = mix_shares()
    assert list(shares) == list(LANGUAGES)
    assert math.isclose(sum(shares.values()), 1)
    assert (shares["English"], shares["Persian"]) == (0.431, 0.029)
    assert shares["Thai"] == shares["Swahili"] == pytest.approx(0.192 / 86)
