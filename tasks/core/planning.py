"""From distinct descriptions to the requests that a destination still lacks."""

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from tasks.core.columns import REQUESTS, Schema
from tasks.core.distinct import number_hashes
from tasks.core.requests import Order
from tasks.core.takeovers import assign_models, is_over, key_requests

EXPANDED_ROWS = 20_000

# What a destination holds of one description (by its number) and language.
SERVED: Schema = {"number": pl.Int128, "language": pl.String, "pairs": pl.Int64}
# What other runs at work are making.
CLAIMED: Schema = {"number": pl.Int128, "language": pl.String}
# The requests that a destination has judged; `reason` is the first one of a rejected row, else null.
JUDGED: Schema = {
    "number": pl.Int128,
    "language": pl.String,
    "sample_index": pl.Int64,
    "model_name": pl.String,
    "request_key": pl.String,
    "reason": pl.String,
}
# One description in one language: what a quota is counted in.
GROUP = ["description_hash", "language"]
# The samples of a group that were asked for already, and how each ended.
USED: Schema = {"description_hash": pl.String, "language": pl.String, "sample_index": pl.Int64, "reason": pl.String}


@dataclass(frozen=True)
class Planned:
    """What some descriptions still need.

    `requests` has the columns of REQUESTS but plan_row, and the source's own.
    `used` are the samples that the destination has judged under this recipe, of
    descriptions that are short. `served` counts groups that lack nothing, `claimed` those
    that another run is making, `wanted` the pairs that are missing in the others, and
    `given_up` are the groups that no sample is left for: task, language, `missing`
    (pairs) and `reason`, the most frequent one of their rejected rows.
    """

    requests: pl.DataFrame
    used: pl.DataFrame
    served: int
    claimed: int
    wanted: int
    given_up: pl.DataFrame


def leaves_nothing(order: Order, *, descriptions: int, requests: int) -> bool:
    """Whether a redo leaves its partition without rows, since other partitions serve all that the source holds."""
    return order.on_published == "redo" and descriptions > 0 and not requests and not order.limit


def count_missing(descriptions: pl.DataFrame, served: pl.DataFrame, order: Order) -> pl.DataFrame:
    """Return the pairs still wanted per description and language.

    Returns:
        Rows of `descriptions` x languages, in that order, with `number`, `language`
        and `missing` (pairs, 0 where it is served). A description that has a language
        is wanted in that one alone.
    """
    every = pl.lit(list(order.languages), pl.List(pl.String))
    own = pl.concat_list("language")
    return (
        descriptions.with_columns(
            number=number_hashes(pl.col("description_hash")),
            language=pl.when(pl.col("language").is_null()).then(every).otherwise(own),
        )
        .explode("language")
        .join(served, on=["number", "language"], how="left", maintain_order="left")
        .with_columns(missing=(order.pairs_per_task - pl.col("pairs").fill_null(0)).clip(0))
        .drop("pairs")
    )


def find_lacking(descriptions: pl.DataFrame, served: pl.DataFrame, order: Order) -> pl.DataFrame:
    """Return the descriptions that are not served in each of their languages, in their order."""
    short = count_missing(descriptions, served, order).filter(pl.col("missing") > 0).select("description_hash")
    return descriptions.join(short, on="description_hash", how="semi", maintain_order="left")


def plan_requests(
    descriptions: pl.DataFrame, served: pl.DataFrame, judged: pl.DataFrame, claimed: pl.DataFrame, order: Order
) -> Iterator[Planned]:
    """Yield what is still wanted, in frames of bounded size.

    Args:
        descriptions: task, description_hash, language (null: all of the order's) and the source's own columns.
        served: SERVED.
        judged: JUDGED.
        claimed: CLAIMED.
        order: The run.
    """
    languages = len(order.languages) if order.language_mix == "each" else 1
    for piece in descriptions.iter_slices(max(1, EXPANDED_ROWS // (languages * order.pairs_per_task))):
        groups = count_missing(piece, served, order)
        lacking = groups.filter(pl.col("missing") > 0)
        missing = lacking.join(claimed, on=[*CLAIMED], how="anti", maintain_order="left")
        used = _find_used(missing, judged, order)
        short = missing.drop("number")
        requests = next_requests(short, used, order)
        yield Planned(
            requests=requests,
            used=used,
            served=groups.height - lacking.height,
            claimed=lacking.height - missing.height,
            wanted=int(missing["missing"].sum()),
            given_up=_find_given_up(short, requests, used),
        )


def next_requests(groups: pl.DataFrame, used: pl.DataFrame, order: Order) -> pl.DataFrame:
    """Return the next samples of each group: as many as it misses, none twice, none beyond the limit.

    The limit is `max_attempts_per_pair` samples a wanted pair, over all runs.

    Args:
        groups: task, description_hash, language, `missing` and the source's own columns.
        used: USED, or its first three columns.
        order: The run.

    Returns:
        The columns of REQUESTS but plan_row, and the source's own, in the order of `groups`.
    """
    limit = order.pairs_per_task * order.max_attempts_per_pair
    spent = used.group_by(GROUP).agg(spent=pl.len().cast(pl.Int64))
    reach = pl.min_horizontal(pl.lit(limit), pl.col("missing") + pl.col("spent").fill_null(0))
    candidates = (
        groups.join(spent, on=GROUP, how="left", maintain_order="left")
        .with_columns(sample_index=pl.int_ranges(reach, dtype=pl.Int64))
        .explode("sample_index")
        .join(used, on=[*GROUP, "sample_index"], how="anti", maintain_order="left")
    )
    fresh = candidates.filter(pl.int_range(pl.len()).over(GROUP) < pl.col("missing"))
    own = [name for name in REQUESTS if name != "plan_row"]
    own += [name for name in groups.columns if name not in own and name != "missing"]
    return key_requests(fresh.with_columns(assign_models(fresh, order)), order).select(own)


def _find_used(missing: pl.DataFrame, judged: pl.DataFrame, order: Order) -> pl.DataFrame:
    """Return USED of the groups in `missing`, each sample once.

    A request of another recipe has another key; one that a fallback may take over is not used up.
    """
    before = missing.join(judged.rename({"request_key": "judged_key"}), on=["number", "language"], how="inner")
    known = key_requests(before.filter(pl.col("model_name").is_in(order.models)), order)
    used = known.filter(pl.col("request_key") == pl.col("judged_key"))
    if len(order.models) > 1:
        first = assign_models(used, order).alias("first")
        over = [is_over(order, *row) for row in used.select(first, "model_name", "reason").iter_rows()]
        used = used.filter(pl.Series(over, dtype=pl.Boolean)).sort("reason", nulls_last=False, maintain_order=True)
        used = used.unique([*GROUP, "sample_index"], keep="first", maintain_order=True)
    return used.select(*USED)


def _find_given_up(groups: pl.DataFrame, requests: pl.DataFrame, used: pl.DataFrame) -> pl.DataFrame:
    planned = requests.group_by(GROUP).agg(planned=pl.len().cast(pl.Int64))
    reasons = used.group_by(GROUP).agg(reason=pl.col("reason").drop_nulls().mode(maintain_order=True).first())
    return (
        groups.join(planned, on=GROUP, how="left", maintain_order="left")
        .with_columns(missing=pl.col("missing") - pl.col("planned").fill_null(0))
        .filter(pl.col("missing") > 0)
        .join(reasons, on=GROUP, how="left", maintain_order="left")
        .select("task", "language", "missing", pl.col("reason").fill_null("not recorded"))
    )
