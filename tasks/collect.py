"""Between extract and generate: what the provider's batch API answers, at half price.

Batches belong to the runs of one source, which its lease makes one at a time.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import polars as pl
from prefect import get_run_logger
from prefect.context import TaskRunContext

from tasks.clients import frames
from tasks.clients.batch_collecting import ANSWERED, Collector
from tasks.clients.batch_desk import Desk
from tasks.clients.batch_lines import BatchLines
from tasks.clients.batch_records import Records
from tasks.clients.batch_sending import Sender
from tasks.clients.batches import BatchApi
from tasks.clients.batching import Batching
from tasks.clients.journal import Journal
from tasks.clients.lookup import find_paid
from tasks.clients.patience import Patience
from tasks.core.batching import FEWEST_REQUESTS
from tasks.core.columns import REPLIED, SHARD
from tasks.core.plans import Shard
from tasks.core.requests import Order
from tasks.core.showing import shown
from tasks.models import own_price
from tasks.policy import step
from tasks.progress import progress
from tasks.shared_model import Model
from tasks.staging import fill_in


def answer_in_batches(
    shards: Sequence[Shard], order: Order, model: Model, check: Callable[[], None]
) -> Sequence[Shard]:
    """Have the requests of `shards` that the journal does not answer answered by batches, where that is wanted.

    Without order.batch, batches that an earlier run has left are ended, and what they
    have answered is collected. A preview sends and collects none. `check` raises where
    another run may hold the source by now: then nothing is sent any more.

    Returns:
        The shards, with what the batches have answered; the rest is left for live calls.

    Raises:
        ModelError, StoppedError: The run is over; what was paid for is kept.
    """
    if order.limit or not _count_missing(shards):
        return shards
    wanted = _wants_batches(shards, order)
    records = Records(order.layout.batches(order.recipe.recipe_id, order.source))
    if not wanted and not records.find_open():
        return shards
    return _answer(tuple(shards), order, model, records, order.batch_deadline if wanted else 0, check=check)


def _wants_batches(shards: Sequence[Shard], order: Order) -> bool:
    """Whether batches are to answer this round: none waits for hours for a few requests of a later one."""
    if not order.batch or max(shard.round for shard in shards) == 0:
        return order.batch
    return _count_missing(shards) >= FEWEST_REQUESTS and _count_own(shards, order) >= FEWEST_REQUESTS


def _count_missing(shards: Sequence[Shard]) -> int:
    return sum(shard.rows - shard.cached for shard in shards)


def _scan_own(shards: Sequence[Shard], order: Order) -> pl.LazyFrame:
    """Return what the journal does not answer of the main model's requests; further models are called live."""
    rows = frames.scan_frames([shard.uri for shard in shards], include_file_paths="shard")
    return rows.filter(pl.col("completed_at").is_null() & (pl.col("model_name") == order.recipe.model_name))


def _count_own(shards: Sequence[Shard], order: Order) -> int:
    with frames.whole_objects(lambda: [shard.uri for shard in shards], columns=SHARD):
        return int(_scan_own(shards, order).select(pl.len()).collect(engine="streaming").item())


@step("batch", "answer in batches", retries=3)
def _answer(
    shards: tuple[Shard, ...], order: Order, model: Model, records: Records, hours: int, *, check: Callable[[], None]
) -> tuple[Shard, ...]:
    with tempfile.TemporaryDirectory(prefix="pairmill-") as name:
        folder = Path(name)
        requests = folder / "requests.parquet"
        rows = _scan_own(shards, order)
        rows.select("request_key", "task", "language", "sample_index", "shard").sink_parquet(requests)
        context = TaskRunContext.get()
        if context is not None and context.task_run.run_count > 1:
            _find_collected(order, requests, folder)
        with _open_batching(order, model, folder, records, check) as batching:
            batching.answer(requests, order.started_at.timestamp() + 3600.0 * hours)
        return tuple(_fill_shards(order, shards, requests, folder))


@contextmanager
def _open_batching(
    order: Order, model: Model, folder: Path, records: Records, check: Callable[[], None]
) -> Iterator[Batching]:
    """Yield what sends and collects; the run's progress tells of it, also when it was stopped meanwhile."""
    recipe, logger = order.recipe, get_run_logger()
    desk = Desk(
        api=BatchApi(recipe, order.api_base),
        lines=BatchLines(recipe, order.api_base),
        records=records,
        folder=folder,
        recipe_id=recipe.recipe_id,
        api_base=order.api_base,
        max_tokens=recipe.max_tokens,
        price=own_price(order, recipe.model_name),
        budget=model().attempts.budget,
        patience=Patience(check=check),
        note=lambda said: logger.info("%s", shown(said)),
    )
    paid = progress.paid
    with Journal(order.journal_of(recipe.model_name), recipe=recipe.canonical) as record:
        batching = Batching(desk, Sender(desk), Collector(desk, record))
        progress.step, progress.open = "batch", lambda: len(batching.open)
        progress.paid = lambda: paid() + batching.done
        yield batching
        progress.step = "generate"
    if record.lost is not None:
        raise record.lost


def _find_collected(order: Order, requests: Path, folder: Path) -> None:
    """Find what an attempt of this step collected before it failed, and ask for the rest only."""
    rows = pl.read_parquet(requests)
    found = find_paid(order.journal_of(order.recipe.model_name), rows.lazy().select("request_key"))
    answered = found.with_columns(batch=pl.lit(None, dtype=pl.String))
    answered.select(list(ANSWERED)).write_parquet(folder / "answered-before.parquet")


def _fill_shards(order: Order, shards: Sequence[Shard], requests: Path, folder: Path) -> Iterator[Shard]:
    """Stage the shards that batches have answered rows of, with these filled in."""
    files = sorted(folder.glob("answered-*.parquet"))
    by_shard = folder / "by-shard"
    if files:
        answered = pl.scan_parquet(files).sort("completed_at").unique("request_key", keep="first")
        place = pl.scan_parquet(requests).select("request_key", "shard")
        numbers = {shard.uri: shard.number for shard in shards}
        number = pl.col("shard").replace_strict(numbers, return_dtype=pl.Int64)
        answered.join(place, on="request_key").with_columns(shard=number).sink_parquet(
            pl.PartitionBy(by_shard, key="shard", include_key=False), mkdir=True
        )
    for shard in shards:
        found = sorted((by_shard / f"shard={shard.number}").glob("*.parquet"))
        if not found:
            yield shard
            continue
        completions = pl.read_parquet(found)
        uri = f"{order.staging}/batched/{shard.number:06}.parquet"
        frames.write_frame(fill_in(frames.read_frame(shard.uri, SHARD), completions), uri)
        paid = completions.filter(REPLIED)
        batches = tuple(completions["batch"].drop_nulls().unique().sort())
        yield replace(shard, uri=uri, batched=paid.height, batches=batches)
