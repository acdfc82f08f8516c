"""Every reason for which a row is rejected, and every flag it can carry, as tables of polars expressions.

Thresholds: measured on 5 to 12 word texts in 40 languages. Regexes name ASCII
classes where they can, and read folded texts rather than ignore the case of raw
ones; Unicode classes and (?i) are 10 to 30 times slower in polars.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import polars as pl

from tasks.core.columns import NO_CHOICES, TEXTS
from tasks.core.features import PREPARED
from tasks.core.keys import text_key
from tasks.core.requests import RowFlag

# What the client could not obtain; `call_failed` alone may be asked for again.
CALL_FAILED = "call_failed"
WRONG_LANGUAGE = "wrong_language"
REFUSED_CALLS = ("context_window", "content_policy", "bad_request", NO_CHOICES, CALL_FAILED)
REFUSED = "refused"
# The reasons for which another model may take a request over.
TURNED_DOWN = (*REFUSED_CALLS, REFUSED)

REFUSAL = (
    r"(?i)^\W{0,3}(i['’]?m sorry|i am sorry|sorry,? (but )?i|i apologi[sz]e|i can['’]?t |i cannot |i can not "
    r"|i['’]?m (not able|unable)|i am (not able|unable)|as an ai|i won['’]?t |unfortunately,? i)"
)
# What refuses to write a pair, and no customer or song that cannot do something else.
_REFUSAL_IN_TEXT = (
    r"(?i)^\W{0,3}((i['’]?m |i am )?(very |so )?sorry[,.]? (but )?)?i(['’]?m| am)? ?(can['’]?t|cannot|can not|unable to"
    r"|not able to) ((help|assist)( you)?( with (that|this|your request|the request|such)\b|\W*$)"
    r"|(fulfil+|comply with|carry out) (that|this|your|the|such) request"
    r"|(provide|create|generate|write|produce|engage in|continue with) ((that|this|such|any) )?([a-z]+ ){0,2}"
    r"(content|material)\b( that| which| involving| promoting|\W*$))"
    r"|^\W{0,3}as an ai( language)?( model| assistant)?,? i "
)
# Somewhere in each reply that has this in a text of its pair, where letters and apostrophes may be escaped.
MAYBE_REFUSED = r"(?i-u)i can( no|no|'|’|\\|t )|able to |as an ai|\\(u00|x)[2-7]"
_PLACEHOLDER = (
    r"(?i-u)\[(insert|your|add|placeholder)|\[(name|city|company|country|date|location|product|topic)\]"
    r"|<(insert|your|positive)|^<(input|text)|^(input|positive[ _]document) ?:"
)
_PLACEHOLDER_FOLDED = (
    r"lorem ipsum|(your|sample|example|some) (text|input|document|query|sentence) (goes )?here|xxxx"
    r"|(^| )placeholder( |$)"
    r"|^(string|text|input|query|positive document|document|example|sample|todo|tbd|n a|none|null)?$"
    # What our own prompt says of the two texts.
    r"|^(the )?text (to be matched|that correctly matches it)$|^(input|positive document) text$"
    r"|^(example|sample) (input|document|query|text|sentence)( [0-9]+)?$"
)
_MARKUP = (
    r"```|\{\s*[\"']|[\"']\s*:\s*[\"'\[{]|(^<|</)(a|b|i|p|u|div|em|h[1-6]|li|ol|script|span|strong|table|td|tr|ul)"
    r"(\s[^>]*)?>|<br ?/?>|(^|[^A-Za-z0-9])\*\*[^*]+\*\*|^#{1,6} |\]\(https?:|&(amp|lt|gt|quot|nbsp|#[0-9]+);"
)
# What reorders, ends or hides text, beside Unicode's control characters. The last two carry letters that nobody sees:
# tags, but of a flag, and variation selectors, of which no character has two.
_CONTROL = (
    r"[\p{Cc}\u{2028}-\u{202E}\u{2066}-\u{2069}\u{FEFF}\u{FFF9}-\u{FFFB}\u{FFFE}\u{FFFF}]"
    r"|(^|[^\u{1F3F4}\u{E0020}-\u{E007F}])[\u{E0000}-\u{E007F}]|[\u{FE00}-\u{FE0F}\u{E0100}-\u{E01EF}]{2}"
)
_EMAIL = r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+\.[A-Za-z]{2,}"
_PHONE = (
    r"\+[0-9][0-9 ().-]{6,}[0-9]|\([0-9]{3}\) ?[0-9]{3}[ .-][0-9]{4}"
    r"|(?:^|[^0-9-])(?:1[ .-])?[0-9]{3}[ .-][0-9]{3}[ .-][0-9]{4}(?:[^0-9-]|$)"
)
_CARD = r"(?:^|[^0-9])([3-6][0-9]{3}(?:[ -]?[0-9]{4}){2}[ -]?[0-9]{1,7})(?:[^0-9]|$)"
# UTF-8 read as Latin-1 or Windows-1252, the replacement character, and an escape that was escaped.
_MOJIBAKE = r"[ÃÂ][\u{80}-\u{BF}]|â€|â\u{80}|ï¿½|ðŸ|\u{FFFD}|[ÐÑ][\u{80}-\u{BF}][ÐÑ]|\\u[0-9a-fA-F]{4}"


def _either(rule: str) -> pl.Expr:
    return pl.any_horizontal(pl.col(name).str.contains(rule) for name in TEXTS)


def _blank(name: str) -> pl.Expr:
    return pl.col(name).str.strip_chars() == ""


def _foreign(share: float, *columns: str) -> pl.Expr:
    """Less than `share` of 4 letters or more are of the language's script."""
    letters, own = (pl.sum_horizontal(f"{kind}_{name}" for name in columns) for kind in ("letters", "own"))
    return (letters >= 4) & (own < share * letters)


