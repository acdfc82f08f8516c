"""S3, and the one place where its credentials and endpoint are resolved.

s3fs carries the source, plans, journal, staging and reports; polars and
deltalake open the same storage with `object_store_options`. Both are resolved
anew for each operation from what AWS tools read (variables, AWS_PROFILE, roles),
so an expiring token is renewed and a changed one is taken up.
"""

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)
from botocore.session import get_session

from tasks.clients.concealment import conceal
from tasks.core.errors import SourceError, StorageError
from tasks.core.layout import split_uri

if TYPE_CHECKING:
    from s3fs import S3FileSystem

COPY_BYTES = 8 << 20
# As many as one request of S3's may name.
DELETED_AT_ONCE = 1000
_SERVER_SIDE_ENCRYPTION = {
    "AWS_SERVER_SIDE_ENCRYPTION": "ServerSideEncryption",
    "AWS_SSE_KMS_KEY_ID": "SSEKMSKeyId",
}


# deltalake draws its errors as a coloured tree.
_COLOUR = re.compile(r"\x1b\[\d*m|\u21b3")


class TransientStorageError(StorageError):
    """A hiccup of the storage: the step may be tried again."""


@dataclass(frozen=True)
class Access:
    """How the storage is reached at this moment; empty text where nothing is set."""

    key: str
    secret: str
    token: str
    region: str
    endpoint: str
    encryption: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class StoredObject:
    """One object of a listing; `size` in bytes, `modified` by the storage's clock."""

    uri: str
    size: int
    etag: str
    modified: datetime


def resolve_access() -> Access:
    """Resolve credentials, region and endpoint from the environment, profile or role.

    Raises:
        StorageError: There are no credentials, or the profile is unknown.
    """
    try:
        session = get_session()
        credentials = session.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        frozen = credentials.get_frozen_credentials()
        profile = session.get_scoped_config()
        region = session.get_config_variable("region")
    except NoCredentialsError as error:
        raise StorageError(
            "No credentials for the object storage. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or AWS_PROFILE, or give the machine a role."
        ) from error
    except BotoCoreError as error:
        raise StorageError(f"The credentials of the object storage cannot be resolved: {error}") from error
    endpoint = (
        os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or profile.get("endpoint_url", "")
    )
    encryption = tuple((name, os.environ[name]) for name in _SERVER_SIDE_ENCRYPTION if os.environ.get(name))
    return Access(
        frozen.access_key or "",
        frozen.secret_key or "",
        frozen.token or "",
        region or "us-east-1",
        endpoint,
        encryption,
    )


def object_store_options() -> dict[str, str]:
    """Return the storage options that polars and deltalake take."""
    access = resolve_access()
    options = {
        "aws_access_key_id": access.key,
        "aws_secret_access_key": access.secret,
        "aws_session_token": access.token,
        "aws_region": access.region,
        "aws_endpoint_url": access.endpoint,
        "aws_allow_http": "true" if access.endpoint.startswith("http://") else "",
        **{name.lower(): value for name, value in access.encryption},
    }
    return {name: value for name, value in options.items() if value}


def filesystem() -> "S3FileSystem":
    """Return an s3fs filesystem with the credentials of this moment."""
    return _filesystem(resolve_access(), os.getpid())


