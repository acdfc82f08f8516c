from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from tasks.clients import access, frames, storage, table
from tasks.clients.storage_errors import TransientStorageError
from tasks.clients.table import Publish
from tasks.core.errors import StorageError
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


@pytest.mark.parametrize("reader", ["s3fs list", "deltalake"])
def test_wrong_credentials_are_one_message_whoever_reads(reader: str, bucket: str, proxy: S3Proxy) -> None:
    proxy.fail(" ", 403, "SignatureDoesNotMatch")
    with pytest.raises(StorageError, match=r"The storage refuses access to s3://.* Check the credentials") as caught:
        READERS[reader](bucket)
    assert "test-secret" not in str(caught.value)
    assert not isinstance(caught.value, TransientStorageError)


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
