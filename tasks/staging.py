"""Stages requests for the generate step: in shards, with what the journal knows of each."""

from collections.abc import Iterator
from math import ceil
from pathlib import Path

import polars as pl

from tasks.clients import frames, journal
from tasks.core.columns import COMPLETIONS
from tasks.core.requests import Order, Shard
from tasks.processes import count_processes

SHARD_ROWS = 5_000
# Of a cluster each process gets a few shards, so that all end at about the same time.
LEAST_SHARD_ROWS, SHARDS_A_PROCESS = 500, 4


class Scratch:
    """Requests on the local disk, one after the other in plan order; `rows` counts them."""

    def __init__(self, folder: Path, first_row: int = 0) -> None:
        self.folder = folder
        self.first_row = first_row
        self.rows = 0

    def append(self, requests: pl.DataFrame) -> None:
        """Number `requests` as the next rows of the plan, and keep them."""
        if not requests.height:
            return
        at = self.first_row + self.rows
        plan_row = pl.int_range(at, at + requests.height, dtype=pl.Int64).alias("plan_row")
        path = self.folder / f"plan-{at:012}.parquet"
        requests.select(plan_row, pl.all()).write_parquet(path, compression="lz4")
        self.rows += requests.height

    def scan(self) -> pl.LazyFrame:
        """Return all of them."""
        return pl.scan_parquet(self.folder / "plan-*.parquet")


def fill_in(rows: pl.DataFrame, completions: pl.DataFrame) -> pl.DataFrame:
    """Return a shard's rows, in plan order, with the completions that were found for some of them."""
    found = completions.select("request_key", *COMPLETIONS)
    known = rows.drop(COMPLETIONS).join(found, on="request_key", how="inner")
    rest = rows.join(found, on="request_key", how="anti")
    return pl.concat([rest, known.select(rows.columns)]).sort("plan_row")


def stage_shards(
    order: Order, requests: Scratch, *, number: int = 0, round_: int = 0, only_cached: bool = False
) -> Iterator[Shard]:
    """Look all requests up in the journal, once, and stage each shard with what is known of it.

    Args:
        order: The run.
        requests: What is to be staged.
        number: The first shard's number.
        round_: The round that they belong to.
        only_cached: Leave out what the journal does not answer.
    """
    if not requests.rows:
        return
    # What a killed run paid for may still lie on this machine alone.
    journal.upload_leftovers(journal.local_folder() / "journal", order.layout.journal(order.recipe.recipe_id))
    plan = requests.scan()
    known = requests.folder / "known"
    size = _shard_rows(requests.rows, count_processes())
    shard = ((pl.col("plan_row") - requests.first_row) // size).alias("shard")
    journal.look_up(order.layout.journal(order.recipe.recipe_id), plan.select("request_key", "plan_row")).with_columns(
        shard
    ).sink_parquet(pl.PartitionBy(known, key="shard", include_key=False), mkdir=True)
    first_rows = range(0, requests.rows, size)
    for index, first_row in enumerate(first_rows):
        rows = plan.slice(first_row, size).collect()
        files = sorted((known / f"shard={index}").glob("*.parquet"))
        completions = pl.DataFrame(schema={"request_key": pl.String, **COMPLETIONS})
        if files:
            completions = journal.keep_earliest(pl.read_parquet(files)).select(completions.columns)
        staged = rows.join(completions, on="request_key", how="left", maintain_order="left").with_columns(
            cached=pl.col("completed_at").is_not_null()
        )
        if only_cached:
            staged = staged.filter("cached")
        uri = f"{order.staging}/plan/{number + index:06}.parquet"
        frames.write_frame(staged, uri)
        label = f"{index + 1}/{len(first_rows)}" + (f" of round {round_ + 1}" if round_ else "")
        yield Shard(number + index, uri, round_, staged.height, int(staged["cached"].sum()), label=label)


def _shard_rows(rows: int, processes: int) -> int:
    most = ceil(rows / (SHARDS_A_PROCESS * processes)) if processes else SHARD_ROWS
    return min(SHARD_ROWS, max(LEAST_SHARD_ROWS, most))
