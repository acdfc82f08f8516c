"""Stages requests for the generate step: in shards, with what the journal knows of each."""

import tempfile
from collections.abc import Iterator
from math import ceil
from pathlib import Path

import polars as pl

from tasks.clients import frames
from tasks.clients.leftovers import upload_leftovers
from tasks.clients.lookup import keep_earliest, look_up, whole_segments
from tasks.core.columns import COMPLETIONS
from tasks.core.plans import Shard
from tasks.core.requests import Order
from tasks.core.takeovers import follow, key_requests, sum_up
from tasks.processes import count_processes

# Of a run in one process: the more rows, the fewer steps each of them pays for; smaller ones overlap better.
SHARD_ROWS, MOST_SHARD_ROWS, SHARDS = 5_000, 10_000, 5
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
    upload_leftovers(order.journal_of(order.recipe.model_name))
    size = _shard_rows(requests.rows, count_processes())
    parts = range(0, requests.rows, size)
    for index, (reached, known, left) in enumerate(look_up_requests(order, requests, size)):
        staged = reached.filter("cached") if only_cached else reached
        uri = f"{order.staging}/plan/{number + index:06}.parquet"
        frames.write_frame(staged, uri)
        known_uri = f"{order.staging}/known/{number + index:06}.parquet" if known.height else ""
        if known_uri:
            frames.write_frame(known, known_uri)
        cached = int(staged["cached"].sum())
        yield Shard(
            number + index,
            uri,
            round_,
            staged.height,
            cached,
            label=f"{index + 1}/{len(parts)}" + (f" of round {round_ + 1}" if round_ else ""),
            known_uri=known_uri,
            turned_down=sum_up(left),
        )


def look_up_requests(
    order: Order, requests: Scratch, size: int = SHARD_ROWS
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]]:
    """Look all requests up in the models' journals, once; writes to the local disk only.

    Yields:
        For every `size` of them, in plan order: the rows as far as the journals take them, with `cached`, what is
        known of fallbacks' keys, and the rows that models turned down (see `follow`).
    """
    own = [_look_up(order, name, _theirs(requests, name), requests, size) for name in order.shares]
    others = [_look_up(order, name, _instead(order, requests, name), requests, size) for name in order.fallback_models]
    for index, first_row in enumerate(range(0, requests.rows, size)):
        rows = requests.scan().slice(first_row, size).collect()
        known = _read(others, index)
        asked = rows.join(_read(own, index), on="request_key", how="left", maintain_order="left").with_columns(
            cached=pl.col("completed_at").is_not_null(), turned_down_by=pl.lit([], dtype=pl.List(pl.String))
        )
        reached, left = follow(asked, known, order)
        yield reached, known, left


def _shard_rows(rows: int, processes: int) -> int:
    if processes:
        return min(SHARD_ROWS, max(LEAST_SHARD_ROWS, ceil(rows / (SHARDS_A_PROCESS * processes))))
    return min(MOST_SHARD_ROWS, max(SHARD_ROWS, rows // SHARDS))


def _theirs(requests: Scratch, model_name: str) -> pl.LazyFrame:
    """Return request_key and plan_row of the requests that belong to a model."""
    return requests.scan().filter(pl.col("model_name") == model_name).select("request_key", "plan_row")


def _instead(order: Order, requests: Scratch, model_name: str) -> pl.LazyFrame:
    """Return request_key and plan_row of those that a fallback would make in the place of all others."""
    folder = Path(tempfile.mkdtemp(dir=requests.folder))
    for first_row in range(0, requests.rows, SHARD_ROWS):
        rows = requests.scan().slice(first_row, SHARD_ROWS).filter(pl.col("model_name") != model_name).collect()
        keyed = key_requests(rows.with_columns(model_name=pl.lit(model_name)), order)
        keyed.select("request_key", "plan_row").write_parquet(folder / f"{first_row:012}.parquet", compression="lz4")
    return pl.scan_parquet(folder / "*.parquet")


def _look_up(order: Order, model_name: str, wanted: pl.LazyFrame, requests: Scratch, size: int) -> Path:
    """Write what a model's journal has for the keys of `wanted` to a folder, by shard, and return it."""
    folder = Path(tempfile.mkdtemp(dir=requests.folder))
    shard = ((pl.col("plan_row") - requests.first_row) // size).alias("shard")
    uri = order.journal_of(model_name)
    known = look_up(uri, wanted, failures=bool(order.fallback_models)).with_columns(shard)
    with whole_segments(uri):
        known.sink_parquet(pl.PartitionBy(folder, key="shard", include_key=False), mkdir=True)
    return folder


def _read(folders: list[Path], shard: int) -> pl.DataFrame:
    files = [file for folder in folders for file in sorted((folder / f"shard={shard}").glob("*.parquet"))]
    columns = ["request_key", *COMPLETIONS]
    if not files:
        return pl.DataFrame(schema={"request_key": pl.String, **COMPLETIONS})
    return keep_earliest(pl.read_parquet(files)).select(columns)
