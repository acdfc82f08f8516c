"""S3, through s3fs: the source, plans, journal, staging and reports.

polars and deltalake open the same storage by themselves, see `access` and `frames`.
"""

import os
import shutil
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from tasks.clients.access import SERVER_SIDE_ENCRYPTION, Access, resolve_access
from tasks.clients.storage_errors import storage_errors
from tasks.core.errors import SourceError, StorageError
from tasks.core.layout import split_uri

if TYPE_CHECKING:
    from s3fs import S3FileSystem

COPY_BYTES = 8 << 20
# As many as one request of S3's may name.
DELETED_AT_ONCE = 1000
_CONTENT_TYPES = {
    "html": "text/html; charset=utf-8",
    "json": "application/json",
    "md": "text/markdown; charset=utf-8",
}


@dataclass(frozen=True)
class StoredObject:
    """One object of a listing; `size` in bytes, `modified` by the storage's clock."""

    uri: str
    size: int
    etag: str
    modified: datetime


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
        s3_additional_kwargs={SERVER_SIDE_ENCRYPTION[name]: value for name, value in access.encryption},
        use_listings_cache=False,
        skip_instance_cache=True,
    )


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


def list_folder(uri: str) -> list[StoredObject]:
    """Return all objects under `uri`, in the order of their names, without one that is named like it."""
    return [item for item in list_objects(uri) if item.uri.startswith(f"{uri}/")]


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


def seconds_since_written(uri: str) -> float | None:
    """Return how old an object is by the storage's clock, in seconds; None where there is none.

    Infinity where the storage does not tell the time.
    """
    bucket, key = split_uri(uri)
    with storage_errors(uri):
        try:
            head = filesystem().call_s3("head_object", Bucket=bucket, Key=key)
        except FileNotFoundError:
            return None
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in {"404", "NoSuchKey"}:
                return None
            raise
    told = head["ResponseMetadata"]["HTTPHeaders"].get("date")
    age = parsedate_to_datetime(told) - head["LastModified"] if told else None
    return float("inf") if age is None else age.total_seconds()


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole object; a browser shows what is made for people."""
    kind = _CONTENT_TYPES.get(uri.rpartition(".")[2])
    with storage_errors(uri):
        filesystem().pipe_file(uri, data, **({"ContentType": kind} if kind else {}))


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
