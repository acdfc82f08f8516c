"""Texts in another language than was asked for, by two detectors that must agree.

pycld2 is fast and says when it cannot tell; py3langid is asked only where pycld2
names another language. tests/test_detection.py holds what the two reject of right
texts and catch of wrong ones.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import polars as pl
import pycld2

from tasks.core.languages import LANGUAGES, Language

# Fewer words are names and fragments, on which detectors guess.
ENOUGH_WORDS = 4
# What py3langid must be sure of, 0 to 1: alone, and where both name the same language.
SURE, SURE_TOGETHER = 0.7, 0.5
# Every other script is of one language of ours, or of near ones only.
_SCRIPTS = frozenset({"Latin", "Cyrillic"})
_CODES = {"iw": "he", "jw": "jv", "zh-Hant": "zh"}
_UNKNOWN = "un"

DETECTED = pl.Struct({"seen": pl.String, "sure": pl.Boolean})


class Detected(NamedTuple):
    """The other language that was seen (None: none), and whether both detectors are sure of it."""

    seen: str | None = None
    sure: bool = False


NOTHING = Detected()


def detect_other_language() -> pl.Expr:
    """Return, from language, input and positive_document, a column of DETECTED."""
    return pl.struct("language", "input", "positive_document").map_batches(
        _detect_rows, return_dtype=DETECTED, is_elementwise=True
    )


def _detect_rows(rows: pl.Series) -> pl.Series:
    columns = (rows.struct.field(name).to_list() for name in ("language", "input", "positive_document"))
    found = [
        detect_pair(language, one, other) if one is not None and other is not None else NOTHING
        for language, one, other in zip(*columns, strict=True)
    ]
    return pl.DataFrame(found, schema=DETECTED.to_schema(), orient="row").to_struct(rows.name)


def detect_pair(language: str, input_text: str, positive_document: str) -> Detected:
    """Say whether a text of the pair is in another language than `language` and those near it.

    A text of fewer than ENOUGH_WORDS is read together with the other one, and so
    is a pair of which a text is doubted. Detectors do not know romanised languages:
    under one, only English is seen, and both texts are read together.
    """
    near, detectable, romanised = _reading(language)
    if not detectable:
        return NOTHING
    apart = () if romanised else (input_text, positive_document)
    texts = [text for text in apart if text.count(" ") + 1 >= ENOUGH_WORDS]
    doubted = {text: code for text in texts if (code := _fast(text)) not in near}
    if doubted or len(texts) < 2:
        both = f"{input_text}. {positive_document}"
        if (code := _fast(both)) not in near and both.count(" ") + 1 >= ENOUGH_WORDS:
            doubted[both] = code
    if romanised and "en" not in doubted.values():
        return NOTHING
    for text, code in doubted.items():
        slow, share = _identifier().classify(text)
        agree = slow == code
        if (agree or not romanised) and slow not in near and share >= (SURE_TOGETHER if agree else SURE):
            return Detected(slow, sure=True)
    return Detected(next(iter(doubted.values()))) if doubted else NOTHING


@lru_cache
def _reading(language: str) -> tuple[frozenset[str], bool, bool]:
    """Return the codes that pass, whether detectors can tell the language, and whether it is romanised."""
    one: Language = LANGUAGES[language]
    return one.near | {_UNKNOWN}, one.script in _SCRIPTS, one.romanised


def _fast(text: str) -> str:
    try:
        code: str = pycld2.detect(text)[2][0][1]
    except pycld2.error:  # control characters; another rule names them
        code = pycld2.detect("".join(c if c.isprintable() else " " for c in text))[2][0][1]
    return _CODES.get(code, code)


@lru_cache(maxsize=1)
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # noqa: PLC0415  (reads its model: 0.3 s)

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
