"""Upkeep of a destination: smaller, faster to read, and without what is too old."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tasks.clients import batch_records, compaction, publishing, storage, table_upkeep
from tasks.clients.claims import find_living
from tasks.clients.lease import hold_lease
from tasks.clients.lookup import find_recipes
from tasks.clients.storage import StoredObject, list_folder
from tasks.core.layout import TABLES, Layout
from tasks.core.upkeep import say_done
from tasks.policy import step
from tasks.progress import progress


@dataclass(frozen=True)
class Ages:
    """How many days each part is kept; 0 keeps it for ever, and no less than a day of a table's history goes."""

    staging: int
    history: int
    rejected: int
    reports: int
    journal: int


@step("measure", "measure destination", retries=3)
def measure(layout: Layout) -> int:
    """Return the bytes of everything under a destination."""
    return sum(item.size for item in list_folder(layout.destination))


@step("maintain", "maintain destination", retries=3)
def tidy_destination(layout: Layout, owner: str, ages: Ages, done: list[str] | None = None) -> list[str]:
    """Compact the journal and both tables, and remove what is older than `ages`; a night may run meanwhile.

    Args:
        layout: The destination.
        owner: Who does it.
        ages: How long each part is kept.
        done: Where what is done is noted; it is kept from one try of this step to the next.

    Returns:
        What was done, one sentence each.

    Raises:
        StorageError: The bucket does not take it; what was done so far holds, run again.
    """
    progress.begin("maintain")
    now = datetime.now(UTC)
    done = [] if done is None else done
    done += _compact_journal(layout, owner, now, ages.journal)
    _tidy_tables(layout, owner, now, ages, done)
    done += _expire_staging(layout, now, ages.staging)
    old = [item.uri for item in list_folder(f"{layout.destination}/runs") if _is_old(item, now, ages.reports)]
    storage.delete_objects(old)
    done += say_done(len(old), "report", "removed")
    return done


def _compact_journal(layout: Layout, owner: str, now: datetime, days: int) -> list[str]:
    oldest = now - timedelta(days=days) if days else None
    recipes = find_recipes(layout)
    done = [compaction.compact_recipe(uri, owner, now, oldest) for uri in recipes]
    collected = [item for uri in recipes for item in batch_records.find_collected(f"{uri}/batches")]
    old = [item.uri for item in collected if _is_old(item, now, days)]
    storage.delete_objects(old)
    merged, deleted = sum(one.merged for one in done), sum(one.deleted for one in done)
    return [
        *say_done(merged, "file", "of the journal merged"),
        *say_done(deleted, "file", "of the journal removed"),
        *say_done(len(old), "record", "of batches removed"),
    ]


def _tidy_tables(layout: Layout, owner: str, now: datetime, ages: Ages, done: list[str]) -> None:
    with hold_lease(layout.lease, owner) as lease:
        publishing.settle_all(layout, owner)
        if ages.rejected:
            day = f"{now - timedelta(days=ages.rejected):%Y-%m-%d}"
            rows = table_upkeep.delete_rows(layout.rejected, f"partition < '{day}'")
            done += say_done(rows, "rejected row", f"of before {day} removed")
        for name in TABLES:
            lease.check()
            merged, removed = table_upkeep.tidy(f"{layout.destination}/{name}", max(1, ages.history))
            done += say_done(merged, "file", f"of {name} merged")
            done += say_done(removed, "superseded file", f"of {name} removed")


def _expire_staging(layout: Layout, now: datetime, days: int) -> list[str]:
    """Remove what ended runs have left; one that waits for a batch writes nothing there for hours or days."""
    runs: defaultdict[str, list[StoredObject]] = defaultdict(list)
    for item in list_folder(f"{layout.destination}/staging"):
        partition, run, *_ = [*item.uri.removeprefix(f"{layout.destination}/staging/").split("/"), ""]
        runs[f"{partition}/{run}"].append(item)
    old = {run: items for run, items in runs.items() if all(_is_old(item, now, days) for item in items)}
    living = find_living(layout, {run.rpartition("/")[2] for run in old})
    gone = [
        items
        for run, items in old.items()
        if run.rpartition("/")[2] not in living.values() and not any(item.uri in living for item in items)
    ]
    storage.delete_objects([item.uri for items in gone for item in items])
    return say_done(len(gone), "staging folder", "of ended runs removed")


def _is_old(item: StoredObject, now: datetime, days: int) -> bool:
    return days > 0 and item.modified < now - timedelta(days=days)
