"""What the judged rows of a partition look like, beside the partition before and the judgement before."""

from typing import Any

import polars as pl

from tasks.core.columns import ACCEPTED, TEXTS
from tasks.core.diversity import distinct
from tasks.core.drift import LENGTH_STEP, Changes, Drift, Measure, Profile, SamplePair
from tasks.core.duplicates import REPEATED
from tasks.core.keys import fold, split_words

EXAMPLES, PAIRS_TO_READ, OPENINGS = 3, 20, 5
# distinct-n falls with the number of texts, so it is compared at this one only.
DISTINCT_TEXTS = 1_000
# Characters; a difference within DRIFT_STEP of them is none.
DRIFT_STEP, LONGEST = 10, 400
OPENING_WORDS = 3
# An opening is repeated from this share of the texts on, and this many of them.
OPENING_SHARE, OPENING_ROWS = 0.01, 5

_EXAMPLE = ("language", "input", "positive_document", "text")


def profile_rows(judged: pl.LazyFrame) -> Profile:
    """Describe judged rows, as reject_duplicates and relate return them."""
    accepted = judged.filter(ACCEPTED)
    examples = (
        judged.select(pl.col("reasons"), example=pl.struct(*_EXAMPLE))
        .explode("reasons", empty_as_null=False)
        .group_by("reasons")
        .agg(pl.col("example").head(EXAMPLES))
    )
    groups = accepted.filter(pl.col("group_id").is_not_null()).group_by("group_id").agg(size=pl.len())
    # The request's key is a hash: its order is a draw, and the same one each time.
    drawn = accepted.select("request_key", *_EXAMPLE[:3], "task").bottom_k(DISTINCT_TEXTS, by="request_key")
    asked = {
        "examples": examples,
        "sizes": groups.group_by("size").agg(groups=pl.len()).sort("size"),
        "drawn": drawn,
        **{f"lengths of {name}": _lengths(accepted, name) for name in TEXTS},
        "languages": accepted.group_by("language")
        .agg(rows=pl.len())
        .sort("rows", "language", descending=[True, False]),
        "rows": judged.select(pl.len(), accepted=ACCEPTED.sum(), repeated=REPEATED.sum()),
    }
    # One after the other: together they would hold every row that they share.
    found = {name: one.collect(engine="streaming") for name, one in asked.items()}
    texts = found["drawn"].sort("request_key").drop("request_key")
    total, good, repeated = found["rows"].row(0)
    return Profile(
        examples=dict(found["examples"].sort("reasons").iter_rows()),
        group_sizes=dict(found["sizes"].iter_rows()),
        distinct={name: distinct(texts[name]) for name in TEXTS},
        distinct_texts=texts.height,
        lengths={name: _shares(found[f"lengths of {name}"]) for name in TEXTS},
        openings={name: _repeated_openings(accepted, name) for name in TEXTS},
        languages=_shares(found["languages"]),
        accepted_share=good / total if total else 0.0,
        duplicate_share=repeated / total if total else 0.0,
        pairs_to_read=[SamplePair(**row) for row in texts.head(PAIRS_TO_READ).to_dicts()],
    )


def profile_published(pairs: pl.LazyFrame, rejected: pl.LazyFrame | None) -> Profile:
    """Describe what is published of a partition, in what two partitions are compared by."""
    asked = [*(_lengths(pairs, name) for name in TEXTS), pairs.group_by("language").agg(rows=pl.len())]
    *lengths, languages, accepted = pl.collect_all([*asked, pairs.select(pl.len())], engine="streaming")
    good, bad, repeated = accepted.item(), 0, 0
    if rejected is not None:
        counted = rejected.select(pl.len(), repeated=REPEATED.sum())
        bad, repeated = counted.collect(engine="streaming").row(0)
    return Profile(
        lengths={name: _shares(counts) for name, counts in zip(TEXTS, lengths, strict=True)},
        languages=_shares(languages),
        accepted_share=good / (good + bad) if good + bad else 0.0,
        duplicate_share=repeated / (good + bad) if good + bad else 0.0,
    )


