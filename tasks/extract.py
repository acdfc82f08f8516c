"""Step 1: from a source's task descriptions to a staged plan of requests."""

import dataclasses
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from prefect import get_run_logger

from tasks.clients import frames, publishing, storage, table
from tasks.clients.claims import find_claimed
from tasks.clients.descriptions import Descriptions, list_source, read_descriptions
from tasks.clients.holdings import find_judged, find_served, find_source_changes
from tasks.clients.lease import Lease, find_renewed, hold_lease
from tasks.core.errors import PairmillError, RejectedError, StoppedError, StorageError
from tasks.core.planning import CLAIMED, USED, find_lacking, number_hashes, plan_requests
from tasks.core.plans import Plan
from tasks.core.requests import Order
from tasks.policy import step
from tasks.progress import progress
from tasks.staging import Scratch, stage_shards

# Descriptions named in the report of those that cannot be served.
GIVEN_UP_EXAMPLES = 100
# Spellings of unknown languages that are named there, the most frequent ones.
UNKNOWN_LANGUAGES = 20


@contextmanager
def hold_source(order: Order) -> Iterator[Callable[[], None]]:
    """Be the only run of this source and destination inside the block: two would pay for the same requests.

    A second one waits, and then finds what the first has published. A preview waits
    only while a description is erased. Where an error of ours ends the block, nothing of the run stays under
    staging/, but for the judged rows that its message says to read.
    """
    storage.require_bucket(order.destination)
    with _hold_preview(order) if order.limit else _hold(order, order.layout.source_lease(order.source)) as held:
        try:
            yield held.check
        except RejectedError:
            raise
        except (PairmillError, OSError):
            with suppress(StorageError):  # maintain removes what is left
                storage.delete_prefix(order.staging)
            raise


def _hold(order: Order, uri: str) -> AbstractContextManager[Lease]:
    return hold_lease(uri, order.run_id, on_wait=partial(progress.begin, "wait"))


@contextmanager
def _hold_preview(order: Order) -> Iterator[Lease]:
    """Be at work in sight of whoever erases a description, who waits for a preview as for any run."""
    while True:
        with _hold(order, order.layout.preview_lease(order.run_id)) as held:
            if storage.find_bytes(order.layout.forget_lease) is None:
                yield held
                return
        # It goes first; holding both, each would wait for the other.
        with _hold(order, order.layout.forget_lease):
            pass


@step("extract", "extract descriptions", retries=3)
def extract_task_descriptions(order: Order) -> Plan:
    """Stage the requests that `order` still wants for the descriptions of its source.

    Writes one Parquet object a shard under staging/: the columns of REQUESTS, the
    source's own, COMPLETIONS (null where the journal has none) and `cached`, in
    the order of the source's objects and lines.

    Returns:
        Where the shards lie and what was counted, never rows.

    Raises:
        SourceError: Nothing to read, or an object that cannot be read.
        SchemaError: A source column does not fit the published table.
        StorageError: Bucket, credentials or endpoint.
    """
    progress.begin("extract")
    objects = list_source(order.source, order.destination)
    with tempfile.TemporaryDirectory(prefix="pairmill-") as folder:
        found = read_descriptions(objects, Path(folder), order)
        requests = Scratch(Path(folder))
        publishing.settle(order.layout, order.partition, order.run_id)
        # One plan after the other: the later one leaves out what the earlier one claims.
        with nullcontext() if order.limit else hold_lease(order.layout.plan_lease, order.run_id):
            if (now := list_source(order.source, order.destination)) != objects:
                # What was erased from it while this run waited is not planned any more.
                found = read_descriptions(now, Path(folder), order)
            plan, used = plan_into(requests, order, found)
            plan = dataclasses.replace(plan, used_uri=_stage_used(order, used) if requests.rows else "")
            shards = tuple(stage_shards(order, requests))
    cached = sum(shard.cached for shard in shards)
    get_run_logger().info(
        "%d descriptions, %d requests, %d of them in the journal", plan.descriptions, plan.requests, cached
    )
    return dataclasses.replace(plan, shards=shards, cached=cached)


