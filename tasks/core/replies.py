"""Many replies at once: one expression reads the plain ones, the ladder every other."""

import polars as pl

from tasks.core.columns import TEXTS, Schema
from tasks.core.parsing import parse_pair

PARSED: Schema = dict.fromkeys((*TEXTS, "repair_stage", "problem"), pl.String)
# A reply of JSON's own white space and strings without a backslash, in which nothing is left to decode.
_GAP, _STRING = r"[ \t\r\n]*", r'"(?<{name}>[^"\\\x00-\x1f]*)"'
_MEMBERS = rf"{_GAP},{_GAP}".join(rf'"{name}"{_GAP}:{_GAP}{_STRING.format(name=name)}' for name in TEXTS)
_PLAIN = rf"^{_GAP}\{{{_GAP}{_MEMBERS}{_GAP}\}}{_GAP}$"


def parse_replies(completions: pl.DataFrame) -> pl.DataFrame:
    """Return PARSED for each row's text, as parse_pair says; nulls where there is none or it was cut off."""
    whole = pl.when(pl.col("finish_reason").ne_missing("length")).then("text")
    rows = completions.select(reply=whole).with_row_index("row")
    plain = rows.select("row", "reply", pl.col("reply").str.extract_groups(_PLAIN).struct.unnest())
    other = plain.filter(pl.col("reply").is_not_null() & pl.col(TEXTS[0]).is_null())
    climbed = pl.DataFrame([parse_pair(reply) for reply in other["reply"]], schema=PARSED, orient="row")
    read = plain.filter(~pl.col("row").is_in(other["row"].implode())).select(
        "row",
        pl.col(TEXTS).str.strip_chars(),
        repair_stage=pl.when(pl.col(TEXTS[0]).is_not_null()).then(pl.lit("strict")),
        problem=pl.lit(None, pl.String),
    )
    return pl.concat([read, climbed.select(other["row"], *PARSED)]).sort("row").drop("row")