def _other_script(name: str) -> pl.Expr:
    """The text is in another script, and is no name in Latin letters beside a right text."""
    name_like = (pl.col(f"count_{name}") < 4) & pl.col(f"folded_{name}").str.contains("[a-z]")
    return _foreign(0.3, name) & (~name_like | _foreign(0.3, *TEXTS))


def _telling(name: str) -> pl.Expr:
    """The text where it has what every address or number of a person has; what is null costs nothing."""
    return pl.when(pl.col(name).str.contains("[@+]|[0-9]{3}")).then(pl.col(name))


def _holds_card_number(text: pl.Expr) -> pl.Expr:
    found = text.str.extract(_CARD).str.replace_all("[ -]", "")
    return found.map_elements(_passes_luhn, return_dtype=pl.Boolean, skip_nulls=True).fill_null(value=False)


def _passes_luhn(digits: str) -> bool:
    """Whether the check digit is right, as on every payment card (ISO/IEC 7812)."""
    doubled = (int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits)))
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def _too_short(name: str) -> pl.Expr:
    too_few = (pl.col(f"chars_{name}") < pl.col("least")) | pl.col("spaced") & (pl.col(f"count_{name}") < 2)
    return ~_blank(name) & too_few


def _too_long(name: str) -> pl.Expr:
    spaced = (pl.col(f"chars_{name}") > 400) | (pl.col(f"count_{name}") > 50)
    return pl.when("spaced").then(spaced).otherwise(pl.col(f"chars_{name}") > 150)


def _echoes(name: str) -> pl.Expr:
    """The text is the task description, or holds all of one of four words or more."""
    task, key = pl.col("folded_task"), pl.col(f"folded_{name}")
    long_task = task.str.count_matches(" ", literal=True) >= 3
    return (key == task) & (key != "") | long_task & key.str.contains(task, literal=True)


def _too_similar() -> pl.Expr:
    """More than 0.6 of all words are in both texts, or 0.8 of the shorter one's."""
    first, second = (pl.col(f"distinct_{name}") for name in TEXTS)
    jaccard = pl.col("shared") / (first + second - pl.col("shared"))
    containment = pl.col("shared") / pl.min_horizontal(first, second)
    return (pl.min_horizontal(first, second) >= 3) & ((jaccard > 0.6) | (containment > 0.8))


