"""When nothing of a partition is published."""

import dataclasses

import pytest

from tasks.core.drift import ENOUGH_ROWS
from tasks.core.gates import find_refusal
from tests.orders import ORDER

# Rejected and judged rows, whether the destination has served some of the source, the allowed share, and what becomes.
SHARES = {
    "the allowed share": (10, 20, False, 0.5, True),
    "one row above it": (11, 20, False, 0.5, False),
    "too few rows to say": (ENOUGH_ROWS - 2, ENOUGH_ROWS - 1, False, 0.5, True),
    "as many as say it": (ENOUGH_ROWS - 1, ENOUGH_ROWS, False, 0.5, False),
    "all of few rows": (3, 3, False, 0.5, False),
    "all of few rows, where others are served": (3, 3, True, 0.5, True),
    "all, where all may be": (30, 30, False, 1.0, True),
}


@pytest.mark.parametrize("name", list(SHARES))
def test_a_share_of_rejected_rows_is_published_or_refused(name: str) -> None:
    rejected, judged, served, allowed, published = SHARES[name]
    order = dataclasses.replace(ORDER, max_rejected_share=allowed)
    figures = {"judged": judged, "rejected": rejected, "reasons": {"unparsable": rejected}, "drift": None}
    refusal = find_refusal(order, figures | {"already_served": int(served), "already_rejected": 0})
    assert (refusal == "") == published
    assert published or "were rejected, above the allowed 50% (unparsable" in refusal
    assert published or "Read s3://bucket/out/runs/run-1.html, and all rows in s3://bucket/out/staging/" in refusal
