"""Every reason for which a row is rejected, as one table of polars expressions.

Thresholds: measured on 5 to 12 word texts in 40 languages. Regexes name ASCII
classes where they can; Unicode ones are 10 to 30 times slower in polars.
"""

import hashlib
from collections.abc import Iterable

import polars as pl

from tasks.core.columns import TEXTS
from tasks.core.languages import LANGUAGES

# What the client could not obtain; `call_failed` alone may be asked for again.
CALL_FAILED = "call_failed"
REFUSED_CALLS = ("context_window", "content_policy", "bad_request", "no_choices", CALL_FAILED)

DUPLICATE = "duplicate"

_UNSPACED = [language.name for language in LANGUAGES.values() if not language.spaced]
_REFUSAL = (
    r"(?i)^\W{0,3}(i['’]?m sorry|i am sorry|sorry,? (but )?i|i apologi[sz]e|i can['’]?t |i cannot |i can not "
    r"|i['’]?m (not able|unable)|i am (not able|unable)|as an ai|i won['’]?t |unfortunately,? i)"
)
_REFUSAL_IN_TEXT = (
    r"(?i)^\W{0,3}((i['’]?m |i am )?sorry,? but i (can['’]?t|cannot|am unable|won['’]?t)"
    r"|i (can['’]?t|cannot) (help|assist|provide|fulfil|comply|create|generate)|as an ai (language )?model)"
)
_PLACEHOLDER = (
    r"(?i)lorem ipsum|\[(insert|your|add|placeholder)|<(insert|your|input|text|positive)"
    r"|(your|sample|example|some) (text|input|document|query|sentence) (goes )?here|\bplaceholder\b"
    r"|^\W*(string|text|input|query|positive[_ ]document|document|example|sample|todo|tbd|n/a|none|null)\W*$"
    r"|^(example|sample) (input|document|query|text|sentence)\W*\d*$|^\W*(\.\.\.|…)\W*$|x{4,}"
)
_MARKUP = (
    r"```|\{\s*[\"']|[\"']\s*:\s*[\"'\[{]|</?(a|b|i|p|u|br|div|em|h[1-6]|li|ol|script|span|strong|table|td|tr|ul)"
    r"(\s[^>]*)?/?>|\*\*[^*]+\*\*|^#{1,6} |\]\(https?:|&(amp|lt|gt|quot|nbsp|#[0-9]+);"
)
# Format characters that reorder or hide text, beside Unicode's control characters.
_CONTROL = r"[\p{Cc}\u{202A}-\u{202E}\u{2066}-\u{2069}\u{FEFF}\u{FFFE}\u{FFFF}]"
# UTF-8 read as Latin-1 or Windows-1252, and the replacement character.
_MOJIBAKE = r"[ÃÂ][\u{80}-\u{BF}]|â€|â\u{80}|ï¿½|ðŸ|\u{FFFD}|[ÐÑ][\u{80}-\u{BF}][ÐÑ]"


def match_key(text: pl.Expr) -> pl.Expr:
    """Return `text` folded to what two readers would call the same words.

    NFKD without U+0300 to U+036F (other marks are letters in Thai, Tamil,
    Hindi), lower case, final sigma and sharp s folded, punctuation to space.
    """
    return (
        text.str.normalize("NFKD")
        .str.replace_all("[\u0300-\u036f]", "")
        .str.to_lowercase()
        .str.replace_all("ς", "σ", literal=True)
        .str.replace_all("ß", "ss", literal=True)
        .str.replace_all(r"[\p{P}\p{S}\s]+", " ")
        .str.strip_chars()
    )


# Columns that several rules read, made once: key_* match keys, words_* distinct words.
PREPARED: tuple[dict[str, pl.Expr], ...] = (
    {f"key_{name}": match_key(pl.col(name)) for name in (*TEXTS, "task")}
    | {f"chars_{name}": pl.col(name).str.len_chars() for name in TEXTS}
    | {"spaced": ~pl.col("language").is_in(_UNSPACED)},
    {f"words_{name}": pl.col(f"key_{name}").str.split(" ").list.unique() for name in TEXTS}
    | {f"count_{name}": pl.col(f"key_{name}").str.count_matches(" ", literal=True) + 1 for name in TEXTS},
    {"shared": pl.col("words_input").list.set_intersection("words_positive_document").list.len()},
)


