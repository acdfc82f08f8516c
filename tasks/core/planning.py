"""From distinct descriptions to the requests that a destination still lacks."""

from collections.abc import Iterator

import polars as pl

from tasks.core.columns import REQUESTS, Schema
from tasks.core.prompts import build_prompt
from tasks.core.requests import Order, hash_descriptions, normalise_description, request_keys

EXPANDED_ROWS = 50_000

# What a destination holds of one description (by its number) and language.
SERVED: Schema = {"number": pl.Int128, "language": pl.String, "pairs": pl.Int64}
# The requests that a destination has judged, accepted or rejected.
JUDGED: Schema = {"request_key": pl.String, "accepted": pl.Boolean}


def normalise(batch: pl.DataFrame) -> pl.DataFrame:
    """Return `batch` without blank descriptions, `task` normalised, with `description_hash`."""
    texts = [normalise_description(text or "") for text in batch["task"].to_list()]
    named = batch.with_columns(pl.Series("task", texts, dtype=pl.String)).filter(pl.col("task") != "")
    hashes = hash_descriptions(named["task"].to_list())
    return named.with_columns(pl.Series("description_hash", hashes, dtype=pl.String))


def number_hashes(hashes: pl.Expr) -> pl.Expr:
    """Return 124 bits of each hex hash as a number, in half the memory of its text."""
    return hashes.str.slice(0, 31).str.to_integer(base=16, dtype=pl.Int128)


def count_missing(descriptions: pl.DataFrame, served: pl.DataFrame, order: Order) -> pl.DataFrame:
    """Return the pairs still wanted per description and language of `order`.

    Returns:
        Rows of `descriptions` x languages, in that order, with `language` and
        `missing` (pairs, above 0).
    """
    languages = pl.DataFrame({"language": list(order.languages)}, schema={"language": pl.String})
    return (
        descriptions.with_columns(number=number_hashes(pl.col("description_hash")))
        .join(languages, how="cross", maintain_order="left_right")
        .join(served, on=["number", "language"], how="left", maintain_order="left")
        .with_columns(missing=order.pairs_per_task - pl.col("pairs").fill_null(0))
        .filter(pl.col("missing") > 0)
        .drop("pairs", "number")
    )


def plan_requests(
    descriptions: pl.DataFrame, served: pl.DataFrame, judged: pl.DataFrame, order: Order
) -> Iterator[tuple[pl.DataFrame, int, int]]:
    """Yield the requests that are still wanted, in frames of bounded size.

    A request that the destination has judged before is not asked again; the
    next sample index below `pairs_per_task` takes its place.

    Args:
        descriptions: task, description_hash and the source's own columns.
        served: SERVED.
        judged: JUDGED.
        order: The run.

    Yields:
        (requests, wanted, rejected): the columns of REQUESTS but plan_row, and
        the source's own; the pairs that were missing; the requests left out
        because their completion was rejected before.
    """
    samples = pl.DataFrame({"sample_index": range(order.pairs_per_task)}, schema={"sample_index": pl.Int64})
    own = [name for name in REQUESTS if name != "plan_row"]
    own += [name for name in descriptions.columns if name not in own]
    place = pl.int_range(pl.len()).over("description_hash", "language")
    step = max(1, EXPANDED_ROWS // (len(order.languages) * order.pairs_per_task))
    for piece in descriptions.iter_slices(step):
        missing = count_missing(piece, served, order)
        candidates = missing.join(samples, how="cross", maintain_order="left_right")
        prompts = map(build_prompt, candidates["task"].to_list(), candidates["language"].to_list())
        keys = request_keys(order.recipe, prompts, candidates["sample_index"].to_list())
        known = candidates.with_columns(pl.Series("request_key", keys, dtype=pl.String)).join(
            judged, on="request_key", how="left", maintain_order="left"
        )
        fresh = known.filter(pl.col("accepted").is_null()).filter(place < pl.col("missing"))
        yield (
            fresh.select(own),
            int(missing["missing"].sum()),
            known.filter(~pl.col("accepted")).height,
        )