def plan_into(
    requests: Scratch,
    order: Order,
    found: Descriptions,
    find_living: Callable[[Collection[str]], set[str]] = find_renewed,
) -> tuple[Plan, pl.DataFrame]:
    """Append the wanted requests to `requests`, and count what was found; writes nothing elsewhere.

    `find_living` tells the leases of other runs that are at work.

    Returns:
        The plan, without its shards, and the samples that are used up (USED).

    Raises:
        StoppedError: A redo meets another run's descriptions.
    """
    numbers = pl.concat(frame.select(number=number_hashes(pl.col("description_hash"))) for frame in found.frames())
    languages = {*order.languages, *found.languages}
    claimed = pl.DataFrame(schema=CLAIMED) if order.limit else find_claimed(order, numbers, languages, find_living)
    if order.on_published == "redo" and claimed.height:
        # What it left to the other run, it would remove from the partition that it replaces.
        raise StoppedError(
            f"Another run makes pairs for {claimed.height:,} of these descriptions x languages, and a redo replaces "
            f"all of {order.partition}. Run again when it has ended."
        )
    pairs, rejected = table.open_table(order.layout.pairs), table.open_table(order.layout.rejected)
    found.fit(table.read_schema(rejected) | table.read_schema(pairs), order.destination)
    served = find_served(pairs, numbers, languages, order)
    judged = find_judged(pairs, rejected, numbers, served, order)
    descriptions = numbers["number"].n_unique() if found.languages else numbers.height
    del numbers  # the one thing here that grows with the source
    wanted = already_served = left_to_others = taken = 0
    used, given_up = [pl.DataFrame(schema=USED)], _GivenUp()
    for frame in _choose(found, served, order):
        taken += frame.height
        for planned in plan_requests(frame, served, judged, claimed, order):
            requests.append(planned.requests)
            wanted += planned.wanted
            already_served += planned.served
            left_to_others += planned.claimed
            used.append(planned.used)
            given_up.add(planned.given_up)
    before = pl.concat(used)
    plan = Plan(
        descriptions=taken if order.limit else descriptions,
        blank=found.blank,
        repeated=found.repeated,
        unknown_languages=dict(found.unknown_languages.most_common(UNKNOWN_LANGUAGES)),
        already_served=already_served,
        already_rejected=before["reason"].count(),
        claimed=left_to_others,
        given_up=given_up.groups,
        given_up_pairs=given_up.pairs,
        given_up_examples=tuple(given_up.examples),
        wanted=wanted,
        requests=requests.rows,
        pairs_version=pairs.version() if pairs is not None else -1,
        source_columns=tuple(found.spelled.values()),
        objects=tuple({"uri": item.uri, "etag": item.etag, "size": item.size} for item in found.objects),
        source_changes=find_source_changes([pairs, rejected], order, found.objects),
    )
    return plan, before


def _choose(found: Descriptions, served: pl.DataFrame, order: Order) -> Iterator[pl.DataFrame]:
    """Yield the descriptions that are planned for: all, or of a preview the first ones that are not served."""
    left = order.limit
    for frame in found.frames():
        if not order.limit:
            yield frame
        elif left > 0:
            some = find_lacking(frame, served, order).head(left)
            left -= some.height
            yield some


def _stage_used(order: Order, used: pl.DataFrame) -> str:
    """Keep the samples that are used up for the rounds to come; empty where there are none."""
    if not used.height:
        return ""
    uri = f"{order.staging}/used.parquet"
    frames.write_frame(used, uri)
    return uri


class _GivenUp:
    """Counts what cannot be served any more."""

    def __init__(self) -> None:
        self.groups = 0
        self.pairs: Counter[tuple[str, str]] = Counter()
        self.examples: list[dict[str, Any]] = []

    def add(self, given_up: pl.DataFrame) -> None:
        self.groups += given_up.height
        pairs = given_up.group_by("language", "reason").agg(pl.col("missing").sum())
        self.pairs.update({(language, reason): missing for language, reason, missing in pairs.iter_rows()})
        self.examples += given_up.head(GIVEN_UP_EXAMPLES - len(self.examples)).to_dicts()