def _either(rule: str) -> pl.Expr:
    return pl.any_horizontal(pl.col(name).str.contains(rule) for name in TEXTS)


def _blank(name: str) -> pl.Expr:
    return pl.col(name).str.strip_chars() == ""


def _too_short(name: str) -> pl.Expr:
    spaced = (pl.col(f"chars_{name}") < 8) | (pl.col(f"count_{name}") < 2)
    return ~_blank(name) & pl.when("spaced").then(spaced).otherwise(pl.col(f"chars_{name}") < 4)


def _too_long(name: str) -> pl.Expr:
    spaced = (pl.col(f"chars_{name}") > 400) | (pl.col(f"count_{name}") > 50)
    return pl.when("spaced").then(spaced).otherwise(pl.col(f"chars_{name}") > 150)


def _echoes(name: str) -> pl.Expr:
    """The text is the task description, or holds all of one of four words or more."""
    task, key = pl.col("key_task"), pl.col(f"key_{name}")
    long_task = task.str.count_matches(" ", literal=True) >= 3
    return (key == task) & (key != "") | long_task & key.str.contains(task, literal=True)


def _too_similar() -> pl.Expr:
    first, second = (pl.col(f"words_{name}").list.len() for name in TEXTS)
    jaccard = pl.col("shared") / (first + second - pl.col("shared"))
    containment = pl.col("shared") / pl.min_horizontal(first, second)
    enough = pl.min_horizontal(first, second) >= 3
    return pl.col("spaced") & enough & ((jaccard > 0.6) | (containment > 0.8))


_SENT = pl.col("error").is_null()
_CUT_OFF = pl.col("finish_reason").eq_missing("length")

RULES: dict[str, pl.Expr] = {
    **{reason: pl.col("error").eq_missing(reason) for reason in REFUSED_CALLS},
    "truncated": _CUT_OFF,
    "refused": pl.col("finish_reason").eq_missing("content_filter")
    | _SENT & pl.col("text").is_null()
    | (pl.col("problem").is_not_null() & pl.col("text").str.contains(_REFUSAL))
    | _either(_REFUSAL_IN_TEXT),
    "unparsable": pl.col("problem") == "unparsable",
    "wrong_shape": pl.col("problem") == "wrong_shape",
    "empty": pl.any_horizontal(_blank(name) for name in TEXTS),
    "too_short": pl.any_horizontal(_too_short(name) for name in TEXTS),
    "too_long": pl.any_horizontal(_too_long(name) for name in TEXTS),
    "identical": (pl.col("key_input") == pl.col("key_positive_document")) & (pl.col("key_input") != ""),
    "too_similar": _too_similar(),
    "echoes_task": pl.any_horizontal(_echoes(name) for name in TEXTS),
    "placeholder": _either(_PLACEHOLDER),
    "markup": _either(_MARKUP),
    "control_characters": _either(_CONTROL),
    "mojibake": _either(_MOJIBAKE),
}

# Every reason that a row can carry: the rules, and what only the whole partition shows.
REASONS: tuple[str, ...] = (*RULES, DUPLICATE)


def judge(pairs: pl.LazyFrame) -> pl.LazyFrame:
    """Return the rows of `pairs` in their order, with `reasons` and both match keys.

    Reads task, language, input, positive_document, text, finish_reason, error and
    problem (see parsing). `reasons` lists every rule of RULES that holds, in its
    order, and is empty for an accepted row. Adds key_input and key_positive_document.
    """
    prepared = pairs
    for columns in PREPARED:
        prepared = prepared.with_columns(**columns)
    reasons = [pl.when(holds.fill_null(value=False)).then(pl.lit(reason)) for reason, holds in RULES.items()]
    judged = prepared.with_columns(reasons=pl.concat_list(reasons).list.drop_nulls())
    kept = ("key_input", "key_positive_document")
    return judged.drop(name for columns in PREPARED for name in columns if name not in kept)


def pair_keys(languages: Iterable[str], inputs: Iterable[str], positives: Iterable[str]) -> list[int]:
    """Return a signed 64-bit key of each pair of match keys: equal pairs have equal keys."""
    return [
        int.from_bytes(
            hashlib.blake2b(f"{language}\0{one}\0{other}".encode(), digest_size=8).digest(), "big", signed=True
        )
        for language, one, other in zip(languages, inputs, positives, strict=True)
    ]
