"""Texts in another language than was asked for, by two detectors that must agree.

pycld2 is fast and says when it cannot tell; py3langid is asked only where pycld2
names another language, and neither where the words of a text say enough (see
english). tests/test_detection.py holds what the two reject of right texts and
catch of wrong ones.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import polars as pl
import pycld2

from tasks.core.columns import TEXTS
from tasks.core.languages import LANGUAGES

# Fewer words are names and fragments, on which detectors guess.
ENOUGH_WORDS = 4
# What py3langid must be sure of, 0 to 1: alone, and where both name the same language.
SURE, SURE_TOGETHER = 0.7, 0.5
# Every other script is of one language of ours, or of near ones only.
_SCRIPTS = frozenset({"Latin", "Cyrillic"})
_DETECTABLE = [language.name for language in LANGUAGES.values() if language.script in _SCRIPTS]
_ROMANISED = [language.name for language in LANGUAGES.values() if language.romanised]
_CODES = {"iw": "he", "jw": "jv", "zh-Hant": "zh"}
_UNKNOWN = "un"

DETECTED = pl.Struct({"seen": pl.String, "sure": pl.Boolean})


class Detected(NamedTuple):
    """The other language that was seen (None: none), and whether both detectors are sure of it."""

    seen: str | None = None
    sure: bool = False


NOTHING = Detected()


def detect_other_language() -> pl.Expr:
    """Return a column of DETECTED, null where nothing was asked.

    Reads language, both texts, and whether each is clear: in the language beyond doubt.
    """
    columns = pl.struct("language", *TEXTS, *(f"clear_{name}" for name in TEXTS))
    return columns.map_batches(_detect_rows, return_dtype=DETECTED, is_elementwise=True)


def _detect_rows(rows: pl.Series) -> pl.Series:
    """Ask the detectors, which are slow and hold the interpreter, only where something is open."""
    frame = rows.struct.unnest().with_row_index("row")
    asked = frame.drop_nulls(TEXTS).filter(pl.col("language").is_in(_DETECTABLE))
    apart = ~pl.col("language").is_in(_ROMANISED)
    long = {name: pl.col(name).str.count_matches(" ", literal=True) + 1 >= ENOUGH_WORDS for name in TEXTS}
    doubted = asked.filter(~apart | ~pl.all_horizontal(long.values()))["row"].to_list()
    for name in TEXTS:
        texts = asked.filter(apart & long[name] & ~pl.col(f"clear_{name}")).select("row", "language", name)
        doubted += [row for row, language, text in texts.iter_rows() if _fast(text) not in _passing(language)]
    pairs = asked.filter(pl.col("row").is_in(doubted)).select("row", "language", *TEXTS)
    found = pl.DataFrame(
        [detect_pair(*pair) for _, *pair in pairs.iter_rows()], schema=DETECTED.to_schema(), orient="row"
    )
    all_rows = frame.select("row").join(found.with_columns(pairs["row"]), on="row", how="left", maintain_order="left")
    return all_rows.drop("row").to_struct(rows.name)


def detect_pair(language: str, input_text: str, positive_document: str) -> Detected:
    """Say whether a text of the pair is in another language than `language` and those near it.

    A text of fewer than ENOUGH_WORDS is read together with the other one, and so
    is a pair of which a text is doubted. Detectors do not know romanised languages:
    under one, only English is seen, and both texts are read together.
    """
    near, romanised = _passing(language), LANGUAGES[language].romanised
    texts = [] if romanised else [text for text in (input_text, positive_document) if _enough(text)]
    doubted = {text: code for text in texts if (code := _fast(text)) not in near}
    if doubted or len(texts) < 2:
        both = f"{input_text}. {positive_document}"
        if _enough(both) and (code := _fast(both)) not in near:
            doubted[both] = code
    if not doubted or (romanised and "en" not in doubted.values()):
        return NOTHING
    for text, code in doubted.items():
        slow, share = _identifier().classify(text)
        agree = slow == code
        if (agree or not romanised) and slow not in near and share >= (SURE_TOGETHER if agree else SURE):
            return Detected(slow, sure=True)
    return Detected(next(iter(doubted.values())))


def _enough(text: str) -> bool:
    return text.count(" ") + 1 >= ENOUGH_WORDS


@lru_cache
def _passing(language: str) -> frozenset[str]:
    """Return the codes that pass under a language."""
    return LANGUAGES[language].near | {_UNKNOWN}


def _fast(text: str) -> str:
    try:
        code: str = pycld2.detect(text, isPlainText=True)[2][0][1]
    except pycld2.error:  # control characters; another rule names them
        code = pycld2.detect("".join(c if c.isprintable() else " " for c in text), isPlainText=True)[2][0][1]
    return _CODES.get(code, code)


@lru_cache(maxsize=1)
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # noqa: PLC0415  (reads its model: 0.3 s)

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
