"""Upkeep of a destination: smaller, faster to read, and without what is too old or must go."""

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl

from tasks.clients import batch_records, compaction, erasure, publishing, storage, table
from tasks.clients.claims import find_living
from tasks.clients.lease import hold_lease
from tasks.clients.leftovers import upload_leftovers
from tasks.clients.lookup import find_segments
from tasks.clients.storage import StoredObject
from tasks.core.card import make_card
from tasks.core.columns import TEXTS
from tasks.core.exports import ExportReport
from tasks.core.layout import Layout
from tasks.core.requests import hash_descriptions, lists_descriptions, possible_keys
from tasks.core.upkeep import check_forgotten
from tasks.policy import step

TABLES = ("pairs", "rejected")


@dataclass(frozen=True)
class Ages:
    """How many days each part is kept; 0 keeps it for ever, and no less than a day of a table's history goes."""

    staging: int
    history: int
    rejected: int
    reports: int
    journal: int


def measure(layout: Layout) -> int:
    """Return the bytes of everything under a destination."""
    return sum(item.size for item in _list(layout.destination))


@step("maintain", "maintain destination")
def tidy_destination(layout: Layout, owner: str, ages: Ages) -> list[str]:
    """Compact the journal and both tables, and remove what is older than `ages`; a night may run meanwhile.

    Returns:
        What was done, one sentence each.

    Raises:
        StorageError: The bucket does not take it; what was done so far holds, run again.
    """
    now = datetime.now(UTC)
    done = [*_compact_journal(layout, owner, now, ages.journal), *_tidy_tables(layout, owner, now, ages)]
    done += _expire_staging(layout, now, ages.staging)
    old = [item.uri for item in _list(f"{layout.destination}/runs") if _is_old(item, now, ages.reports)]
    storage.delete_objects(old)
    return done + _say(len(old), "reports", "removed")


@step("forget", "forget description")
def forget_description(layout: Layout, owner: str, text: str) -> list[str]:
    """Erase one task description and all that was generated for it, with the tables' history.

    Waits until no run of the destination is at work, and one that begins meanwhile plans
    afterwards. A source elsewhere is not touched, nor what Prefect has stored of earlier runs.

    Returns:
        What was touched, one sentence each.

    Raises:
        UsageError: The text is blank.
        StorageError: The bucket does not take it; run again, until nothing is found.
    """
    description = check_forgotten(text)
    (digest,) = hash_descriptions([description])
    with _hold_all_runs(layout, owner), hold_lease(layout.lease, owner):
        publishing.settle_all(layout, owner)
        upload_leftovers(layout.journal("any"))
        tables = [item.uri for name in TABLES for item in _list(f"{layout.destination}/{name}")]
        staged = [item.uri for item in _list(f"{layout.destination}/staging")]
        found = erasure.find_rows([uri for uri in tables + staged if uri.endswith(".parquet")], digest)
        pairs = found.select(name for name in TEXTS if name in found.columns).drop_nulls()
        replies = frozenset(found["text"].drop_nulls()) if "text" in found.columns else frozenset[str]()
        forgotten = erasure.Forgotten(description, digest, frozenset(pairs.iter_rows()), replies)
        done = _forget_in_tables(layout, digest)
        done += _forget_in_journal(layout, owner, description, found["request_key"])
        for uri in staged:
            if not uri.endswith(".lease"):
                storage.delete_objects([uri])
        done += _say(sum(not uri.endswith(".lease") for uri in staged), "staged objects of ended runs", "removed")
        told = _forget_in_reports(layout, forgotten)
        exports, rows = set[str](), found.height + len(told)
        done += told
        for part in ("tasks", "rejected-tasks", "exports"):
            for item in _list(f"{layout.destination}/{part}"):
                removed = erasure.erase_description(item.uri, forgotten)
                done += [f"{item.uri}: holds it, and has to be edited by hand"] if removed is None else []
                done += [f"{item.uri}: rows erased: {removed:,}"] if removed else []
                rows += removed or 0
                if part == "exports" and removed:
                    exports.add(item.uri.removeprefix(f"{layout.destination}/exports/").partition("/")[0])
                if removed and item.uri.endswith("/export.json"):
                    report = ExportReport(**json.loads(storage.read_bytes(item.uri))["report"])
                    storage.write_bytes(f"{item.uri.removesuffix('export.json')}README.md", make_card(report).encode())
    done += [
        f"exports/{version}: its card shows figures of before; make a new export and remove this one"
        for version in sorted(exports)
    ]
    if rows:
        done += [
            "A source elsewhere was not touched: remove the description there too, or the next run asks for it again"
        ]
    else:
        done += ["No row here belongs to this description: its text must be that of the source, letter by letter"]
    return done


