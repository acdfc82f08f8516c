"""What the upkeep of a destination did."""

from pydantic import BaseModel


class UpkeepReport(BaseModel):
    """One upkeep: what was done, one sentence each, and the bytes under the destination before and after it."""

    destination: str
    done: list[str]
    bytes_before: int
    bytes_after: int


def upkeep_headline(report: UpkeepReport) -> str:
    """Say in one sentence what it came to."""
    saved = report.bytes_before - report.bytes_after
    what = f"things done: {len(report.done):,}" if report.done else "nothing to do"
    return f"{report.destination}: {what}, {max(0, saved):,} bytes saved, {report.bytes_after:,} left"
