"""Objects in the bucket that were cut off, overwritten, or written by another version."""

from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO

import polars as pl
import pytest

from tasks.clients import compaction, frames, storage
from tasks.clients.erasure import Forgotten, erase_description
from tasks.clients.lookup import find_paid
from tasks.core.columns import JOURNAL
from tasks.core.errors import StorageError

NOW = datetime.now(UTC)
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut off": lambda data: data[: len(data) // 2],
    "another kind": lambda data: b"hello",
}


def segment(*keys: str) -> pl.DataFrame:
    return pl.DataFrame([{"request_key": key, "text": "t", "completed_at": NOW} for key in keys], schema=JOURNAL)


def find(uri: str) -> list[str]:
    return find_paid(uri, pl.LazyFrame({"request_key": ["k1", "k2"]}))["request_key"].sort().to_list()


@pytest.fixture
def recipe(bucket: str) -> str:
    uri = f"{bucket}/out/journal/recipe=1"
    frames.write_frame(segment("k1"), f"{uri}/segments/a.parquet")
    return uri


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_segment_is_named_with_what_to_do(recipe: str, damage: str) -> None:
    whole = BytesIO()
    segment("k2").write_parquet(whole)
    broken = f"{recipe}/segments/b.parquet"
    storage.write_bytes(broken, DAMAGES[damage](whole.getvalue()))
    for act in (find, lambda uri: compaction.compact_recipe(uri, "me", NOW)):
        with pytest.raises(StorageError, match="no whole Parquet file") as caught:
            act(recipe)
        assert broken in str(caught.value)
        assert "move it away" in str(caught.value)
    storage.delete_objects([broken])
    assert find(recipe) == ["k1"]


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
