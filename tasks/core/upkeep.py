"""What the upkeep of a destination did."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel

from tasks.core.counting import counted
from tasks.core.errors import UsageError
from tasks.core.requests import normalise_description


class UpkeepReport(BaseModel):
    """One upkeep: what was done, one sentence each, and the bytes under the destination before and after it.

    `left` is what is to do by hand. `found` is whether there was anything of a description that is to be forgotten,
    null where none is.
    """

    destination: str
    done: list[str]
    left: list[str] = []
    found: bool | None = None
    bytes_before: int
    bytes_after: int


@dataclass
class Forgetting:
    """What becomes of one description, as UpkeepReport tells it."""

    done: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    found: bool = False

    def erased(self, sentences: Sequence[str]) -> None:
        """Note what was done to something that belonged to it."""
        self.found |= bool(sentences)
        self.done += sentences


def check_forgotten(text: str) -> str:
    """Return the description that `text` names.

    Raises:
        UsageError: It is blank.
    """
    if description := normalise_description(text):
        return description
    raise UsageError(f"--forget is {text!r}. Give the text of a task description, letter by letter.")


def say_done(count: int, one: str, rest: str) -> list[str]:
    """Return the sentence that tells what was done to `count` things, each `one`; none where it is 0."""
    return [f"{counted(count, one)} {rest}"] if count else []


def upkeep_headline(report: UpkeepReport) -> str:
    """Say in one sentence what it came to."""
    saved = report.bytes_before - report.bytes_after
    what = f"{counted(len(report.done), 'thing')} done" if report.done else "nothing to do"
    if report.found is False:
        what = "nothing of that description was found"
    elif report.left:
        what += f", {len(report.left):,} left to do by hand"
    fewer = f", {counted(saved, 'byte')} fewer" if saved > 0 else ""
    return f"{report.destination}: {what}{fewer}, {counted(report.bytes_after, 'byte')} in all"
