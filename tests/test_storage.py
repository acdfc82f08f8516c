import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import boto3
import pytest

from tasks.clients import storage
from tasks.clients.storage_errors import TransientStorageError
from tasks.core.errors import SourceError, StorageError
from tests.s3_proxy import S3Proxy


def test_a_bucket_that_is_not_there_is_named(bucket: str) -> None:
    with pytest.raises(StorageError, match="There is no bucket 'no-such-bucket'"):
        storage.list_objects("s3://no-such-bucket/x")
    with pytest.raises(StorageError, match="There is no bucket 'no-such-bucket'"):
        storage.require_bucket("s3://no-such-bucket/x")


def test_an_address_that_knows_no_bucket_is_to_be_checked(bucket: str, proxy: S3Proxy) -> None:
    """As a server that is no storage answers."""
    proxy.fail(" ", 404, "404")
    with pytest.raises(StorageError, match=r"There is no bucket 'test-.* Check the name and endpoint"):
        storage.list_objects(f"{bucket}/x")


def test_an_object_that_is_not_there_is_named(bucket: str) -> None:
    with pytest.raises(StorageError, match=f"{bucket}/x does not exist"):
        storage.read_bytes(f"{bucket}/x")
    assert storage.find_bytes(f"{bucket}/x") is None
    assert storage.list_objects(f"{bucket}/x") == []


def test_an_object_is_created_once(bucket: str) -> None:
    uri = f"{bucket}/once"
    assert [storage.create_bytes(uri, b"1"), storage.create_bytes(uri, b"2")] == [True, False]
    assert storage.create_bytes(uri, b"1"), "a retried write finds its own bytes"
    assert storage.read_bytes(uri) == b"1"


def test_an_object_is_replaced_only_while_it_is_the_one_that_was_seen(bucket: str) -> None:
    uri = f"{bucket}/replaced"
    storage.write_bytes(uri, b"1")
    found = storage.find_bytes(uri)
    assert found is not None
    assert storage.replace_bytes(uri, b"2", found[1])
    assert not storage.replace_bytes(uri, b"3", found[1])
    assert not storage.replace_bytes(f"{bucket}/none", b"3", found[1])
    assert storage.read_bytes(uri) == b"2"


@pytest.mark.parametrize(("status", "code"), [(412, "PreconditionFailed"), (409, "ConditionalRequestConflict")])
def test_a_conditional_write_that_is_refused_in_whatever_words_has_not_taken_place(
    status: int, code: str, bucket: str, proxy: S3Proxy
) -> None:
    """Storages differ in what they say beside the code, and AWS has a code for two writers at one moment."""
    uri = f"{bucket}/once"
    storage.write_bytes(uri, b"1")
    proxy.fail("PUT", status, code)
    assert not storage.create_bytes(uri, b"2")
    assert not storage.create_bytes(f"{bucket}/none", b"2")
    assert not storage.replace_bytes(uri, b"2", storage.list_objects(uri)[0].etag)


def test_a_bucket_that_is_not_there_takes_no_conditional_write(bucket: str) -> None:
    with pytest.raises(StorageError, match="There is no bucket 'none-"):
        storage.create_bytes(f"{bucket.replace('test', 'none')}/x", b"1")


def test_an_answer_that_always_ends_early_is_a_hiccup_of_the_storage(bucket: str, proxy: S3Proxy) -> None:
    storage.write_bytes(f"{bucket}/a", b"some bytes")
    proxy.fault("GET", "truncate")
    with pytest.raises(TransientStorageError, match=f"The storage failed on {bucket}/a"):
        storage.read_bytes(f"{bucket}/a")


def test_a_listing_is_in_the_order_of_names_and_sees_what_others_wrote(bucket: str) -> None:
    assert storage.list_objects(f"{bucket}/t") == []
    for name in ("b", "a/2", "a/10", "ü b", "c/"):
        storage.write_bytes(f"{bucket}/t/{name}", name.encode())
    found = storage.list_objects(f"{bucket}/t")
    assert [item.uri.removeprefix(f"{bucket}/t/") for item in found] == ["a/10", "a/2", "b", "ü b"]
    assert [item.size for item in found] == [4, 3, 1, 4]
    assert storage.list_objects(f"{bucket}/t/b") == [found[2]]


def test_an_object_that_changes_while_it_is_read_stops_the_run(bucket: str, tmp_path: Path) -> None:
    storage.write_bytes(f"{bucket}/a", b"1")
    (item,) = storage.list_objects(f"{bucket}/a")
    storage.download(item, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"1"
    storage.write_bytes(f"{bucket}/a", b"2")
    with pytest.raises(SourceError, match="changed while it was read"):
        storage.download(item, tmp_path / "a")


def test_an_object_that_changes_in_the_middle_of_its_reading_stops_the_run(
    bucket: str, proxy: S3Proxy, tmp_path: Path
) -> None:
    storage.write_bytes(f"{bucket}/a", b"1" * (3 * storage.COPY_BYTES))
    (item,) = storage.list_objects(f"{bucket}/a")
    proxy.fault("GET", "error", skip=1, status=412, code="PreconditionFailed")
    with pytest.raises(SourceError, match="changed while it was read"):
        storage.download(item, tmp_path / "a")


def test_a_prefix_is_removed_whole_and_nothing_beside_it(bucket: str) -> None:
    for name in ("t/a", "t/b/c", "t2/a"):
        storage.write_bytes(f"{bucket}/{name}", json.dumps(name).encode())
    storage.delete_prefix(f"{bucket}/t")
    storage.delete_prefix(f"{bucket}/none")
    assert [item.uri for item in storage.list_objects(bucket)] == [f"{bucket}/t2/a"]


@pytest.mark.parametrize(
    ("code", "transient", "said"), [("AccessDenied", False, "refuses access"), ("SlowDown", True, "not removed")]
)
def test_what_the_storage_refuses_to_remove_is_told(
    code: str, transient: bool, said: str, bucket: str, proxy: S3Proxy
) -> None:
    """It answers with success, and a list."""
    storage.write_bytes(f"{bucket}/t/x", b"1")
    proxy.fail("POST", 200, code)
    removing: list[Callable[[], None]] = [
        partial(storage.delete_prefix, f"{bucket}/t"),
        partial(storage.delete_objects, [f"{bucket}/t/x"]),
    ]
    for remove in removing:
        with pytest.raises(StorageError, match=said) as caught:
            remove()
        assert f"{bucket}/x" in str(caught.value)
        assert isinstance(caught.value, TransientStorageError) == transient


def test_a_page_is_stored_as_one_that_a_browser_shows(bucket: str) -> None:
    storage.write_bytes(f"{bucket}/runs/r.html", b"<p>")
    kept = boto3.client("s3").head_object(Bucket=bucket.removeprefix("s3://"), Key="runs/r.html")
    assert kept["ContentType"] == "text/html; charset=utf-8"
