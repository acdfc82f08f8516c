"""Columns that several rules read, made once for each row; all are dropped again."""

import polars as pl

from tasks.core.columns import TEXTS
from tasks.core.detection import detect_other_language
from tasks.core.english import clearly_english
from tasks.core.keys import fold, hash_each, split_words
from tasks.core.languages import LANGUAGES

_UNSPACED = [language.name for language in LANGUAGES.values() if not language.spaced]
_LETTERS = {language.name: language.letters for language in LANGUAGES.values()}
_LEAST = {language.name: 8 if language.spaced and not language.syllabic else 4 for language in LANGUAGES.values()}
_LATIN = LANGUAGES["English"].letters


def _clear(name: str) -> pl.Expr:
    """The text is in the wanted language beyond doubt."""
    return (pl.col("language") == "English") & clearly_english(pl.col(f"folded_{name}"), pl.col(f"split_{name}"))


def _open(name: str) -> pl.Expr:
    """The folded text where its letters are to be counted: all of ASCII is Latin; what is null costs nothing."""
    ascii_only = pl.all_horizontal(
        pl.col(f"folded_{name}").str.len_bytes() == pl.col(f"folded_{name}").str.len_chars() for name in TEXTS
    )
    return pl.when((pl.col("letters") != _LATIN) | ~ascii_only).then(pl.col(f"folded_{name}"))


def _letters(folded: pl.Expr) -> pl.Expr:
    """How many letters and marks there are; the few others are what is counted."""
    return folded.str.len_chars() - folded.str.count_matches("[ 0-9]")


def _character_pairs(name: str) -> pl.Expr:
    """The hashes of a text's pairs of characters where words are not spaced, else null."""
    run = pl.when(~pl.col("spaced")).then(pl.col(f"folded_{name}")).str.replace_all(" ", "", literal=True)
    return hash_each(run.str.extract_all("(?s)..").list.concat(run.str.slice(1).str.extract_all("(?s)..")))


def _distinct(name: str) -> pl.Expr:
    """How many different words there are, or pairs of characters."""
    return pl.coalesce(pl.col(f"pairs_{name}").list.n_unique(), pl.col(f"words_{name}").list.n_unique())


def _shared() -> pl.Expr:
    """How many of them both texts have."""
    shared = (pl.col(f"{kind}_input").list.set_intersection(f"{kind}_positive_document") for kind in ("pairs", "words"))
    return pl.coalesce(common.list.len() for common in shared)


# One group after the other, since they build on each other; `words` and `pairs` are hashes.
PREPARED: tuple[dict[str, pl.Expr], ...] = (
    {f"folded_{name}": fold(pl.col(name)) for name in (*TEXTS, "task")}
    | {f"chars_{name}": pl.col(name).str.len_chars() for name in TEXTS}
    | {
        "spaced": ~pl.col("language").is_in(_UNSPACED),
        "letters": pl.col("language").replace_strict(_LETTERS, return_dtype=pl.String),
        "least": pl.col("language").replace_strict(_LEAST, return_dtype=pl.UInt32),
    },
    {f"split_{name}": split_words(pl.col(f"folded_{name}")) for name in TEXTS}
    | {f"open_{name}": _open(name) for name in TEXTS}
    | {f"pairs_{name}": _character_pairs(name) for name in TEXTS},
    {f"words_{name}": hash_each(pl.col(f"split_{name}")) for name in TEXTS}
    | {f"clear_{name}": _clear(name) for name in TEXTS},
    {f"count_{name}": pl.col(f"words_{name}").list.len() for name in TEXTS}
    | {f"letters_{name}": _letters(pl.col(f"open_{name}")) for name in TEXTS}
    | {f"own_{name}": pl.col(f"open_{name}").str.count_matches(pl.col("letters")) for name in TEXTS}
    | {f"distinct_{name}": _distinct(name) for name in TEXTS}
    | {"shared": _shared(), "detected": detect_other_language()},
)