@lru_cache(maxsize=4)
def _filesystem(access: Access, _pid: int) -> "S3FileSystem":
    from s3fs import S3FileSystem  # noqa: PLC0415  (0.5 s: not for --help)

    return S3FileSystem(
        key=access.key,
        secret=access.secret,
        token=access.token or None,
        endpoint_url=access.endpoint or None,
        client_kwargs={"region_name": access.region},
        config_kwargs={"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 4}},
        s3_additional_kwargs={_SERVER_SIDE_ENCRYPTION[name]: value for name, value in access.encryption},
        use_listings_cache=False,
        skip_instance_cache=True,
    )


@contextmanager
def storage_errors(uri: str) -> Iterator[None]:
    """Translate what the storage's libraries raise about `uri` into one StorageError."""
    try:
        yield
    except StorageError:
        raise
    except (BotoCoreError, ClientError, OSError) as error:
        raise translate_error(error, uri) from error


# What S3's libraries say, in their different words; the first that is found counts.
_SAYS = {
    "bucket": r"NoSuchBucket|bucket does not exist",
    "access": r"status (code:? )?403|AccessDenied|privileges|SignatureDoesNotMatch|InvalidAccessKeyId|ExpiredToken",
    "silent": r"Connection refused|error sending request|dns error|failed to lookup",
    "transient": r"status (code:? )?(5|429)|SlowDown|InternalError|RequestTimeout|timed out|after \d+ retries",
}


def translate_error(error: Exception, uri: str) -> StorageError:
    """Return what botocore, s3fs, polars or deltalake raised about `uri` as an error of ours."""
    source = error if isinstance(error, ClientError) else error.__cause__
    answered = source.response if isinstance(source, ClientError) else {}
    code = answered.get("Error", {}).get("Code", "")
    text = " ".join(_COLOUR.sub(" ", conceal(str(error))).split()) or type(error).__name__
    clues = f"{code} status {answered.get('ResponseMetadata', {}).get('HTTPStatusCode', '')} {text}"
    kind = next((kind for kind, pattern in _SAYS.items() if re.search(pattern, clues, re.IGNORECASE)), "")
    if kind == "bucket":
        return StorageError(f"There is no bucket {split_uri(uri)[0]!r} (asked for {uri}). Check the name and endpoint.")
    if isinstance(error, FileNotFoundError):
        return StorageError(f"{uri} does not exist, or was removed while it was needed. Run again.")
    if isinstance(error, PermissionError) or kind == "access":
        said = code or "access denied"
        return StorageError(
            f"The storage refuses access to {uri} ({said}). Check the credentials and the bucket's policy."
        )
    if isinstance(error, EndpointConnectionError | ConnectTimeoutError) or kind == "silent":
        endpoint = resolve_access().endpoint or "AWS"
        return StorageError(f"Nothing answers at {endpoint} (asked for {uri}). Check AWS_ENDPOINT_URL.")
    message = f"The storage failed on {uri}: {text[:300]}. What was paid for is kept; run again."
    if isinstance(error, ReadTimeoutError | ConnectionError | TimeoutError) or kind == "transient":
        return TransientStorageError(message)
    return StorageError(message)


def require_bucket(uri: str) -> None:
    """Check that the bucket of `uri` exists and lets us list it.

    Raises:
        StorageError: It does not, or the endpoint or the credentials are wrong.
    """
    bucket, key = split_uri(uri)
    with storage_errors(uri):
        filesystem().call_s3("list_objects_v2", Bucket=bucket, Prefix=key, MaxKeys=1)


def list_objects(uri: str) -> list[StoredObject]:
    """Return the object `uri` or all objects under it, in the order of their names."""
    require_bucket(uri)
    with storage_errors(uri):
        found = filesystem().find(uri, detail=True)
    return [
        StoredObject(f"s3://{name}", info["size"], info.get("ETag", "").strip('"'), info["LastModified"])
        for name, info in sorted(found.items())
        if info["type"] == "file" and not name.endswith("/")
    ]


def download(item: StoredObject, path: Path) -> None:
    """Copy one object to a local file, exactly as it was listed.

    Raises:
        SourceError: It was changed since.
    """
    with storage_errors(item.uri):
        source = filesystem().open(item.uri, "rb", block_size=COPY_BYTES, cache_type="readahead")
        with source, path.open("wb") as target:
            if source.details["ETag"].strip('"') != item.etag:
                raise SourceError(f"{item.uri} was changed while it was read. Run again when its upload is done.")
            shutil.copyfileobj(source, target, COPY_BYTES)


def upload(path: Path, uri: str) -> None:
    """Copy a local file to a new object."""
    with storage_errors(uri):
        filesystem().put_file(str(path), uri)


def read_bytes(uri: str) -> bytes:
    """Return the content of an object."""
    with storage_errors(uri):
        data: bytes = filesystem().cat_file(uri)
        return data


def find_bytes(uri: str) -> tuple[bytes, str] | None:
    """Return the content and ETag of an object, None where there is none."""
    bucket, key = split_uri(uri)
    with storage_errors(uri):
        try:
            fs = filesystem()
            etag = fs.call_s3("head_object", Bucket=bucket, Key=key)["ETag"]
            return fs.cat_file(uri), etag
        except FileNotFoundError:
            return None
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in {"404", "NoSuchKey"}:
                return None
            raise


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole object."""
    with storage_errors(uri):
        filesystem().pipe_file(uri, data)


def create_bytes(uri: str, data: bytes) -> bool:
    """Write an object that must not exist yet; False where another one does.

    A retried write whose first reply was lost finds its own bytes: that is a success.
    """
    with storage_errors(uri):
        try:
            filesystem().pipe_file(uri, data, mode="create")
        except FileExistsError:
            found = find_bytes(uri)
            return found is not None and found[0] == data
        return True


def replace_bytes(uri: str, data: bytes, etag: str) -> bool:
    """Overwrite an object only while it still has `etag`; False where it has not."""
    bucket, key = split_uri(uri)
    with storage_errors(uri):
        try:
            filesystem().call_s3("put_object", Bucket=bucket, Key=key, Body=data, IfMatch=etag)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in {"PreconditionFailed", "412", "NoSuchKey"}:
                return False
            raise
        except OSError as error:
            if isinstance(error, FileNotFoundError) or "condition" in str(error).lower():
                return False
            raise
        return True


def delete_prefix(uri: str) -> None:
    """Remove every object under `uri`, or the object itself."""
    with storage_errors(uri):
        fs = filesystem()
        names = fs.find(uri)
        if names:
            fs.rm(names)


def delete_objects(uris: list[str]) -> None:
    """Remove objects; one that is gone already is no error."""
    for first in range(0, len(uris), DELETED_AT_ONCE):
        some = uris[first : first + DELETED_AT_ONCE]
        bucket = split_uri(some[0])[0]
        with storage_errors(some[0]):
            named = [{"Key": split_uri(uri)[1]} for uri in some]
            answer = filesystem().call_s3("delete_objects", Bucket=bucket, Delete={"Objects": named, "Quiet": True})
            if refused := answer.get("Errors"):
                key, code = refused[0]["Key"], refused[0]["Code"]
                raise StorageError(f"The storage does not remove {key} ({code}). Check the bucket's policy.")


def read_frame(uri: str) -> pl.DataFrame:
    """Return one Parquet object as a frame."""
    return pl.read_parquet(BytesIO(read_bytes(uri)))


def write_frame(frame: pl.DataFrame, uri: str) -> None:
    """Write a frame as one Parquet object."""
    buffer = BytesIO()
    frame.write_parquet(buffer, statistics=False)
    write_bytes(uri, buffer.getvalue())


def sink_frames(frames: Mapping[str, pl.LazyFrame]) -> None:
    """Write each lazy frame as one new object, .parquet or .jsonl, in one stream over what they share."""
    options: dict[str, Any] = {
        "storage_options": object_store_options(),
        "credential_provider": None,
        "maintain_order": True,
        "lazy": True,
    }
    sinks = [
        rows.sink_parquet(uri, compression="zstd", row_group_size=50_000, **options)
        if uri.endswith(".parquet")
        else rows.sink_ndjson(uri, **options)
        for uri, rows in frames.items()
    ]
    with storage_errors(next(iter(frames), "")):
        pl.collect_all(sinks, engine="streaming")


def scan_frames(uris: list[str], **options: Any) -> pl.LazyFrame:
    """Return a lazy frame over Parquet objects, read by polars itself."""
    return pl.scan_parquet(
        uris,
        storage_options=object_store_options(),
        credential_provider=None,
        hive_partitioning=False,
        **options,
    )


def sink_frame(rows: pl.LazyFrame, uri: str) -> None:
    """Write a lazy frame as one Parquet object, in a stream, by polars itself."""
    with storage_errors(uri):
        try:
            rows.sink_parquet(uri, compression="zstd", storage_options=object_store_options(), credential_provider=None)
        except pl.exceptions.PolarsError as error:
            raise translate_error(error, uri) from error
