"""Texts from outside and names of ours, as a terminal or a log shows them."""

import re

# Unicode's control characters but the tab and the end of a line, and what reorders the text after it.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def shown(text: str) -> str:
    """Return `text` with U+FFFD for each character that would command a terminal or reorder what it shows."""
    return _CONTROL.sub("\ufffd", text)


def as_sentence(text: str) -> str:
    """Return `text` as one line that ends as a sentence."""
    line = " ".join(text.split())
    return line if line.endswith((".", "?", "!")) else f"{line}."


def as_option(parameter: str) -> str:
    """Return a flow's parameter as the command line spells it."""
    return "--" + parameter.replace("_", "-")
