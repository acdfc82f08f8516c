"""An export as it is ordered, and what came of it; without polars, for forms and --help."""

from dataclasses import dataclass

from pydantic import BaseModel

from tasks.core.layout import Layout
from tasks.core.requests import RowFlag

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class ExportOrder:
    """One export, resolved. Empty days and `languages` mean all; shares are of the descriptions."""

    destination: str
    version: str
    start_date: str
    end_date: str
    languages: tuple[str, ...]
    leave_out_flagged: tuple[RowFlag, ...]
    held_out: tuple[str, ...]
    licence: str
    validation_share: float
    test_share: float

    @property
    def layout(self) -> Layout:
        """Where everything of the destination lies."""
        return Layout(self.destination)


class ExportReport(BaseModel):
    """One export.

    `rows` by split; `left_out` counts published pairs that it does not hold, by
    cause; `judged` and `rejected` count the requests behind it; `files` are the URIs
    of the objects by config; `exported` is false where the snapshot was there already.
    """

    version: str
    uri: str
    exported: bool
    pairs_uri: str
    pairs_version: int
    partitions: list[str]
    rows: dict[str, int]
    left_out: dict[str, int]
    languages: dict[str, int]
    models: dict[str, int]
    prompt_hashes: list[str]
    flags: dict[str, int]
    groups: int
    grouped_rows: int
    judged: int
    rejected: dict[str, int]
    held_out: list[str]
    held_out_texts: int
    licence: str
    validation_share: float
    test_share: float
    files: dict[str, list[str]]
    samples: list[dict[str, str]]
