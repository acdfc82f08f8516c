"""Which language a parameter or a source means, and how often each is drawn in the published mix."""

import difflib
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

from tasks.core.errors import UsageError
from tasks.core.languages import LANGUAGES

ALL = "all"


def check_language(name: str) -> str:
    """Return `name`, one of LANGUAGES or `all`.

    Raises:
        UsageError: Another name, with the nearest ones.
    """
    if name == ALL or name in LANGUAGES:
        return name
    known = {language.name.casefold(): language.name for language in LANGUAGES.values()}
    known |= {language.code.casefold(): language.name for language in LANGUAGES.values()}
    folded = name.casefold()
    near = [key for key in known if folded and key.startswith(folded)]
    near += difflib.get_close_matches(folded, known, n=3, cutoff=0.5)
    names = list(dict.fromkeys(known[key] for key in near))[:3]
    raise UsageError(
        f"Unknown language {name!r}; {len(LANGUAGES)} are known, by their English names. "
        + ("Separate several by spaces. " if "," in name else "")
        + (f"Nearest: {', '.join(names)}." if names else "All are listed in tasks/core/languages.py.")
    )


# What people write beside our names and codes; a code falls back to what stands before its last part.
_ALIASES = {
    "chinese": "Chinese (Simplified)",
    "zh": "Chinese (Simplified)",
    "zh-cn": "Chinese (Simplified)",
    "zh-sg": "Chinese (Simplified)",
    "zh-tw": "Chinese (Traditional)",
    "zh-hk": "Chinese (Traditional)",
    "zh-mo": "Chinese (Traditional)",
    "fil": "Filipino",
    "iw": "Hebrew",
    "jw": "Javanese",
    "in": "Indonesian",
    "nb": "Norwegian",
    "nn": "Norwegian",
    "kurdish": "Kurdish (Kurmanji)",
}
_SPELLINGS = {
    **_ALIASES,
    **{f"{language.base}-latn": language.name for language in LANGUAGES.values() if language.romanised},
    **{language.code.casefold().replace("_", "-"): language.name for language in LANGUAGES.values()},
    **{language.name.casefold(): language.name for language in LANGUAGES.values()},
}
# Letters of a language's code; what has more before a hyphen is a name.
_LONGEST_CODE = 3


def find_language(text: str) -> str | None:
    """Return the language that a source means by a name or a code in any case, None for an unknown one."""
    folded = text.strip().casefold().replace("_", "-")
    if (found := _SPELLINGS.get(folded)) or len(folded.partition("-")[0]) > _LONGEST_CODE:
        return found
    return find_language(folded.rpartition("-")[0]) if "-" in folded else None


# Of 1,000 descriptions this many are in each of these languages; the others share the rest equally.
# Source: arXiv:2401.00368, the mix of languages.
_PAPER_SHARES = {
    "English": 431,
    **dict.fromkeys(
        (
            *("Arabic", "Chinese (Simplified)", "Dutch", "French", "German", "Indonesian", "Italian", "Japanese"),
            *("Persian", "Polish", "Portuguese", "Russian", "Spanish"),
        ),
        29,
    ),
}


def mix_shares() -> dict[str, float]:
    """Return the share of every language in the published mix; together they are 1."""
    rest = (1000 - sum(_PAPER_SHARES.values())) / (len(LANGUAGES) - len(_PAPER_SHARES))
    return {name: _PAPER_SHARES.get(name, rest) / 1000 for name in LANGUAGES}


# Prefect's form makes a dropdown of the enum.
LanguageName = Annotated[
    str, AfterValidator(check_language), WithJsonSchema({"type": "string", "enum": [ALL, *LANGUAGES]})
]


def resolve_languages(names: list[str]) -> list[str]:
    """Return the languages meant by `names`, each once, in the order given.

    `all` stands for every language of the list, in its order.

    Raises:
        UsageError: A name that is not in the list, with the nearest names, or none at all.
    """
    if ALL in names:
        return list(LANGUAGES)
    if not names:
        raise UsageError("--languages is empty. Name at least one, for example English, or all.")
    return list(dict.fromkeys(check_language(name) for name in names))
