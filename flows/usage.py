"""What --help adds to the flows' own words, and what is wrong with the arguments, in one sentence."""

import difflib
import inspect
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING

from flows.commands import COMMANDS
from tasks.core.showing import as_option, as_sentence

if TYPE_CHECKING:
    from cyclopts import CycloptsError, MissingArgumentError

DEMO_USAGE = """\
Usage: python -m flows.run [OPTIONS]
       python -m flows.run COMMAND [OPTIONS]

Without --source, --destination and --model-name, each runs as a demo on this machine."""

# What an option of a type takes, as an error says it.
VALUES: dict[type | None, str] = {date: "a day as YYYY-MM-DD", int: "a whole number", float: "a number"}


def write_default(value: object) -> str | None:
    """Write a default for --help; None where it says nothing, as an empty text or a switch that is off."""
    if isinstance(value, list):
        return ", ".join(value) or None
    return None if value == "" or value is False else str(value)


def pays(given: Sequence[str]) -> bool:
    """Whether what is asked for calls a model, so that --check, --dry-run and a cluster have a meaning."""
    return all(COMMANDS[word].rehearsal for word in given[:1] if word in COMMANDS)


def explain(error: "CycloptsError", commands: Sequence[str]) -> str:
    """Say what is wrong with the arguments, without pydantic's own words for it; `commands` are the sub-commands."""
    from cyclopts import CoercionError, MissingArgumentError, UnusedCliTokensError  # noqa: PLC0415
    from pydantic import ValidationError  # noqa: PLC0415

    from flows.parameters import SHAPES  # noqa: PLC0415  (pydantic's, as above)

    cause = error.__cause__
    if isinstance(error, UnusedCliTokensError):
        given = " ".join(error.unused_tokens or [])
        return f"{given!r} is neither a sub-command nor an option.{_nearest(given, commands)}"
    if isinstance(error, MissingArgumentError) and error.argument is not None and "Did you mean" not in str(error):
        return _say_missing(error)
    if isinstance(cause, ValidationError):
        wrong = cause.errors()[0]
        said = SHAPES.get(wrong.get("ctx", {}).get("pattern", ""), wrong["msg"])
        return f"{str(error).partition(str(cause))[0].strip()} {said}."
    if isinstance(error, CoercionError) and error.token is not None and error.target_type in VALUES:
        return f'Invalid value "{error.token.value}" for {error.token.keyword}. Give {VALUES[error.target_type]}.'
    return as_sentence(str(error))


def _say_missing(error: "MissingArgumentError") -> str:
    """Name the option that lacks its value, or all options that are needed and not given."""
    given = [token.partition("=")[0] for token in error.root_input_tokens or []]
    flag = str(error.argument.name) if error.argument is not None else ""
    if flag in given or error.target is None:
        return f"{flag} needs a value."
    needed = [one for one in inspect.signature(error.target).parameters.values() if one.default is one.empty]
    flags = [as_option(one.name) for one in needed]
    return f"Missing: {', '.join(one for one in flags if one not in given)}."


def _nearest(word: str, commands: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, commands, n=1)
    return f" Did you mean {near[0]}?" if near else ""
