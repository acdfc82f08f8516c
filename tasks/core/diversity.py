"""How different texts are, and what the variations of later samples bring to that, value by value."""

from collections.abc import Sequence

import polars as pl

from tasks.core.columns import ACCEPTED, TEXTS
from tasks.core.duplicates import REPEATED
from tasks.core.keys import fold
from tasks.core.report import VariationFigures

# distinct-n falls with the number of texts, so it is compared at this many pairs only.
VARIED_PAIRS = 200
# Enough for every value to come to that many, and few enough to hold.
DRAWN_PAIRS = 20_000


def measure_variations(judged: pl.LazyFrame) -> dict[str, VariationFigures]:
    """Return the figures of each value, over the rows that were asked for with one."""
    varied = judged.filter(pl.col("variation").is_not_null()).with_columns(value=pl.col("variation").str.split("; "))
    counted = (
        varied.select("value", accepted=ACCEPTED, repeated=REPEATED)
        .explode("value")
        .group_by("value")
        .agg(pl.col("accepted").sum(), rejected=(~pl.col("accepted")).sum(), duplicates=pl.col("repeated").sum())
        .sort("value")
    )
    # The request's key is a hash: its order is a draw, and the same one each time.
    drawn = varied.filter(ACCEPTED).select("request_key", "value", *TEXTS).bottom_k(DRAWN_PAIRS, by="request_key")
    figures, pairs = pl.collect_all([counted, drawn], engine="streaming")
    texts = pairs.sort("request_key").select("value", text=pl.concat_str(TEXTS, separator=" ")).explode("value")
    measured = {value: _distinct_2(rows["text"]) for (value,), rows in texts.group_by("value")}
    return {
        value: VariationFigures(accepted=good, rejected=bad, duplicates=again, distinct_2=measured.get(value))
        for value, good, bad, again in figures.iter_rows()
    }


def _distinct_2(texts: pl.Series) -> float | None:
    return distinct(texts.head(VARIED_PAIRS))[1] if len(texts) >= VARIED_PAIRS else None


def distinct(texts: pl.Series) -> list[float]:
    """Return distinct-1 and distinct-2: distinct words, and pairs of words, a word or pair.

    Source: arXiv:1510.03055.
    """
    folded = texts.to_frame("text").select(fold(pl.col("text"))).to_series()
    return [_distinct_share([text.split() for text in folded], size) for size in (1, 2)]


def _distinct_share(texts: Sequence[Sequence[str]], size: int) -> float:
    found = [tuple(words[at : at + size]) for words in texts for at in range(len(words) - size + 1)]
    return len(set(found)) / len(found) if found else 0.0
