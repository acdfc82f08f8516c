import errno
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import polars as pl
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError
from botocore.parsers import ResponseParserError
from s3fs.errors import translate_boto_error

from tasks.clients import access, frames, storage, storage_errors, table
from tasks.clients.storage_errors import TransientStorageError
from tasks.clients.table import Publish
from tasks.core.errors import SourceError, StorageError
from tests.s3_proxy import S3Proxy

ROWS = pl.DataFrame({"partition": ["2026-01-01"] * 3, "number": [1, 2, 3]})

# Everything that writes, each through its own library.
WRITERS: dict[str, Callable[[str], object]] = {
    "s3fs": lambda uri: storage.write_bytes(f"{uri}/a", b"a"),
    "s3fs create": lambda uri: storage.create_bytes(f"{uri}/b", b"b"),
    "s3fs replace": lambda uri: storage.replace_bytes(f"{uri}/a", b"c", storage.list_objects(f"{uri}/a")[0].etag),
    "polars": lambda uri: ROWS.lazy().sink_parquet(
        f"{uri}/d.parquet", storage_options=access.object_store_options(), credential_provider=None
    ),
    "deltalake": lambda uri: table.publish(
        f"{uri}/table", ROWS.lazy(), Publish("2026-01-01", "r", "r", 1), overwrite=False
    ),
}
READERS: dict[str, Callable[[str], object]] = {
    "s3fs": lambda uri: storage.read_bytes(f"{uri}/a"),
    "s3fs list": storage.list_objects,
    "polars": lambda uri: frames.scan_frames([f"{uri}/a.parquet"]).collect(),
    "deltalake": lambda uri: table.open_table(f"{uri}/table"),
}


@pytest.fixture
def proxy(s3_proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch) -> S3Proxy:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_proxy.url)
    return s3_proxy


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return what makes a profile of these lines the only source of credentials."""

    def write(lines: str) -> None:
        path = tmp_path / "aws-config"
        path.write_text(f"[profile night]\n{lines}\n")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(path))
        monkeypatch.setenv("AWS_PROFILE", "night")

    return write


def test_the_environment_names_credentials_region_and_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-token")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    now = access.resolve_access()
    assert (now.key, now.secret, now.token) == ("test", "test-secret", "a-token")
    assert (now.region, now.endpoint) == ("us-east-1", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://s3.example.org")
    assert access.resolve_access().endpoint == "https://s3.example.org"


def test_a_profile_names_them_too(profile: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    profile(
        "aws_access_key_id = AKID\naws_secret_access_key = SECRET\nregion = eu-central-1\n"
        "endpoint_url = https://s3.example.org"
    )
    now = access.resolve_access()
    assert (now.key, now.secret, now.token) == ("AKID", "SECRET", "")
    assert (now.region, now.endpoint) == ("eu-central-1", "https://s3.example.org")


@pytest.mark.parametrize(
    ("endpoint", "allowed"), [("http://127.0.0.1:9000", "true"), ("https://s3.example.org", None), ("", None)]
)
def test_http_is_allowed_where_the_endpoint_is_http(
    endpoint: str, allowed: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    options = access.object_store_options()
    assert options.get("aws_allow_http") == allowed
    assert options.get("aws_endpoint_url") == (endpoint or None)
    assert all(options.values())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("AWS_PROFILE", "no-such-profile", "no-such-profile"),
        ("AWS_CONFIG_FILE", "/dev/null", "No credentials for the object storage. Set AWS_ACCESS_KEY_ID"),
    ],
)
def test_missing_credentials_say_what_to_set(name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for given in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(given)
    monkeypatch.setenv(name, value)
    with pytest.raises(StorageError) as caught:
        access.resolve_access()
    assert said in str(caught.value)


def hands_out(path: Path, valid: timedelta) -> str:
    """Write a process that hands out another token each time, and notes that; return the profile's lines for it."""
    until = datetime.now(UTC) + valid
    path.write_text(
        f"#!/bin/sh\necho x >> {path}.asked\nprintf '"
        '{"Version": 1, "AccessKeyId": "AKID", "SecretAccessKey": "S", "SessionToken": "token-%s", '
        f""""Expiration": "{until.isoformat()}"}}' $$\n"""
    )
    path.chmod(0o700)
    return f"credential_process = {path}\nregion = us-east-1"


