"""What judged rows look like, and how that differs from the rows before, as a report holds it."""

from itertools import accumulate

from pydantic import BaseModel

# Below this many judged rows a share of them says nothing.
ENOUGH_ROWS = 20
# Lengths are counted in steps of so many characters.
LENGTH_STEP = 2


class SamplePair(BaseModel):
    """One accepted pair, as an example."""

    task: str
    language: str
    input: str
    positive_document: str


class Profile(BaseModel):
    """What judged rows look like; shares are of rows, from 0 to 1.

    `lengths` are shares by characters (the lower end of each step), `distinct` is
    distinct-1 and distinct-2 of `distinct_texts` texts, `openings` counts accepted rows by
    their first words where many begin alike, `group_sizes` counts groups by their pairs.
    """

    accepted_share: float
    duplicate_share: float
    languages: dict[str, float]
    lengths: dict[str, dict[int, float]]
    distinct: dict[str, list[float]] = {}
    distinct_texts: int = 0
    openings: dict[str, dict[str, int]] = {}
    group_sizes: dict[int, int] = {}
    examples: dict[str, list[dict[str, str | None]]] = {}
    pairs_to_read: list[SamplePair] = []

    def most_characters(self, column: str, share: float) -> int:
        """Return the length that `share` of the texts do not exceed."""
        lengths = sorted(self.lengths[column].items())
        reached = zip(lengths, accumulate(rows for _, rows in lengths), strict=True)
        # Sums of shares are rounded.
        return next((start for (start, _), rows in reached if rows > share - 1e-9), lengths[-1][0]) + LENGTH_STEP - 1


class Measure(BaseModel):
    """One comparison: two shares, or the share of rows that moved where there is no one share."""

    name: str
    before: float | None = None
    now: float | None = None
    moved: float = 0.0

    @property
    def drift(self) -> float:
        """The difference, from 0 to 1."""
        return self.moved if self.before is None or self.now is None else abs(self.now - self.before)


class Drift(BaseModel):
    """How a partition differs from `partition`, the last one before it of ENOUGH_ROWS rows."""

    partition: str
    measures: list[Measure]

    @property
    def worst(self) -> Measure:
        """The measure that differs most."""
        return max(self.measures, key=lambda measure: measure.drift)


class Changes(BaseModel):
    """What judging a partition again changed, in rows of requests that were published before."""

    newly_accepted: dict[str, int]
    newly_rejected: dict[str, int]
    as_before: int
