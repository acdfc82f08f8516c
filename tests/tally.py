"""Counts that tests of faults gather for the table at the end of the session."""

from collections import Counter

# What was counted, by its line in the table.
tally: Counter[str] = Counter()