@contextmanager
def _hold_all_runs(layout: Layout, owner: str) -> Iterator[None]:
    """Let no run plan inside the block, nor one that has planned be at work."""
    held_sources = set[str]()
    # One at a time: two would wait for each other's sources.
    with hold_lease(layout.forget_lease, owner), ExitStack() as held:
        while True:
            with hold_lease(layout.plan_lease, owner):
                found = {item.uri for item in _list(f"{layout.destination}/staging")}
                begun = {uri for uri in found if uri.startswith(layout.source_leases)} - held_sources
                if not begun:
                    yield
                    return
            # These may have planned, or wait to: they go first.
            for uri in sorted(begun):
                held.enter_context(hold_lease(uri, owner))
            held_sources |= begun


def _compact_journal(layout: Layout, owner: str, now: datetime, days: int) -> list[str]:
    oldest = now - timedelta(days=days) if days else None
    done = [compaction.compact_recipe(uri, owner, now, oldest) for uri in _recipes(layout)]
    old = [item.uri for uri in _recipes(layout) for item in _list(f"{uri}/batches") if _is_old(item, now, days)]
    storage.delete_objects(old)
    merged, deleted = sum(one.merged for one in done), sum(one.deleted for one in done)
    return [
        *_say(merged, "files of the journal", "merged"),
        *_say(deleted, "files of the journal", "removed"),
        *_say(len(old), "records of batches", "removed"),
    ]


def _recipes(layout: Layout) -> list[str]:
    uri = f"{layout.destination}/journal"
    names = {item.uri.removeprefix(f"{uri}/").partition("/")[0] for item in _list(uri)}
    return [f"{uri}/{name}" for name in sorted(names) if name.startswith("recipe=")]


def _tidy_tables(layout: Layout, owner: str, now: datetime, ages: Ages) -> list[str]:
    done = []
    with hold_lease(layout.lease, owner) as lease:
        publishing.settle_all(layout, owner)
        if ages.rejected:
            day = f"{now - timedelta(days=ages.rejected):%Y-%m-%d}"
            rows = table.delete_rows(layout.rejected, f"partition < '{day}'")
            done += _say(rows, f"rejected rows of before {day}", "removed")
        for name in TABLES:
            lease.check()
            merged, removed = table.tidy(f"{layout.destination}/{name}", max(1, ages.history))
            done += _say(merged, f"files of {name}", "merged") + _say(removed, f"superseded files of {name}", "removed")
    return done


def _expire_staging(layout: Layout, now: datetime, days: int) -> list[str]:
    """Remove what ended runs have left; one that waits for a batch writes nothing there for hours or days."""
    runs: defaultdict[str, list[StoredObject]] = defaultdict(list)
    for item in _list(f"{layout.destination}/staging"):
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
    return _say(len(gone), "staging folders of ended runs", "removed")


def _forget_in_tables(layout: Layout, digest: str) -> list[str]:
    done = []
    for name in TABLES:
        uri = f"{layout.destination}/{name}"
        rows = table.delete_rows(uri, f"description_hash = '{digest}'")
        done += _say(rows, f"rows of {name}", "erased")
        if table.drop_history(uri):
            done.append(f"{uri}: every version before this one was removed")
    return done


def _forget_in_journal(layout: Layout, owner: str, description: str, known: pl.Series) -> list[str]:
    done = []
    for uri in _recipes(layout):
        recipe = storage.find_bytes(f"{uri}/recipe.json")
        lists = recipe is not None and lists_descriptions(recipe[0])
        possible = possible_keys(recipe[0], description) if recipe and not lists else []
        keys = pl.Series([*known, *possible], dtype=pl.String)
        waiting = batch_records.forget_keys(f"{uri}/batches", set(keys))
        done += _say(waiting, "requests of batches that are at the provider", "given up")
        # A compaction beside this would write again what it has read before.
        with hold_lease(compaction.lease_of(uri), owner):
            for file in find_segments(uri):
                rows = erasure.erase_completions(file, keys, description if lists else "")
                done += [f"{file}: {rows:,} completions erased"] if rows else []
    return done


def _forget_in_reports(layout: Layout, forgotten: erasure.Forgotten) -> list[str]:
    """Erase it in the reports; those for people to read are removed, and their figures stay in the JSON."""
    done = []
    for item in _list(f"{layout.destination}/runs"):
        if not item.uri.endswith(".json"):
            if erasure.shows(storage.read_bytes(item.uri), forgotten):
                storage.delete_objects([item.uri])
                done.append(f"{item.uri}: removed")
        elif removed := erasure.erase_description(item.uri, forgotten):
            done.append(f"{item.uri}: rows erased: {removed:,}")
    return done


def _list(uri: str) -> list[StoredObject]:
    return [item for item in storage.list_objects(uri) if item.uri.startswith(f"{uri}/")]


def _is_old(item: StoredObject, now: datetime, days: int) -> bool:
    return days > 0 and item.modified < now - timedelta(days=days)


def _say(count: int, what: str, verb: str) -> list[str]:
    return [f"{count:,} {what} {verb}"] if count else []
