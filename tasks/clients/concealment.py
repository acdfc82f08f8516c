"""Keeps the values of secret variables out of what is shown or stored."""

import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.core.errors import PairmillError

_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL|AUTH_STRING")
# An address with a user's password in it, such as a proxy's.
_PASSWORD = re.compile(r"://[^/\s:@]*:([^/\s@]+)@")
# A shorter value is no key, and might be a word of the message.
_SHORTEST = 8


def one_line(text: str, most: int | None = None) -> str:
    """Return `text` on one line without the values of secret variables, at most `most` characters of it."""
    return " ".join(conceal(text).split())[:most]


def conceal(text: str) -> str:
    """Return `text` with the name of each secret variable in place of its value.

    A provider or gateway that refuses a key may send it back in its answer.
    """
    # A key may begin with another one.
    for value, name in sorted(_secrets(), key=lambda secret: -len(secret[0])):
        text = text.replace(value, f"[{name}]")
    return text


@contextmanager
def keys_concealed() -> Iterator[None]:
    """Let no error leave the block that has a key in its text, its causes or its notes.

    Prefect stores the text and the traceback of what ends a step or a flow. An error of
    ours stays what it is; of any other one the kind and the text are kept. A thread of
    polars that breaks raises no Exception, which Prefect takes for the end of the process.
    """
    try:
        yield
    except BaseException as error:
        # By its name: at the command line, --help waits for no polars.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        told = "".join(traceback.format_exception(error)) + repr(error)
        if conceal(told) == told and isinstance(error, Exception):
            raise
        kind = type(error) if isinstance(error, PairmillError) else RuntimeError
        text = str(error) if isinstance(error, PairmillError) else f"{type(error).__name__}: {error}"
        raise kind(conceal(text)).with_traceback(error.__traceback__) from None


def _secrets() -> Iterator[tuple[str, str]]:
    """Yield the values to conceal, and the variable that each is from."""
    for name, value in os.environ.items():
        # A secret that is mounted from a file often ends in a line break, which no message shows as it is.
        found = [value.strip()] if _SECRET.search(name.upper()) else _PASSWORD.findall(value)
        yield from ((secret, name) for secret in found if len(secret) >= _SHORTEST)
