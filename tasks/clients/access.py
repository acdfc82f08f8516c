"""The one place where the object storage's credentials and endpoint are resolved.

For each operation, from what AWS tools read (variables, AWS_PROFILE, roles), so a changed
token is taken up at once, and one that a role gives is renewed in time: botocore renews it
minutes before it expires, and asks nobody until then.
"""

import os
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from botocore.session import get_session

from tasks.core.errors import StorageError
from tasks.core.layout import split_uri

SERVER_SIDE_ENCRYPTION = {
    "AWS_SERVER_SIDE_ENCRYPTION": "ServerSideEncryption",
    "AWS_SSE_KMS_KEY_ID": "SSEKMSKeyId",
}


# What AWS tools read is what these hold.
_FILES = {"AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials", "AWS_CONFIG_FILE": "~/.aws/config"}


@dataclass(frozen=True)
class Access:
    """How the storage is reached at this moment; empty text where nothing is set.

    `authorities` is a file of those whose certificates count, where these are not the usual ones.
    """

    key: str
    secret: str = field(repr=False)
    token: str = field(repr=False)
    region: str
    endpoint: str
    encryption: tuple[tuple[str, str], ...]
    authorities: str


def resolve_access() -> Access:
    """Resolve credentials, region and endpoint from the environment, profile or role.

    Raises:
        StorageError: There are no credentials, the profile is unknown, or the role is refused.
    """
    settings = frozenset((name, value) for name, value in os.environ.items() if name.startswith(("AWS_", "HOME")))
    written = tuple(_changed_at(os.environ.get(name, usual)) for name, usual in _FILES.items())
    try:
        credentials, region, authorities, profile = _read_settings(settings, written)
        now = credentials.get_frozen_credentials()
    except NoCredentialsError as error:
        raise StorageError(
            "No credentials for the object storage. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or AWS_PROFILE, or give the machine a role."
        ) from error
    except (BotoCoreError, ClientError) as error:
        raise StorageError(f"The credentials of the object storage cannot be resolved: {error}") from error
    endpoint = (
        os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or profile.get("endpoint_url", "")
    )
    encryption = tuple((name, os.environ[name]) for name in SERVER_SIDE_ENCRYPTION if os.environ.get(name))
    # polars, deltalake and litellm heed this one, and nothing of AWS's own.
    authorities = authorities or os.environ.get("SSL_CERT_FILE", "")
    return Access(
        now.access_key or "", now.secret_key or "", now.token or "", region, endpoint, encryption, authorities
    )


@lru_cache(maxsize=8)
def _read_settings(
    _settings: frozenset[tuple[str, str]], _written: tuple[int, ...]
) -> tuple[Any, str, str, dict[str, Any]]:
    """Return botocore's credentials, which renew themselves, the region, the authorities and the profile's settings.

    Kept while nothing changes: a role gives other credentials whenever it is asked, each with connections of its own.
    """
    session = get_session()
    credentials = session.get_credentials()
    if credentials is None:
        raise NoCredentialsError
    region, authorities = (session.get_config_variable(name) or "" for name in ("region", "ca_bundle"))
    return credentials, region or "us-east-1", authorities, session.get_scoped_config()


def _changed_at(path: str) -> int:
    try:
        return Path(path).expanduser().stat().st_mtime_ns
    except (OSError, RuntimeError):  # there is none, or no home
        return 0


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


def browser_address(uri: str) -> str:
    """Return where a browser opens an object or a prefix: AWS's console, or the object at an endpoint of its own.

    Empty for a prefix at such an endpoint, which has nothing to show for it. Whether a
    person may see it is for the storage to say.
    """
    access = resolve_access()
    bucket, key = split_uri(uri)
    is_object = "." in key.rpartition("/")[2]
    if access.endpoint:
        return f"{access.endpoint.rstrip('/')}/{bucket}/{quote(key)}" if is_object else ""
    kind, end = ("object", "") if is_object else ("buckets", "/")
    return (
        f"https://{access.region}.console.aws.amazon.com/s3/{kind}/{bucket}"
        f"?region={access.region}&prefix={quote(key)}{end}"
    )