def test_a_role_that_is_refused_is_told_of(profile: Callable[[str], None], proxy: S3Proxy, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a-token")
    role = f"role_arn = arn:aws:iam::123456789012:role/night\nweb_identity_token_file = {tmp_path / 'token'}"
    profile(f"{role}\nregion = us-east-1")
    proxy.fail("POST /", 403, "AccessDenied")
    with pytest.raises(StorageError, match="cannot be resolved: An error occurred"):
        access.object_store_options()


def test_what_gives_access_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-token")
    shown = repr(access.resolve_access())
    assert ("a-secret" in shown, "a-token" in shown) == (False, False)


def test_every_operation_takes_up_the_credentials_of_its_moment(
    profile: Callable[[str], None], bucket: str, proxy: S3Proxy, tmp_path: Path
) -> None:
    """The role's last credentials are always about to expire."""
    profile(hands_out(tmp_path / "process", timedelta(minutes=5)))
    frames.write_frame(ROWS, f"{bucket}/a.parquet")
    storage.write_bytes(f"{bucket}/a", b"a")
    table.publish(f"{bucket}/table", ROWS.lazy(), Publish("2026-01-01", "r", "r", 1), overwrite=False)
    before: set[str] = set()
    for name, reads in READERS.items():
        proxy.seen()
        reads(bucket)
        tokens = {seen["headers"].get("x-amz-security-token", "none") for seen in proxy.seen()}
        assert tokens, name
        assert all(token.startswith("token-") for token in tokens - before), name
        assert not tokens & before, name
        before |= tokens


def test_a_role_is_asked_again_when_its_credentials_expire_and_a_changed_key_counts_at_once(
    profile: Callable[[str], None], tmp_path: Path
) -> None:
    profile(hands_out(tmp_path / "process", timedelta(hours=6)))
    assert {access.resolve_access().key for _ in range(3)} == {"AKID"}
    assert (tmp_path / "process.asked").read_text() == "x\n"
    profile("aws_access_key_id = OTHER\naws_secret_access_key = S\nregion = us-east-1")
    assert access.resolve_access().key == "OTHER"


@pytest.mark.parametrize("writer", list(WRITERS))
def test_server_side_encryption_is_asked_for_by_every_library(
    writer: str, bucket: str, proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SERVER_SIDE_ENCRYPTION", "aws:kms")
    monkeypatch.setenv("AWS_SSE_KMS_KEY_ID", "key-1")
    storage.write_bytes(f"{bucket}/a", b"")
    WRITERS[writer](bucket)
    puts = [seen["headers"] for seen in proxy.seen() if seen["method"] == "PUT"]
    asked = [
        (seen.get("x-amz-server-side-encryption"), seen.get("x-amz-server-side-encryption-aws-kms-key-id"))
        for seen in puts
    ]
    assert puts
    assert set(asked) == {("aws:kms", "key-1")}


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


@pytest.mark.parametrize("reader", ["s3fs list", "deltalake"])
def test_wrong_credentials_are_one_message_whoever_reads(reader: str, bucket: str, proxy: S3Proxy) -> None:
    proxy.fail(" ", 403, "SignatureDoesNotMatch")
    with pytest.raises(StorageError, match=r"The storage refuses access to s3://.* Check the credentials") as caught:
        READERS[reader](bucket)
    assert "test-secret" not in str(caught.value)
    assert not isinstance(caught.value, TransientStorageError)


def answered(status: int, code: str) -> ClientError:
    said: Any = {"Error": {"Code": code, "Message": "why"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(said, "PutObject")


DELTA = "Generic S3 error\n \x1b[31m\u21b3\x1b[0m Server returned non-2xx status code\n \x1b[31m\u21b3\x1b[0m "
POLARS = "object-store error: Generic S3 error: Error performing GET http://127.0.0.1:9/bucket/403/500/x/a in 3 s - {}"
URI = "s3://bucket/403/500/x"
# What libraries raise, whether it is worth another try, and what the user reads.
RAISED: dict[str, tuple[Exception, bool, str]] = {
    "slow down": (answered(503, "SlowDown"), True, "The storage failed"),
    "slow down by s3fs": (translate_boto_error(answered(503, "SlowDown")), True, "The storage failed"),
    "internal by s3fs": (translate_boto_error(answered(500, "InternalError")), True, "The storage failed"),
    "too many": (answered(429, "TooManyRequests"), True, "The storage failed"),
    "by deltalake": (OSError(DELTA + "503 Service Unavailable"), True, "status code 503 Service Unavailable. What"),
    "read": (ReadTimeoutError(endpoint_url="http://x"), True, "The storage failed"),
    "dropped": (ConnectionResetError("reset by peer"), True, "reset by peer"),
    "garbled": (ResponseParserError("Unable to parse response"), True, "The storage failed"),
    "other": (answered(400, "InvalidArgument"), False, "why"),
    "disk": (OSError(28, "No space left on device"), False, "No space left on device. Make room"),
    "disk by polars": (pl.exceptions.ComputeError("IO error: full (os error 28)"), False, "is full: IO error"),
    "quota": (OSError(errno.EDQUOT, "Disk quota exceeded", "/data/tmp/x"), False, "The disk of /data/tmp is full"),
    "file": (PermissionError(13, "Permission denied", "/tmp/x"), False, "A file of this machine failed"),
    "bucket": (answered(404, "NoSuchBucket"), False, "There is no bucket 'bucket'"),
    "bucket by s3fs": (translate_boto_error(answered(404, "NoSuchBucket")), False, "There is no bucket"),
    "object by polars": (FileNotFoundError(POLARS.format("404 Not Found")), False, f"{URI}/a does not"),
    "dropped by polars": (OSError(POLARS.format("connection closed before message completed")), True, f"{URI}/a: "),
    "cut by polars": (OSError("object-store error: end of file before message length reached"), True, URI),
    "object": (FileNotFoundError(URI), False, f"{URI} does not exist"),
    "access": (answered(403, "AccessDenied"), False, "refuses access"),
    "access by s3fs": (translate_boto_error(answered(403, "AccessDenied")), False, "(AccessDenied)"),
    "access by deltalake": (OSError(DELTA + "403 Forbidden"), False, "refuses access"),
    "token": (answered(400, "ExpiredToken"), False, "refuses access"),
    "certificate": (OSError("error sending request: invalid peer certificate: UnknownIssuer"), False, "SSL_CERT_FILE"),
    "certificate by deltalake": (OSError(DELTA + "invalid peer certificate"), False, "does not trust the certificate"),
    "silent": (EndpointConnectionError(endpoint_url="http://x"), True, "Nothing answers at"),
    "silent by deltalake": (OSError("error sending request: Connection refused"), True, "Nothing answers at"),
}


@pytest.mark.parametrize("name", list(RAISED))
def test_what_a_library_raises_is_one_line_of_ours(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    error, transient, said = RAISED[name]
    ours = storage_errors.translate_error(error, URI)
    assert isinstance(ours, TransientStorageError) == transient
    assert said in str(ours)
    assert not {"\n", "\x1b", "\u21b3"} & set(str(ours))


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


ADDRESSES = {
    "a page at AWS": (
        ("", "runs/a b.html"),
        "https://eu-north-1.console.aws.amazon.com/s3/object/bucket?region=eu-north-1&prefix=runs/a%20b.html",
    ),
    "a table at AWS": (
        ("", "out/pairs"),
        "https://eu-north-1.console.aws.amazon.com/s3/buckets/bucket?region=eu-north-1&prefix=out/pairs/",
    ),
    "a page elsewhere": (("http://minio:9000/", "runs/a.html"), "http://minio:9000/bucket/runs/a.html"),
    "a table elsewhere": (("http://minio:9000/", "out/pairs"), ""),
}


@pytest.mark.parametrize("name", list(ADDRESSES))
def test_a_browser_is_sent_to_what_it_can_show(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (endpoint, key), address = ADDRESSES[name]
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    assert access.browser_address(f"s3://bucket/{key}") == address


def test_a_page_is_stored_as_one_that_a_browser_shows(bucket: str) -> None:
    storage.write_bytes(f"{bucket}/runs/r.html", b"<p>")
    kept = boto3.client("s3").head_object(Bucket=bucket.removeprefix("s3://"), Key="runs/r.html")
    assert kept["ContentType"] == "text/html; charset=utf-8"
