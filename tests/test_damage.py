"""Objects in the bucket that were cut off, overwritten, or written by another version."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from typing import Any, cast

import polars as pl
import pytest
from prefect.logging import disable_run_logger

from tasks.again import ask_again
from tasks.clients import compaction, frames, holdings, storage
from tasks.clients.batch_records import Records
from tasks.clients.concealment import keys_concealed
from tasks.clients.erasure import Forgotten, erase_description
from tasks.clients.lookup import find_paid, find_segments
from tasks.clients.storage_errors import DamagedError
from tasks.core.columns import JOURNAL, SHARD
from tasks.core.plans import Plan, Shard
from tasks.generate import generate_completions
from tasks.load import publish_partition
from tasks.validate import validate_pairs
from tests.orders import ORDER

NOW = datetime.now(UTC)


def parquet(frame: pl.DataFrame) -> bytes:
    buffer = BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "no whole Parquet file"),
    "cut off": (lambda data: data[: len(data) // 2], "no whole Parquet file"),
    "another kind": (lambda data: b"hello", "no whole Parquet file"),
    "other columns": (lambda data: parquet(pl.DataFrame({"a": [1]})), "no column 'request_key'"),
    "a column of another name": (
        lambda data: parquet(pl.read_parquet(data).rename({"request_key": "request_kez"})),
        "no column 'request_key'",
    ),
    "another type": (lambda data: parquet(pl.read_parquet(data).with_columns(text=pl.lit(1))), "'text' holds Int32"),
    "a type of what is not always there": (
        lambda data: parquet(pl.read_parquet(data).with_columns(attempts=pl.lit("many"))),
        "attempts",
    ),
    "no key": (
        lambda data: parquet(pl.read_parquet(data).with_columns(request_key=pl.lit(None, pl.String))),
        "no whole Parquet file",
    ),
}
# A look-up checks no keys, since that would have it hold more of the journal: it only finds fewer completions.
KEYLESS = ("other columns", "a column of another name", "no key")


def segment(*keys: str) -> pl.DataFrame:
    return pl.DataFrame([{"request_key": key, "text": "t", "completed_at": NOW} for key in keys], schema=JOURNAL)


def find(uri: str) -> list[str]:
    return find_paid(uri, pl.LazyFrame({"request_key": ["k1", "k2"]}))["request_key"].sort().to_list()


def compact(uri: str) -> object:
    return compaction.compact_recipe(uri, "me", NOW)


@pytest.fixture
def recipe(bucket: str) -> str:
    uri = f"{bucket}/out/journal/recipe=1"
    frames.write_frame(segment("k1"), f"{uri}/segments/a.parquet")
    return uri


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_segment_is_named_with_what_to_do(recipe: str, damage: str) -> None:
    broken = f"{recipe}/segments/b.parquet"
    spoil, said = DAMAGES[damage]
    storage.write_bytes(broken, spoil(parquet(segment("k2"))))
    if damage in KEYLESS:
        assert find(recipe) == ["k1"]
    for act in (find, compact)[damage in KEYLESS :]:
        with pytest.raises(DamagedError, match=said) as caught:
            act(recipe)
        assert broken in str(caught.value)
        assert "move it away" in str(caught.value)
    storage.delete_objects([broken])
    assert find(recipe) == ["k1"]


@pytest.mark.parametrize("kind", ["segment", "compacted"])
def test_a_segment_with_flipped_bits_is_read_or_named(recipe: str, kind: str) -> None:
    names = [f"k{number}" for number in range(40)]
    frames.write_frame(segment(*names), f"{recipe}/segments/b.parquet")
    if kind == "compacted":
        compaction.compact_recipe(recipe, "me", NOW)
    folder = f"{recipe}/compacted" if kind == "compacted" else f"{recipe}/segments/b"
    uri = next(uri for uri in find_segments(recipe) if uri.startswith(folder))
    data, wanted, chance = storage.read_bytes(uri), pl.LazyFrame({"request_key": names}), random.Random(kind)
    storage.delete_objects([item for item in find_segments(recipe) if item != uri])
    came = Counter[str]()
    for _ in range(25):
        at = chance.randrange(len(data))
        storage.write_bytes(uri, data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :])
        try:
            # A flipped key is another key, and a flipped text another text: Parquet has no sums to tell.
            # Where the damage hides some, they are asked for again.
            find_paid(recipe, wanted)
            came["read"] += 1
        except DamagedError as error:
            came["named" if uri in str(error) else "not named"] += 1
    assert came.keys() == {"read", "named"}, came


@pytest.mark.parametrize("damage", ["empty", "cut off", "other columns"])
def test_a_damaged_shard_is_named_by_the_step_that_reads_it(bucket: str, damage: str) -> None:
    order = replace(ORDER, destination=f"{bucket}/out")
    uri = f"{order.staging}/plan/000000.parquet"
    storage.write_bytes(uri, DAMAGES[damage][0](parquet(pl.DataFrame(schema=SHARD))))
    shard = Shard(0, uri, 0, 1, 0)
    for act in (
        lambda: generate_completions.fn(shard, order, cast("Any", None)),
        lambda: validate_pairs.fn(shard, order),
        lambda: publish_partition.fn(order, Plan(requests=1), [shard]),
        lambda: ask_again.fn(order, Plan(requests=1), [shard]),
    ):
        with pytest.raises(DamagedError, match=r"no whole Parquet file.*move it away") as caught:
            act()
        assert uri in str(caught.value)


@pytest.mark.parametrize("damage", [b"", b"{nope", b"[1]", b"{}", b"[" * 100_000])
def test_a_damaged_record_of_a_batch_is_named(bucket: str, damage: bytes) -> None:
    storage.write_bytes(f"{bucket}/batches/name.json", damage)
    with pytest.raises(DamagedError, match=r"/batches/name\.json is no whole JSON object"):
        Records(f"{bucket}/batches").find_open()


@pytest.mark.parametrize("damage", [b"", b"{nope", b"[1]", b"{}", b"[" * 100_000, b"\xff"])
def test_a_damaged_report_stops_no_run_of_its_day(bucket: str, damage: bytes) -> None:
    order = replace(ORDER, destination=f"{bucket}/out")
    storage.write_bytes(f"{order.layout.staging(order.partition, 'dead')}/report.json", damage)
    storage.write_bytes(order.layout.report(order.run_id), damage)
    if damage == b"\xff":  # it holds up the others for as long as a lease does
        storage.write_bytes(order.layout.lease, damage)
    with disable_run_logger():
        assert publish_partition.fn(order, Plan(), []).requests == 0
    assert holdings._read_report(order.layout.report(order.run_id)) is not None


def test_what_breaks_a_thread_of_polars_is_an_error_like_any_other() -> None:
    with pytest.raises(RuntimeError, match="PanicException: broke off"), keys_concealed():
        raise pl.exceptions.PanicException("broke off")


def test_segments_of_other_versions_are_read_and_compacted(recipe: str) -> None:
    frames.write_frame(segment("k2").drop("throttled", "attempts"), f"{recipe}/segments/older.parquet")
    frames.write_frame(segment("k1").with_columns(more=pl.lit(1)), f"{recipe}/segments/newer.parquet")
    assert find(recipe) == ["k1", "k2"]
    assert compaction.compact_recipe(recipe, "me", NOW).merged == 3
    assert find(recipe) == ["k1", "k2"]


@pytest.mark.parametrize("listed", [b"{nope", b'{"a": 1}', b"[1]"])
def test_a_damaged_list_of_merged_segments_stops_no_upkeep(recipe: str, listed: bytes) -> None:
    storage.write_bytes(f"{recipe}/compacted/x.replaces.json", listed)
    frames.write_frame(segment("k2"), f"{recipe}/segments/b.parquet")
    assert compaction.compact_recipe(recipe, "me", NOW).merged == 2
    assert find(recipe) == ["k1", "k2"]


@pytest.mark.parametrize("name", ["x.parquet", "x.json", "x.jsonl"])
def test_what_cannot_be_read_is_told_apart_from_what_holds_nothing(bucket: str, name: str) -> None:
    forgotten = Forgotten("match a thing", "hash", frozenset())
    storage.write_bytes(f"{bucket}/out/exports/1/{name}", b'{"task": "match a th')
    assert erase_description(f"{bucket}/out/exports/1/{name}", forgotten) == "cannot be read"