_SENT = pl.col("error").is_null()
_CUT_OFF = pl.col("finish_reason").eq_missing("length")

RULES: dict[str, pl.Expr] = {
    **{reason: pl.col("error").eq_missing(reason) for reason in REFUSED_CALLS},
    "truncated": _CUT_OFF,
    REFUSED: pl.col("finish_reason").eq_missing("content_filter")
    | _SENT & pl.col("text").is_null()
    | (pl.col("problem").is_not_null() & pl.col("text").str.contains(REFUSAL))
    | _either(_REFUSAL_IN_TEXT),
    "unparsable": pl.col("problem") == "unparsable",
    "wrong_shape": pl.col("problem") == "wrong_shape",
    "empty": pl.any_horizontal(_blank(name) for name in TEXTS),
    "too_short": pl.any_horizontal(_too_short(name) for name in TEXTS),
    "too_long": pl.any_horizontal(_too_long(name) for name in TEXTS),
    "identical": (text_key(pl.col("words_input")) == text_key(pl.col("words_positive_document")))
    & (pl.col("folded_input") != ""),
    "too_similar": _too_similar(),
    "echoes_task": pl.any_horizontal(_echoes(name) for name in TEXTS),
    WRONG_LANGUAGE: pl.col("detected").struct["sure"] | pl.any_horizontal(_other_script(name) for name in TEXTS),
    "placeholder": _either(_PLACEHOLDER)
    | pl.any_horizontal(pl.col(f"folded_{name}").str.contains(_PLACEHOLDER_FOLDED) & ~_blank(name) for name in TEXTS),
    "markup": _either(_MARKUP),
    "control_characters": _either(_CONTROL),
    "mojibake": _either(_MOJIBAKE),
}

FLAGS: dict[RowFlag, pl.Expr] = {
    "doubtful_language": pl.col("detected").struct["seen"].is_not_null()
    | pl.any_horizontal(_foreign(0.6, name) for name in TEXTS),
    "personal_data": pl.any_horizontal(
        _telling(name).str.contains(f"{_EMAIL}|{_PHONE}") | _holds_card_number(_telling(name)) for name in TEXTS
    ),
}


def judge(pairs: pl.LazyFrame, reject_flagged: Sequence[RowFlag] = ()) -> pl.LazyFrame:
    """Return the rows of `pairs` in their order, with `reasons`, `flags`, input_key and positive_key.

    Reads task, language, input, positive_document, text, finish_reason, error and
    problem (see parsing). `reasons` lists every rule of RULES that holds, in its
    order, and is empty for an accepted row; `flags` lists the FLAGS that hold,
    but those in `reject_flagged`, which are reasons. Keys are null without a text.
    """
    prepared = pairs
    for columns in PREPARED:
        prepared = prepared.with_columns(**columns)
    reasons: dict[str, pl.Expr] = RULES | {flag: FLAGS[flag] for flag in reject_flagged}
    flags: dict[str, pl.Expr] = {flag: holds for flag, holds in FLAGS.items() if flag not in reject_flagged}
    return prepared.with_columns(
        reasons=_names(reasons),
        flags=_names(flags),
        input_key=text_key(pl.col("words_input")),
        positive_key=text_key(pl.col("words_positive_document")),
    ).drop(name for columns in PREPARED for name in columns)


def _names(holding: Mapping[str, pl.Expr]) -> pl.Expr:
    """The names of the expressions that hold, as a list.

    Rows differ in few ways: one list is made for each, by the bits of what holds.
    """
    bits = [holds.fill_null(value=False).cast(pl.Int64) * 2**place for place, holds in enumerate(holding.values())]
    lists = partial(_list_names, tuple(holding))
    return pl.sum_horizontal(pl.lit(0, pl.Int64), *bits).map_batches(lists, pl.List(pl.String), is_elementwise=True)


def _list_names(names: Sequence[str], bits: pl.Series) -> pl.Series:
    different = bits.unique().sort()
    lists = [[name for place, name in enumerate(names) if held >> place & 1] for held in different]
    return pl.Series(bits.name, lists, dtype=pl.List(pl.String)).gather(different.search_sorted(bits))