def measure_drift(partition: str, before: Profile, now: Profile) -> Drift:
    """Compare two partitions in shares from 0 (the same) to 1.

    Acceptance and duplicates by the difference of their shares; languages and
    lengths by the share of rows that would have to move (total variation).
    """
    moved = {
        "languages": _variation(before.languages, now.languages),
        **{f"length of {name}": _variation(*(_coarse(one.lengths[name]) for one in (before, now))) for name in TEXTS},
    }
    measures = [
        Measure(name="accepted", before=before.accepted_share, now=now.accepted_share),
        Measure(name="duplicates", before=before.duplicate_share, now=now.duplicate_share),
        *(Measure(name=name, moved=share) for name, share in moved.items()),
    ]
    return Drift(partition=partition, measures=measures)


def find_changes(judged: pl.LazyFrame, pairs: pl.LazyFrame, rejected: pl.LazyFrame | None) -> Changes:
    """Compare a judgement with what was published of the same requests before.

    Newly accepted ones are counted by the first reason they were rejected for,
    newly rejected ones by the first reason that they are rejected for now.
    """
    before = [pairs.select("request_key", was=pl.lit(None, pl.String))]
    if rejected is not None:
        before.append(rejected.select("request_key", was=pl.col("reasons").list.first()))
    now = judged.select("request_key", now=pl.col("reasons").list.first())
    both = now.join(pl.concat(before), on="request_key", how="inner")
    counted = both.group_by("was", "now").agg(rows=pl.len()).sort("rows", descending=True).collect(engine="streaming")
    accepted: dict[str, int] = {}
    refused: dict[str, int] = {}
    same = 0
    for was, is_now, rows in counted.iter_rows():
        if (was is None) == (is_now is None):
            same += rows
        elif is_now is None:
            accepted[was] = rows + accepted.get(was, 0)
        else:
            refused[is_now] = rows + refused.get(is_now, 0)
    return Changes(newly_accepted=accepted, newly_rejected=refused, as_before=same)


def _lengths(rows: pl.LazyFrame, name: str) -> pl.LazyFrame:
    step = pl.min_horizontal(pl.col(name).str.len_chars().cast(pl.Int64), LONGEST) // LENGTH_STEP * LENGTH_STEP
    return rows.group_by(length=step).agg(rows=pl.len()).sort("length")


def _repeated_openings(rows: pl.LazyFrame, name: str) -> dict[str, int]:
    """Return the openings of many texts, the most frequent first.

    Nearly each text has one of its own, so they are counted by their hashes: 8 bytes a row.
    """
    words = split_words(fold(pl.col(name)))
    opening = words.list.head(OPENING_WORDS).list.join(" ")
    key = pl.when(words.list.len() > OPENING_WORDS).then(opening.hash())
    keys = rows.select(key).collect(engine="streaming").to_series()
    often = max(OPENING_ROWS, OPENING_SHARE * keys.len())
    counted = keys.drop_nulls().sort().rle().struct.unnest()
    frequent = counted.filter(pl.col("len") >= often)["value"]
    if frequent.is_empty():
        return {}
    found = rows.filter(key.is_in(frequent.implode())).group_by(opening=opening).agg(rows=pl.len())
    most = found.sort("rows", "opening", descending=[True, False]).head(OPENINGS)
    return dict(most.collect(engine="streaming").iter_rows())


def _shares(counted: pl.DataFrame) -> dict[Any, float]:
    total = counted["rows"].sum()
    return {key: rows / total for key, rows in counted.iter_rows() if key is not None}


def _coarse(lengths: dict[int, float]) -> dict[int, float]:
    steps: dict[int, float] = {}
    for length, share in lengths.items():
        steps[length // DRIFT_STEP] = steps.get(length // DRIFT_STEP, 0.0) + share
    return steps


def _variation(before: dict[Any, float], now: dict[Any, float]) -> float:
    return sum(abs(before.get(key, 0.0) - now.get(key, 0.0)) for key in before.keys() | now.keys()) / 2
