"""The one place where the object storage's credentials and endpoint are resolved.

Anew for each operation, from what AWS tools read (variables, AWS_PROFILE, roles),
so an expiring token is renewed and a changed one is taken up.
"""

import os
from dataclasses import dataclass
from urllib.parse import quote

from botocore.exceptions import BotoCoreError, NoCredentialsError
from botocore.session import get_session

from tasks.core.errors import StorageError
from tasks.core.layout import split_uri

SERVER_SIDE_ENCRYPTION = {
    "AWS_SERVER_SIDE_ENCRYPTION": "ServerSideEncryption",
    "AWS_SSE_KMS_KEY_ID": "SSEKMSKeyId",
}


@dataclass(frozen=True)
class Access:
    """How the storage is reached at this moment; empty text where nothing is set."""

    key: str
    secret: str
    token: str
    region: str
    endpoint: str
    encryption: tuple[tuple[str, str], ...]


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
    encryption = tuple((name, os.environ[name]) for name in SERVER_SIDE_ENCRYPTION if os.environ.get(name))
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
