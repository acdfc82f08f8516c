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
from typing import TYPE_CHECKING, Any

from tasks.clients.access import SERVER_SIDE_ENCRYPTION, Access, resolve_access
from tasks.clients.storage_errors import is_refused, storage_errors, translate_error
from tasks.core.errors import SourceError
from tasks.core.layout import split_uri

if TYPE_CHECKING:
    from s3fs import S3FileSystem

COPY_BYTES = 8 << 20
# Half a lease's term: one answer that never comes costs no lease.
READ_SECONDS = 15
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

    found = S3FileSystem(
        key=access.key,
        secret=access.secret,
        token=access.token or None,
        endpoint_url=access.endpoint or None,
        client_kwargs={"region_name": access.region, "verify": access.authorities or None},
        config_kwargs={"connect_timeout": 5, "read_timeout": READ_SECONDS, "retries": {"max_attempts": 4}},
        s3_additional_kwargs={SERVER_SIDE_ENCRYPTION[name]: value for name, value in access.encryption},
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    # Each of its tries is five of botocore's; a second one is for an answer that is cut off, which botocore gives up.
    found.retries = 2
    return found


def require_bucket(uri: str) -> None:
    """Check that the bucket of `uri` exists and lets us list it.

    Raises:
        StorageError: It does not, or the endpoint or the credentials are wrong.
    """
    bucket, key = split_uri(uri)
    with storage_errors(uri):
        try:
            filesystem().call_s3("list_objects_v2", Bucket=bucket, Prefix=key, MaxKeys=1)
        except FileNotFoundError as error:
            # What is no storage at all does not say of what.
            raise translate_error(OSError("NoSuchBucket"), uri) from error


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
    changed = SourceError(f"{item.uri} was changed while it was read. Run again when its upload is done.")
    with storage_errors(item.uri):
        source = filesystem().open(item.uri, "rb", block_size=COPY_BYTES, cache_type="readahead")
        with source, path.open("wb") as target:
            if source.details["ETag"].strip('"') != item.etag:
                raise changed
            try:
                shutil.copyfileobj(source, target, COPY_BYTES)
            except OSError as error:
                # s3fs asks for each further part of what it opened only.
                if is_refused(error):
                    raise changed from error
                raise


def read_bytes(uri: str) -> bytes:
    """Return the content of an object."""
    with storage_errors(uri):
        data: bytes = filesystem().cat_file(uri)
        return data


def find_bytes(uri: str) -> tuple[bytes, str] | None:
    """Return the content and ETag of an object, None where there is none."""
    head = _find_head(uri)
    if head is None:
        return None
    with storage_errors(uri):
        try:
            return filesystem().cat_file(uri), head["ETag"]
        except FileNotFoundError:
            return None


def seconds_since_written(uri: str) -> float | None:
    """Return how old an object is by the storage's clock, in seconds; None where there is none.

    Infinity where the storage does not tell the time.
    """
    head = _find_head(uri)
    if head is None:
        return None
    told = head["ResponseMetadata"]["HTTPHeaders"].get("date")
    return (parsedate_to_datetime(told) - head["LastModified"]).total_seconds() if told else float("inf")


def _find_head(uri: str) -> dict[str, Any] | None:
    bucket, key = split_uri(uri)
    with storage_errors(uri):
        try:
            head: dict[str, Any] = filesystem().call_s3("head_object", Bucket=bucket, Key=key)
        except FileNotFoundError:
            return None
        return head


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole object; a browser shows what is made for people."""
    kind = _CONTENT_TYPES.get(uri.rpartition(".")[2])
    with storage_errors(uri):
        filesystem().pipe_file(uri, data, **({"ContentType": kind} if kind else {}))


def create_bytes(uri: str, data: bytes) -> bool:
    """Write an object that must not exist yet; False where another one does.

    A retried write whose first reply was lost finds its own bytes: that is a success.
    """
    if _write_if(uri, data, IfNoneMatch="*"):
        return True
    found = find_bytes(uri)
    return found is not None and found[0] == data


def replace_bytes(uri: str, data: bytes, etag: str) -> bool:
    """Overwrite an object only while it still has `etag`; False where it has not.

    Also where a retried write lost the reply to its first try: whoever has to know reads the object.
    """
    return _write_if(uri, data, IfMatch=etag)


def _write_if(uri: str, data: bytes, **condition: str) -> bool:
    """Write an object on a condition of S3's; False where it does not hold, or somebody else writes at this moment."""
    bucket, key = split_uri(uri)
    with storage_errors(uri):
        try:
            filesystem().call_s3("put_object", Bucket=bucket, Key=key, Body=data, **condition)
        except OSError as error:
            if is_refused(error):
                return False
            raise
        return True


def delete_prefix(uri: str) -> None:
    """Remove every object under `uri`, or the object itself; see `delete_objects`."""
    with storage_errors(uri):
        names = filesystem().find(uri)
    # Not by s3fs, which does not say what the storage has refused to remove.
    delete_objects([f"s3://{name}" for name in names])


def delete_objects(uris: list[str]) -> None:
    """Remove objects; one that is gone already is no error.

    Raises:
        StorageError: The storage refuses to remove one of them.
    """
    for first in range(0, len(uris), DELETED_AT_ONCE):
        some = uris[first : first + DELETED_AT_ONCE]
        bucket = split_uri(some[0])[0]
        with storage_errors(some[0]):
            named = [{"Key": split_uri(uri)[1]} for uri in some]
            answer = filesystem().call_s3("delete_objects", Bucket=bucket, Delete={"Objects": named, "Quiet": True})
            for refused in answer.get("Errors", []):
                raise translate_error(OSError(f"{refused['Code']}, not removed"), f"s3://{bucket}/{refused['Key']}")
