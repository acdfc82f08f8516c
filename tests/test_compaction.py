"""The journal's upkeep: small segments become large files, and a look-up finds the same."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from tasks.clients import compaction, frames, storage
from tasks.clients import lease as lease_module
from tasks.clients.lookup import find_segments
from tasks.core.columns import JOURNAL
from tasks.core.errors import StorageError
from tests.bucket import list_parts
from tests.s3_proxy import S3Proxy
from tests.segments import PAID, find_texts, write_segment
from tests.zygote import SHORT_LEASE_SECONDS

NOW = datetime.now(UTC)


@pytest.fixture
def recipe(bucket: str) -> str:
    uri = f"{bucket}/out/journal/recipe=1"
    write_segment(uri, "c", ("k3", "third", 3), ("k1", "first", 1))
    write_segment(uri, "a", ("k1", "later", 2), ("k2", "second", 2))
    return uri


def test_a_look_up_finds_the_same_before_during_and_after_compaction(recipe: str) -> None:
    whole = {"k1": "first", "k2": "second", "k3": "third"}
    assert find_texts(recipe, *whole) == whole
    assert compaction.compact_recipe(recipe, "me", NOW) == compaction.Compaction(merged=2)
    assert find_texts(recipe, *whole) == whole
    assert list_parts(recipe).count("segments") == 2, "a reader may have listed them before"
    done = compaction.compact_recipe(recipe, "me", NOW + timedelta(days=1, hours=1))
    assert done == compaction.Compaction(deleted=2)
    assert find_texts(recipe, *whole) == whole
    assert list_parts(recipe) == ["compacted"]


def test_a_compacted_file_is_sorted_and_holds_each_key_once(recipe: str) -> None:
    compaction.compact_recipe(recipe, "me", NOW)
    (file,) = [uri for uri in find_segments(recipe) if "/compacted/" in uri]
    rows = frames.read_frame(file)
    assert rows["request_key"].to_list() == ["k1", "k2", "k3"]
    assert rows.schema == pl.Schema(JOURNAL)


def test_new_segments_are_merged_with_what_was_merged_before(recipe: str) -> None:
    compaction.compact_recipe(recipe, "me", NOW)
    assert compaction.compact_recipe(recipe, "me", NOW) == compaction.Compaction()
    write_segment(recipe, "d", ("k4", "fourth", 4))
    assert compaction.compact_recipe(recipe, "me", NOW) == compaction.Compaction(merged=2)
    compaction.compact_recipe(recipe, "me", NOW + timedelta(days=1, hours=1))
    assert find_texts(recipe, "k1", "k2", "k3", "k4") == {"k1": "first", "k2": "second", "k3": "third", "k4": "fourth"}


def test_completions_that_are_too_old_are_left_out_and_others_kept(recipe: str) -> None:
    compaction.compact_recipe(recipe, "me", NOW, oldest=PAID + timedelta(seconds=2.5))
    compaction.compact_recipe(recipe, "me", NOW + timedelta(days=1, hours=1))
    assert find_texts(recipe, "k1", "k2", "k3") == {"k3": "third"}


def test_a_compaction_that_lost_its_lease_leaves_nothing_of_what_it_read(
    recipe: str, s3_proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has it then may have erased some of that."""
    monkeypatch.setattr(lease_module, "TERM_SECONDS", SHORT_LEASE_SECONDS)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_proxy.url)
    s3_proxy.fault("/compacted/", "stall", seconds=2 * SHORT_LEASE_SECONDS)
    with ThreadPoolExecutor(1) as pool:
        compacting = pool.submit(compaction.compact_recipe, recipe, "me", NOW)
        while not any("/compacted/" in seen["path"] for seen in s3_proxy.seen()):
            assert not compacting.done()
        storage.write_bytes(compaction.lease_of(recipe), b'{"owner": "another run", "token": "t", "beat": 1}')
        with pytest.raises(StorageError, match="another run may hold it"):
            compacting.result()
    assert set(list_parts(recipe)) == {"segments", "compaction.lease"}
