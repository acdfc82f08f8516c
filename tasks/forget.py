"""Erases one task description from a destination, with all that was generated for it."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import polars as pl

from tasks.clients import batch_records, compaction, erasure, publishing, storage, table
from tasks.clients.lease import hold_lease
from tasks.clients.leftovers import upload_leftovers
from tasks.clients.lookup import find_recipes, find_segments
from tasks.clients.storage import list_folder
from tasks.core.card import make_card
from tasks.core.columns import TEXTS
from tasks.core.exports import ExportReport
from tasks.core.layout import TABLES, Layout
from tasks.core.requests import hash_descriptions, lists_descriptions, possible_keys
from tasks.core.upkeep import check_forgotten, say_done
from tasks.policy import step


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
        tables = [item.uri for name in TABLES for item in list_folder(f"{layout.destination}/{name}")]
        staged = [item.uri for item in list_folder(f"{layout.destination}/staging")]
        found = erasure.find_rows([uri for uri in tables + staged if uri.endswith(".parquet")], digest)
        pairs = found.select(name for name in TEXTS if name in found.columns).drop_nulls()
        replies = frozenset(found["text"].drop_nulls()) if "text" in found.columns else frozenset[str]()
        forgotten = erasure.Forgotten(description, digest, frozenset(pairs.iter_rows()), replies)
        done = _forget_in_tables(layout, digest)
        done += _forget_in_journal(layout, owner, description, found["request_key"])
        left = [uri for uri in staged if not uri.endswith(".lease")]
        storage.delete_objects(left)
        done += say_done(len(left), "staged objects of ended runs", "removed")
        told = _forget_in_reports(layout, forgotten)
        copies, rows = _forget_in_copies(layout, forgotten)
        done += told + copies
    rows += found.height + len(told)
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
                found = {item.uri for item in list_folder(f"{layout.destination}/staging")}
                begun = {uri for uri in found if uri.startswith(layout.source_leases)} - held_sources
                if not begun:
                    yield
                    return
            # These may have planned, or wait to: they go first.
            for uri in sorted(begun):
                held.enter_context(hold_lease(uri, owner))
            held_sources |= begun


def _forget_in_tables(layout: Layout, digest: str) -> list[str]:
    done = []
    for name in TABLES:
        uri = f"{layout.destination}/{name}"
        rows = table.delete_rows(uri, f"description_hash = '{digest}'")
        done += say_done(rows, f"rows of {name}", "erased")
        if table.drop_history(uri):
            done.append(f"{uri}: every version before this one was removed")
    return done


def _forget_in_journal(layout: Layout, owner: str, description: str, known: pl.Series) -> list[str]:
    done = []
    for uri in find_recipes(layout):
        recipe = storage.find_bytes(f"{uri}/recipe.json")
        lists = recipe is not None and lists_descriptions(recipe[0])
        possible = possible_keys(recipe[0], description) if recipe and not lists else []
        keys = pl.Series([*known, *possible], dtype=pl.String)
        waiting = batch_records.forget_keys(f"{uri}/batches", set(keys))
        done += say_done(waiting, "requests of batches that are at the provider", "given up")
        # A compaction beside this would write again what it has read before.
        with hold_lease(compaction.lease_of(uri), owner):
            for file in find_segments(uri):
                rows = erasure.erase_completions(file, keys, description if lists else "")
                done += [f"{file}: {rows:,} completions erased"] if rows else []
    return done


def _forget_in_reports(layout: Layout, forgotten: erasure.Forgotten) -> list[str]:
    """Erase it in the reports; those for people to read are removed, and their figures stay in the JSON."""
    done = []
    for item in list_folder(f"{layout.destination}/runs"):
        if not item.uri.endswith(".json"):
            if erasure.shows(storage.read_bytes(item.uri), forgotten):
                storage.delete_objects([item.uri])
                done.append(f"{item.uri}: removed")
        elif removed := erasure.erase_description(item.uri, forgotten):
            done.append(f"{item.uri}: rows erased: {removed:,}")
    return done


def _forget_in_copies(layout: Layout, forgotten: erasure.Forgotten) -> tuple[list[str], int]:
    """Erase it in brainstormed descriptions and exports.

    Returns:
        What was touched, and how many rows were erased.
    """
    done, rows, exports = list[str](), 0, set[str]()
    for part in ("tasks", "rejected-tasks", "exports"):
        for item in list_folder(f"{layout.destination}/{part}"):
            removed = erasure.erase_description(item.uri, forgotten)
            if removed is None:
                done.append(f"{item.uri}: holds it, and has to be edited by hand")
            elif removed:
                done.append(f"{item.uri}: rows erased: {removed:,}")
                rows += removed
                if part == "exports":
                    exports.add(item.uri.removeprefix(f"{layout.destination}/exports/").partition("/")[0])
                if item.uri.endswith("/export.json"):
                    report = ExportReport(**json.loads(storage.read_bytes(item.uri))["report"])
                    storage.write_bytes(f"{item.uri.removesuffix('export.json')}README.md", make_card(report).encode())
    stale = "its card shows figures of before; make a new export and remove this one"
    return [*done, *(f"exports/{version}: {stale}" for version in sorted(exports))], rows
