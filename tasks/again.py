"""Between the rounds: what validation rejected is asked for again."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import polars as pl
from prefect import get_run_logger

from tasks.clients import frames, table
from tasks.clients.holdings import split_published
from tasks.core.columns import ACCEPTED, SHARD
from tasks.core.gates import rejects_too_much
from tasks.core.judging import reject_duplicates
from tasks.core.planning import GROUP, next_requests
from tasks.core.plans import Plan, Shard
from tasks.core.requests import Order
from tasks.core.source_columns import carried
from tasks.policy import step
from tasks.progress import progress
from tasks.staging import Scratch, stage_shards


@step("ask again", "ask again", retries=3)
def ask_again(order: Order, plan: Plan, judged: Sequence[Shard]) -> tuple[Shard, ...]:
    """Stage one more request for every row that the last round rejected: its group's next sample.

    Duplicates over the whole partition count as rejected. Nothing is asked for
    beyond `max_attempts_per_pair` samples a wanted pair, nor when so much was
    rejected that nothing would be published. A redo takes further samples from
    the journal only: it never pays for another try.

    Args:
        order: The run.
        plan: What the first round wanted.
        judged: The shards of all rounds so far, in order.

    Returns:
        The next round's shards, none when there is nothing to ask for.
    """
    rows, rejected = sum(shard.rows for shard in judged), sum(shard.rejected for shard in judged)
    if order.max_attempts_per_pair == 1 or rejects_too_much(order, rejected, rows):
        return ()
    round_ = max(shard.round for shard in judged) + 1
    last = frames.scan_frames([shard.uri for shard in judged if shard.round == round_ - 1])
    every = frames.scan_frames([shard.uri for shard in judged])
    staying, _ = split_published(table.open_table(order.layout.pairs), order)
    with frames.whole_objects(lambda: [shard.uri for shard in judged], columns=SHARD):
        short = _find_short(plan, reject_duplicates(last, staying, among=every))
        # Every pair of the first round that is not missing is accepted: so duplicates count, too.
        if rejects_too_much(order, rows - plan.requests + int(short["missing"].sum()), rows):
            return ()
        used = _find_used(plan, every, short)
    with tempfile.TemporaryDirectory(prefix="pairmill-") as folder:
        requests = Scratch(Path(folder), first_row=plan.requests * round_)
        for groups in short.iter_slices(50_000):
            requests.append(next_requests(groups, used, order))
        number = max(shard.number for shard in judged) + 1
        only_cached = order.on_published == "redo"
        staged = stage_shards(order, requests, number=number, round_=round_, only_cached=only_cached)
        shards = tuple(shard for shard in staged if shard.rows)
    asked, cached = sum(shard.rows for shard in shards), sum(shard.cached for shard in shards)
    progress.more(asked, cached)
    if shards:
        get_run_logger().info("round %d: %d asked again, %d of them in the journal", round_ + 1, asked, cached)
    elif missing := int(short["missing"].sum()):
        get_run_logger().info("still missing, and not asked for again: %d", missing)
    return shards


def _find_short(plan: Plan, judged: pl.LazyFrame) -> pl.DataFrame:
    """Return the groups with rejected rows, each with as many pairs `missing`."""
    own = ["task", *GROUP, *map(carried, plan.source_columns)]
    return (
        judged.filter(~ACCEPTED)
        .select("plan_row", *own)
        .group_by(GROUP)
        .agg(pl.col("plan_row").min(), pl.exclude("plan_row", *GROUP).first(), missing=pl.len().cast(pl.Int64))
        .sort("plan_row")
        .select(*own, "missing")
        .collect(engine="streaming")
    )


def _find_used(plan: Plan, judged: pl.LazyFrame, short: pl.DataFrame) -> pl.DataFrame:
    """Return the samples of those groups that this run or an earlier one has judged."""
    columns = [*GROUP, "sample_index"]
    used = [judged.select(columns)]
    if plan.used_uri:
        used.append(frames.scan_frames([plan.used_uri]).select(columns))
    return pl.concat(used).join(short.lazy().select(GROUP), on=GROUP, how="semi").collect(engine="streaming")
