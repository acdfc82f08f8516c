"""The step before the first: task descriptions out of nothing, into the destination's bucket."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
from prefect import get_run_logger

from tasks.clients import source, storage
from tasks.clients.attempts import Request
from tasks.clients.lookup import find_paid
from tasks.core.brainstorming import LIST_LENGTH, Brainstorm, ListRequest, brings_little, most_lists, request_lists
from tasks.core.findings import BrainstormReport, Findings, ListRound, report_findings
from tasks.core.linting import Linter
from tasks.core.parsing import parse_list
from tasks.policy import step
from tasks.progress import progress
from tasks.shared_model import Model

# Lists asked for at once: enough to keep a provider busy, few enough to notice that nothing new comes.
MOST_LISTS_AT_ONCE = 50


@step("brainstorm", "brainstorm descriptions", retries=3)
def gather_task_descriptions(
    wish: Brainstorm, model: Model, check: Callable[[], None] = lambda: None
) -> BrainstormReport:
    """Bring the task descriptions at the order's source to `wanted`, each with the setting it came from.

    Lists are asked for in rounds, until there are enough, or a round brings hardly
    anything new. Writes one JSONL object of new descriptions, named so that it is
    read after those before it, and one of those turned down, with reasons. `check` raises
    where another run may have taken this one's place: it is asked before each round and
    before anything is written.

    Raises:
        UsageError, ModelError, StoppedError: The run is over; what was paid for is in the journal.
        StorageError: Bucket, credentials or endpoint.
    """
    order = wish.order
    progress.begin("brainstorm", wish.wanted)
    storage.require_bucket(order.destination)
    # What an earlier try of this step has paid for may still be on its way there.
    model.flush()
    linter = Linter()
    found = Findings(wish.wanted, linter.remember(read_known(order.source, order.run_id)))
    _ask(wish, model, linter, found, check)
    check()
    uri = f"{order.source}/{found.before:09}-{order.run_id}.jsonl"
    for name, rows in ((uri, found.kept), (order.layout.rejected_tasks(order.run_id), found.rejected)):
        if rows:
            storage.write_bytes(name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    report = report_findings(
        wish, found, uri=uri if found.kept else "", spent_usd=model.spent_usd, finished_at=datetime.now(UTC)
    )
    storage.write_bytes(order.layout.report(order.run_id), report.model_dump_json(indent=1).encode())
    get_run_logger().info("%d descriptions, %d of them new, from %d lists", report.total, report.added, report.lists)
    return report


def _ask(wish: Brainstorm, model: Model, linter: Linter, found: Findings, check: Callable[[], None]) -> None:
    progress.cached, progress.paid = found.before, lambda: len(found.kept)
    most = most_lists(wish)
    # Knows only these lists: what is new among them is the same whatever the bucket holds by now.
    sequence = Linter()
    while found.missing > 0:
        count = min(ceil(found.missing / LIST_LENGTH), MOST_LISTS_AT_ONCE, most - found.lists)
        if count <= 0:
            found.stopped = "most lists"
            return
        check()
        requests = request_lists(wish, found.lists, count)
        completions = _complete(wish, model, requests)
        found.completions += completions
        found.lists += count
        items, fresh = 0, list[bool]()
        for request, completion in zip(requests, completions, strict=True):
            judged = list(_read(completion, linter, sequence))
            described = [is_new for _, _, is_new in judged if is_new is not None]
            found.barren = 0 if described else found.barren + 1
            items += len(judged)
            fresh += described
            for text, reasons, _ in judged:
                found.sort(wish, request, text, reasons)
        found.rounds.append(ListRound(lists=count, items=items, new=sum(fresh)))
        if found.missing > 0 and brings_little(sum(fresh), len(fresh), found.barren):
            found.stopped = "little new"
            return


def _complete(wish: Brainstorm, model: Model, requests: list[ListRequest]) -> list[dict[str, Any]]:
    """Return a completion for each request, from the journal or paid; `cached` was paid for before this run."""
    keys = pl.LazyFrame({"request_key": [request.key for request in requests]})
    known = find_paid(wish.order.journal_of(wish.order.recipe.model_name), keys)
    known = known.with_columns(cached=pl.col("completed_at") < wish.order.started_at)
    found = {row.pop("request_key"): row for row in known.iter_rows(named=True)}
    wanted = [request for request in requests if request.key not in found]
    if wanted:
        counted, client = progress.paid, model()
        progress.paid = counted  # an opened client counts lists
        paid = client.complete([Request(request.key, request.prompt) for request in wanted])
        found |= {request.key: row | {"cached": False} for request, row in zip(wanted, paid, strict=True)}
    return [found[request.key] for request in requests]


def _read(completion: dict[str, Any], linter: Linter, sequence: Linter) -> Iterator[tuple[str, list[str], bool | None]]:
    """Yield each description of a list, the reasons against it, and whether it is new to `sequence`.

    A list that is none is one row, and None says so.
    """
    text = completion["text"]
    items = parse_list(text) if text is not None and completion["finish_reason"] != "length" else None
    if items is not None:
        for (item, reasons), (_, faults) in zip(linter.judge(items), sequence.judge(items), strict=True):
            yield item, reasons, not faults
    elif completion["error"] is not None:
        yield "", [completion["error"]], None
    else:
        yield text or "", ["truncated" if completion["finish_reason"] == "length" else "not_a_list"], None


def read_known(uri: str, run_id: str) -> Iterator[str]:
    """Yield the descriptions under `uri`, without those that an attempt of this run has written."""
    with TemporaryDirectory(prefix="pairmill-") as folder:
        local = Path(folder) / "object"
        for item in storage.list_objects(uri):
            if source.source_format(item.uri) and not item.uri.endswith(f"-{run_id}.jsonl"):
                storage.download(item, local)
                for batch in source.read_batches(local, item.uri):
                    yield from batch["task"].drop_nulls()
