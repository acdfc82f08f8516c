"""Erases one task description from a destination, with all that was generated for it, while no run is at work."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import polars as pl

from tasks.clients import batch_records, compaction, erasure, publishing, storage, table_upkeep
from tasks.clients.documents import read_document
from tasks.clients.lease import Lease, hold_lease
from tasks.clients.leftovers import upload_leftovers
from tasks.clients.lookup import find_recipes, find_segments, whole_segments
from tasks.clients.storage import list_folder
from tasks.clients.storage_errors import DamagedError
from tasks.core.card import make_card
from tasks.core.columns import TEXTS
from tasks.core.counting import counted
from tasks.core.exports import ExportReport
from tasks.core.layout import TABLES, Layout
from tasks.core.requests import hash_descriptions, lists_descriptions, possible_keys
from tasks.core.upkeep import Forgetting, check_forgotten, say_done
from tasks.policy import step
from tasks.progress import progress

# Raises where a lease was lost: another run may be at work then.
Check = Callable[[], None]


@step("forget", "forget description", retries=3)
def forget_description(layout: Layout, owner: str, text: str, told: Forgetting | None = None) -> Forgetting:
    """Erase one task description and all that was generated for it, with the tables' history.

    Waits until no run of the destination is at work, and one that begins meanwhile plans
    afterwards. A source elsewhere is not touched, nor what Prefect has stored of earlier runs.

    Args:
        layout: The destination.
        owner: Who does it.
        text: The description.
        told: Where what is done is noted; it is kept from one try of this step to the next.

    Returns:
        Whether any of it was found, what was done, and what is left to do by hand.

    Raises:
        UsageError: The text is blank.
        StorageError: The bucket does not take it, or a lease was lost; run again, until nothing is found.
    """
    progress.begin("forget")
    description, told = check_forgotten(text), told or Forgetting()
    (digest,) = hash_descriptions([description])
    with _hold_all_runs(layout, owner) as check:
        publishing.settle_all(layout, owner)
        upload_leftovers(layout.journal("any"))
        staged = [item.uri for item in list_folder(f"{layout.destination}/staging")]
        rows = _find_rows(layout, staged, digest)
        pairs = rows.select(name for name in TEXTS if name in rows.columns).drop_nulls()
        replies = frozenset(rows["text"].drop_nulls()) if "text" in rows.columns else frozenset[str]()
        forgotten = erasure.Forgotten(description, digest, frozenset(pairs.iter_rows()), replies)
        told.found |= rows.height > 0
        # The tables and what is staged tell what belongs to it, also to the next try: they go last.
        _forget_in_reports(layout, forgotten, check, told)
        _forget_in_copies(layout, forgotten, check, told)
        told.erased([*_forget_in_journal(layout, owner, description, rows["request_key"], check)])
        told.done += _forget_in_staging([uri for uri in staged if not uri.endswith(".lease")], check)
        _forget_in_tables(layout, digest, check, told)
    told.left = list(dict.fromkeys(told.left))
    told.left.append(
        "A source elsewhere was not touched: remove the description there too, or the next run asks for it again"
        if told.found
        else "Nothing here belongs to that description: its text must be that of the source, letter by letter"
    )
    return told


@contextmanager
def _hold_all_runs(layout: Layout, owner: str) -> Iterator[Check]:
    """Let no run plan or publish inside the block, nor one that has planned be at work."""
    leases = dict[str, Lease]()

    def check() -> None:
        for lease in leases.values():
            lease.check()

    with ExitStack() as held:

        def hold(uri: str) -> None:
            leases[uri] = held.enter_context(hold_lease(uri, owner))

        # One at a time: two would wait for each other's sources.
        hold(layout.forget_lease)
        while True:
            with hold_lease(layout.plan_lease, owner) as lease:
                found = {item.uri for item in list_folder(f"{layout.destination}/staging")}
                begun = {uri for uri in found if uri.startswith(layout.run_leases)} - leases.keys()
                if not begun:
                    hold(layout.lease)
                    leases[layout.plan_lease] = lease
                    yield check
                    return
            # These may have planned, or wait to: they go first.
            for uri in sorted(begun):
                hold(uri)


def _find_rows(layout: Layout, staged: list[str], digest: str) -> pl.DataFrame:
    tables = [item.uri for name in TABLES for item in list_folder(f"{layout.destination}/{name}")]
    return erasure.find_rows([uri for uri in tables + staged if uri.endswith(".parquet")], digest)


def _erase(uri: str, forgotten: erasure.Forgotten, told: Forgetting) -> int:
    """Erase it in one object; return how many rows or items that were."""
    removed = erasure.erase_description(uri, forgotten)
    if isinstance(removed, int):
        told.erased([f"{uri}: rows erased: {removed:,}"] if removed else [])
        return removed
    told.found |= removed == "holds it"
    told.left.append(f"{uri}: {removed}, and has to be edited by hand")
    return 0


def _forget_in_reports(layout: Layout, forgotten: erasure.Forgotten, check: Check, told: Forgetting) -> None:
    """Erase it in the reports; those for people to read are removed, and their figures stay in the JSON."""
    for item in list_folder(f"{layout.destination}/runs"):
        check()
        if item.uri.endswith(".json"):
            _erase(item.uri, forgotten, told)
        elif erasure.shows(storage.read_bytes(item.uri), forgotten):
            storage.delete_objects([item.uri])
            told.erased([f"{item.uri}: removed"])


def _forget_in_copies(layout: Layout, forgotten: erasure.Forgotten, check: Check, told: Forgetting) -> None:
    """Erase it in brainstormed descriptions and in exports, whose cards are made anew."""
    exports = set[str]()
    for part in ("tasks", "rejected-tasks", "exports"):
        for item in list_folder(f"{layout.destination}/{part}"):
            check()
            removed = _erase(item.uri, forgotten, told)
            if part == "exports" and removed:
                exports.add(item.uri.removeprefix(f"{layout.destination}/exports/").partition("/")[0])
            if removed and item.uri.endswith("/export.json"):
                report = ExportReport(**read_document(item.uri, "report")["report"])
                storage.write_bytes(f"{item.uri.removesuffix('export.json')}README.md", make_card(report).encode())
    for version in sorted(exports):
        told.left.append(f"exports/{version}: its card shows figures of before; make a new export and remove this one")


def _forget_in_journal(layout: Layout, owner: str, description: str, known: pl.Series, check: Check) -> Iterator[str]:
    for uri in find_recipes(layout):
        lists, possible = _read_recipe(f"{uri}/recipe.json", description)
        keys = pl.Series([*known, *possible], dtype=pl.String)
        check()
        waiting = batch_records.forget_keys(f"{uri}/batches", set(keys))
        yield from say_done(waiting, "request", "of batches that are at the provider given up")
        # A compaction beside this would write again what it has read before.
        with hold_lease(compaction.lease_of(uri), owner) as lease:
            for file in find_segments(uri):
                lease.check()
                check()
                with whole_segments(file):
                    rows = erasure.erase_completions(file, keys, description if lists else "")
                if rows:
                    yield f"{file}: {counted(rows, 'completion')} erased"


def _read_recipe(uri: str, description: str) -> tuple[bool, list[str]]:
    """Return whether a recipe's completions are lists of descriptions, and the keys it may have for this one if not."""
    recipe = storage.find_bytes(uri)
    if recipe is None:
        return False, []
    try:
        lists = lists_descriptions(recipe[0])
        return lists, [] if lists else possible_keys(recipe[0], description)
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise DamagedError(
            f"{uri} is no whole recipe. Restore it from the bucket's versions, or remove the folder that it is in "
            "with what was paid for there; then run again."
        ) from error


def _forget_in_staging(left: list[str], check: Check) -> list[str]:
    check()
    storage.delete_objects(left)
    return say_done(len(left), "staged object", "of ended runs removed")


def _forget_in_tables(layout: Layout, digest: str, check: Check, told: Forgetting) -> None:
    for name in TABLES:
        uri = f"{layout.destination}/{name}"
        check()
        rows = table_upkeep.delete_rows(uri, f"description_hash = '{digest}'")
        told.erased(say_done(rows, "row", f"of {name} erased"))
        # It removes the files of whoever has not committed them yet.
        check()
        if table_upkeep.drop_history(uri):
            told.done.append(f"{uri}: every version before this one was removed")
