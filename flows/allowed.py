"""What the environment of a worker allows a run to name.

A person who may start a run can put any address into its parameters. Where these
variables are set, a run that names anything else ends before a key is used.
"""

import os
import re
from urllib.parse import urlsplit

from tasks.core.errors import UsageError

# By option: prefixes, divided by commas or spaces; each allows what lies at or under it. Not set: all is allowed.
VARIABLES = {
    "--source": "PAIRMILL_ALLOWED_SOURCES",
    "--held-out": "PAIRMILL_ALLOWED_SOURCES",
    "--destination": "PAIRMILL_ALLOWED_DESTINATIONS",
    "--api-base": "PAIRMILL_ALLOWED_API_BASES",
}


def check_allowed(option: str, uri: str) -> str:
    """Return `uri`, an address that the environment allows for this option.

    Raises:
        UsageError: It does not; names the variable, not what it holds.
    """
    listed = os.environ.get(VARIABLES[option])
    if listed is None or any(_holds(prefix, uri) for prefix in re.split(r"[,\s]+", listed) if prefix):
        return uri
    raise UsageError(f"{option} is {uri!r}, which {VARIABLES[option]} does not allow here. Nothing was sent to it.")


def check_api_base(api_base: str) -> str:
    """Return `api_base`; empty is the provider's own address, or the one that this environment gives it.

    Raises:
        UsageError: Not http(s)://host/path, the address of an operation below it, or it carries a key, which
            everybody could read in the run's parameters.
    """
    if not api_base:
        return api_base
    try:
        parts = urlsplit(api_base)
        plain = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        plain = False
    if not plain or re.search(r"[\s\\@?#%]|[^ -~]|/\.\.?(/|$)", api_base):
        raise UsageError(
            "--api-base must be http(s)://host/path, without a user, a query or escapes. "
            "Keys belong into the environment, for example OPENAI_API_KEY."
        )
    if below := re.search(r"/+(chat/+completions|completions|responses)/*$", api_base, re.IGNORECASE):
        raise UsageError(
            f"--api-base is {api_base!r}, the address of one of the server's operations. Leave {below[1]} out: "
            f"{api_base[: below.start()]}"
        )
    return check_allowed("--api-base", api_base)


def _holds(prefix: str, uri: str) -> bool:
    """Whether `uri` lies at or under `prefix`; scheme, host and port count as a whole."""
    wanted, given = urlsplit(prefix.rstrip("/")), urlsplit(uri.rstrip("/"))
    if (wanted.scheme, wanted.netloc.lower()) != (given.scheme, given.netloc.lower()):
        return False
    return f"{given.path}/".startswith(f"{wanted.path}/")
