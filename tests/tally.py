"""Counts that tests of faults gather for the table at the end of the session."""

from collections import Counter

# The table's lines in their order, whichever test or worker counts one of them first.
LINES = (
    "kills survived",
    "kills of a run with --batch",
    "faults injected",
    "rows lost",
    "rows duplicated",
    "completions paid twice, machine kept",
    "  of at most, machine kept",
    "completions paid twice, machine lost",
    "  of at most, machine lost",
    "requests sent twice",
    "requests answered by batches",
    "states that a reader saw, each whole",
)

# What was counted, by its line in the table.
tally: Counter[str] = Counter()
