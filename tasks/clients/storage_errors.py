"""What the storage's libraries raise, in our words: what was found, where, what to do next."""

import errno
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import polars as pl
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ReadTimeoutError,
)
from botocore.parsers import ResponseParserError

from tasks.clients.access import resolve_access
from tasks.clients.concealment import one_line
from tasks.core.errors import StorageError
from tasks.core.layout import split_uri

# deltalake draws its errors as a coloured tree.
_COLOUR = re.compile(r"\x1b\[\d*m|\u21b3")
# s3fs's for an answer that ends early or is garbled, after it has tried again.
_UNREADABLE = (aiohttp.ClientError, ResponseParserError)


class NoBucketError(StorageError):
    """The bucket does not exist there."""


class TransientStorageError(StorageError):
    """A hiccup of the storage: the step may be tried again."""


class DamagedError(StorageError):
    """An object of ours does not hold what was written to it; names it."""


@contextmanager
def storage_errors(uri: str) -> Iterator[None]:
    """Translate what the storage's libraries raise about `uri`, or something under it, into one StorageError.

    So is a full disk of this machine, of which polars has an error of its own.
    """
    try:
        yield
    except StorageError:
        raise
    except (BotoCoreError, ClientError, OSError, *_UNREADABLE) as error:
        raise translate_error(error, uri) from error
    except pl.exceptions.PolarsError as error:
        if not _is_full(error):
            raise
        raise translate_error(error, uri) from error


# The object that polars and deltalake were at, after the endpoint.
_AT = re.compile(r"performing [A-Z]+ (https?://[^\s?]+)")
# A polars error has it in its text alone.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What S3's libraries say, in their different words; the first that is found counts.
_SAYS = {
    "certificate": r"invalid peer certificate|certificate verify failed",
    "dropped": r"connection (was )?(closed|reset|aborted)|broken pipe|end of file before|error reading a body",
    "bucket": r"NoSuchBucket|bucket does not exist",
    "access": r"status (code:? )?403|AccessDenied|privileges|SignatureDoesNotMatch|InvalidAccessKeyId|ExpiredToken",
    "silent": r"Connection refused|error sending request|dns error|failed to lookup",
    "transient": r"status (code:? )?(5|429)|SlowDown|InternalError|RequestTimeout|timed out|after \d+ retries",
}
# What there is to do where no answer came about.
_UNANSWERED = {
    "silent": "Nothing answers at {endpoint} (asked for {uri}). Check AWS_ENDPOINT_URL, or run again when it is back.",
    "certificate": (
        "This machine does not trust the certificate of {endpoint} (asked for {uri}). Set SSL_CERT_FILE to a file with "
        "that of its authority."
    ),
}


def translate_error(error: Exception, uri: str) -> StorageError:
    """Return what botocore, s3fs, polars or deltalake raised about `uri` as an error of ours."""
    source = error if isinstance(error, ClientError) else error.__cause__
    answered = source.response if isinstance(source, ClientError) else {}
    code = answered.get("Error", {}).get("Code", "")
    text = one_line(_COLOUR.sub(" ", str(error))) or type(error).__name__
    clues = f"{code} status {answered.get('ResponseMetadata', {}).get('HTTPStatusCode', '')} {text}"
    kind = next((kind for kind, pattern in _SAYS.items() if re.search(pattern, clues, re.IGNORECASE)), "")
    uri = _find_object(text, uri)
    if kind == "bucket":
        bucket = split_uri(uri)[0]
        return NoBucketError(
            f"There is no bucket {bucket!r} (asked for {uri}). Check the name and endpoint, or make it."
        )
    if local := _say_local(error, text):
        return StorageError(local)
    if isinstance(error, FileNotFoundError):
        return StorageError(f"{uri} does not exist, or was removed while it was needed. Run again.")
    if isinstance(error, PermissionError) or kind == "access":
        said = code or "access denied"
        return StorageError(
            f"The storage refuses access to {uri} ({said}). Check the credentials and the bucket's policy."
        )
    if isinstance(error, EndpointConnectionError | ConnectTimeoutError) or kind in _UNANSWERED:
        said = _UNANSWERED.get(kind, _UNANSWERED["silent"])
        message = said.format(endpoint=resolve_access().endpoint or "AWS", uri=uri)
        # It may be back in some seconds.
        return StorageError(message) if kind == "certificate" else TransientStorageError(message)
    passing = isinstance(error, (ReadTimeoutError, ConnectionError, TimeoutError, *_UNREADABLE)) or kind in (
        "dropped",
        "transient",
    )
    message = f"The storage failed on {uri}: {text[:300]}. What was paid for is kept; run again."
    return TransientStorageError(message) if passing else StorageError(message)


def is_refused(error: BaseException | None) -> bool:
    """Whether S3 says that a request's condition does not hold, or that somebody else writes at this moment.

    By its own answer: which of s3fs's errors a refusal becomes depends on the storage.
    """
    while error is not None and not isinstance(error, ClientError):
        error = error.__cause__
    answer = error.response if error is not None else {}
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status == 412 or answer.get("Error", {}).get("Code") in ("ConditionalRequestConflict", "NoSuchKey")


def _say_local(error: Exception, text: str) -> str:
    """Return what is to be said of an error that is about this machine's own files, empty text of any other."""
    named = str(getattr(error, "filename", "") or "")
    if _is_full(error):
        folder = Path(named).parent if named else tempfile.gettempdir()
        return (
            f"The disk of {folder} is full: {text[:300]}. Make room there, or set TMPDIR to a folder on another disk; "
            "then run again. What was paid for is kept."
        )
    if isinstance(error, OSError) and named.startswith("/"):
        return f"A file of this machine failed: {text[:300]}. Set TMPDIR to another folder; then run again."
    return ""


def _is_full(error: Exception) -> bool:
    """Whether a disk of this machine is full, or does not let a file become as long as it has to."""
    number = error.errno if isinstance(error, OSError) else None
    said = re.search(r"\(os error (\d+)\)", str(error))
    return (number or (int(said[1]) if said else 0)) in _FULL


def _find_object(text: str, uri: str) -> str:
    """Return the object under `uri` that the text of an error names, else `uri`."""
    at = _AT.search(text)
    endpoint = resolve_access().endpoint if at else ""
    named = f"s3:/{at[1].removeprefix(endpoint)}" if at and endpoint and at[1].startswith(endpoint) else ""
    return named if named.startswith(uri) else uri
