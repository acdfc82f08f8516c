"""Keeps the values of secret variables out of what is shown or stored."""

import os
import re

_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL")
# A shorter value is no key, and might be a word of the message.
_SHORTEST = 8


def one_line(text: str, most: int | None = None) -> str:
    """Return `text` on one line without the values of secret variables, at most `most` characters of it."""
    return " ".join(conceal(text).split())[:most]


def conceal(text: str) -> str:
    """Return `text` with the name of each secret variable in place of its value.

    A provider or gateway that refuses a key may send it back in its answer.
    """
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and _SECRET.search(name.upper()):
            text = text.replace(value, f"[{name}]")
    return text
