"""Writes an export: an immutable snapshot of the published pairs in the formats that people train on."""

import dataclasses
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
from prefect import get_run_logger

from tasks.clients import frames, storage, table
from tasks.clients.documents import read_document
from tasks.clients.lease import Lease, hold_lease
from tasks.clients.source import read_frames
from tasks.core.card import make_card
from tasks.core.errors import SourceError, UsageError
from tasks.core.exports import SPLITS, ExportOrder, ExportReport
from tasks.core.selection import as_flag_embedding, as_full, as_pairs, choose_rows, select_pairs, text_keys
from tasks.core.showing import as_option
from tasks.policy import step
from tasks.progress import progress

SAMPLE_PAIRS = 5
# What an order has another name for.
_NAMES = {"start_date": "--from-day", "end_date": "--to-day", "pairs_version": "version of the pairs"}


@step("export", "export", retries=3)
def write_export(order: ExportOrder) -> ExportReport:
    """Write the export of `order` under exports/, its dataset card last.

    Reads both tables at one version each. An export whose card is there is
    whole and is never written again; what a killed one left behind is removed.

    Returns:
        Its report, as kept beside the card.

    Raises:
        SourceError: Nothing is published, or nothing of it is left.
        UsageError: The version is taken by an export of another order or table version.
    """
    progress.begin("export")
    # An erasing waits for its end, or it for the erasing's: else it could write what has just been erased.
    with hold_lease(order.layout.forget_lease, order.version or "export") as lease:
        report = _export(order, lease)
    get_run_logger().info("%d pairs exported to %s", sum(report.rows.values()), report.uri)
    return report


def _export(order: ExportOrder, lease: Lease) -> ExportReport:
    pairs = table.open_table(order.layout.pairs)
    published = table.scan(pairs)
    if pairs is None or published is None:
        raise SourceError(f"Nothing is published under {order.layout.pairs}. Run the main flow first.")
    order = dataclasses.replace(order, version=order.version or f"v{pairs.version()}")
    uri = order.layout.export(order.version)
    asked = {**dataclasses.asdict(order), "pairs_version": pairs.version()}
    done = _find_done(uri, json.loads(json.dumps(asked)))
    if done is not None:
        return done
    storage.delete_prefix(uri)
    report = _write(order, select_pairs(published, order), uri, pairs.version())
    lease.check()
    storage.write_bytes(f"{uri}/export.json", json.dumps({"asked": asked, "report": report.model_dump()}).encode())
    storage.write_bytes(f"{uri}/README.md", make_card(report).encode())
    return report


def _find_done(uri: str, asked: dict[str, Any]) -> ExportReport | None:
    if storage.find_bytes(f"{uri}/README.md") is None:
        return None
    kept = read_document(f"{uri}/export.json", "asked", "report")
    if kept["asked"] != asked:
        changed = [name for name in asked if asked[name] != kept["asked"].get(name)]
        options = sorted(_NAMES.get(name, as_option(name)) for name in changed)
        raise UsageError(
            f"{uri} is there already, made with another {', '.join(options)}; an export never changes. "
            "Give this one a name of its own with --export-version."
        )
    return ExportReport(**kept["report"] | {"exported": False})


