"""What the upkeep of a destination did."""

from pydantic import BaseModel

from tasks.core.errors import UsageError
from tasks.core.requests import normalise_description


class UpkeepReport(BaseModel):
    """One upkeep: what was done, one sentence each, and the bytes under the destination before and after it."""

    destination: str
    done: list[str]
    bytes_before: int
    bytes_after: int


def check_forgotten(text: str) -> str:
    """Return the description that `text` names.

    Raises:
        UsageError: It is blank.
    """
    if description := normalise_description(text):
        return description
    raise UsageError(f"forget is {text!r}. Give the text of a task description, letter by letter.")


def say_done(count: int, what: str, verb: str) -> list[str]:
    """Return the sentence that tells of `count` things, none where it is 0."""
    return [f"{count:,} {what} {verb}"] if count else []


def upkeep_headline(report: UpkeepReport) -> str:
    """Say in one sentence what it came to."""
    saved = report.bytes_before - report.bytes_after
    what = f"{len(report.done):,} thing{'s' * (len(report.done) != 1)} done" if report.done else "nothing to do"
    fewer = f", {saved:,} bytes fewer" if saved > 0 else ""
    return f"{report.destination}: {what}{fewer}, {report.bytes_after:,} bytes in all"
