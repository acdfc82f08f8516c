import errno
from typing import Any

import polars as pl
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError
from botocore.parsers import ResponseParserError
from s3fs.errors import translate_boto_error

from tasks.clients import storage_errors
from tasks.clients.storage_errors import TransientStorageError


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