def _write(order: ExportOrder, rows: pl.LazyFrame, uri: str, pairs_version: int) -> ExportReport:
    columns = [name for name in rows.collect_schema() if name != "plan_row"]
    with tempfile.TemporaryDirectory(prefix="pairmill-") as folder:
        held_out = _read_held_out(order.held_out, Path(folder))
    chosen, left_out = choose_rows(rows, order, held_out)
    if not chosen.height:
        why = ", ".join(f"{count:,} {cause.replace('_', ' ')}" for cause, count in left_out.items()) or "none match"
        raise SourceError(
            f"No pair of {order.layout.pairs} is left for this export ({why}). "
            "Check the languages and days that were asked for."
        )
    kept = _keep(rows, chosen)
    counts = chosen["split"].value_counts()
    sizes = {split: int(counts.filter(pl.col("split") == split)["count"].sum()) for split in SPLITS}
    shapes = {"pairs": as_pairs, "full": lambda one: as_full(one, columns), "flag_embedding": as_flag_embedding}
    endings = {"pairs": "parquet", "full": "parquet", "flag_embedding": "jsonl"}
    files = {
        config: [f"{uri}/{config}/{split}.{endings[config]}" for split in SPLITS if sizes[split]] for config in shapes
    }
    for split in (split for split in SPLITS if sizes[split]):
        ours = _keep(rows, chosen.filter(pl.col("split") == split))
        frames.sink_frames({f"{uri}/{name}/{split}.{endings[name]}": shape(ours) for name, shape in shapes.items()})
    return ExportReport(
        version=order.version,
        uri=uri,
        exported=True,
        pairs_uri=order.layout.pairs,
        pairs_version=pairs_version,
        rows=sizes,
        left_out=left_out,
        grouped_rows=chosen["group_id"].count(),
        groups=chosen["group_id"].drop_nulls().n_unique(),
        held_out=list(order.held_out),
        held_out_texts=held_out.len(),
        licence=order.licence,
        validation_share=order.validation_share,
        test_share=order.test_share,
        files=files,
        **_count(order, kept, published=rows),
    )


def _keep(rows: pl.LazyFrame, chosen: pl.DataFrame) -> pl.LazyFrame:
    """Return the rows that are chosen, in their order, each with the group of the export."""
    keys = ("plan_row", "pair_key")
    theirs = chosen.lazy().select(*keys, "group_id")
    return rows.drop("group_id").join(theirs, on=keys, how="inner", nulls_equal=True, maintain_order="left")


def _count(order: ExportOrder, kept: pl.LazyFrame, published: pl.LazyFrame) -> dict[str, Any]:
    """Count what the card says of the rows that are kept and of those that were judged."""
    judged = published.select(pl.len()).collect(engine="streaming").item()
    rejected = table.scan(table.open_table(order.layout.rejected))
    reasons: dict[str, int] = {}
    if rejected is not None:
        # A redo of another day judges a request again, whose row of the day before stays.
        theirs = (
            select_pairs(rejected, order)
            .join(published, on="request_key", how="anti")
            .group_by("request_key")
            .agg(first=pl.col("reasons").list.first().sort_by("partition").last())
        )
        reasons = _frequencies(theirs, "first")
    flags = kept.select(pl.col("flags").explode(empty_as_null=False, keep_nulls=False))
    samples = kept.select("input", "positive_document").head(SAMPLE_PAIRS).collect(engine="streaming")
    return {
        "partitions": sorted(_frequencies(kept, "partition")),
        "languages": _frequencies(kept, "language"),
        "models": _frequencies(kept, "model_name"),
        "prompt_hashes": sorted(_frequencies(kept, "prompt_hash")),
        "flags": _frequencies(flags, "flags"),
        "judged": judged + sum(reasons.values()),
        "rejected": reasons,
        "samples": samples.to_dicts(),
    }


def _frequencies(rows: pl.LazyFrame, column: str) -> dict[str, int]:
    """Count the rows of each value, the most frequent first."""
    counted = rows.group_by(column).agg(rows=pl.len()).sort("rows", column, descending=[True, False])
    return dict(counted.collect(engine="streaming").iter_rows())


def _read_held_out(uris: tuple[str, ...], scratch: Path) -> pl.Series:
    """Return the keys of every text that the objects under `uris` hold, in whatever column."""
    keys = [text_keys(texts) for uri in uris for texts in _texts(uri, scratch)]
    return pl.concat(keys).unique() if keys else pl.Series(dtype=pl.Int64)


def _texts(uri: str, scratch: Path) -> Iterator[pl.Series]:
    objects = storage.list_objects(uri)
    if not objects:
        raise SourceError(f"Nothing lies under {uri}, whose texts were to be kept out. Check --held-out.")
    for item in objects:
        path = scratch / "held-out"
        storage.download(item, path)
        for frame in read_frames(path, item.uri):
            for column in frame.iter_columns():
                if column.dtype == pl.List(pl.String):
                    yield column.explode()
                elif column.dtype == pl.String:
                    yield column
