"""Segments of a journal as tests write them, and what a look-up finds there."""

from datetime import UTC, datetime, timedelta

import polars as pl

from tasks.clients import frames
from tasks.clients.lookup import find_paid
from tasks.core.columns import JOURNAL

# When completions were paid for, long before their segments are written.
PAID = datetime.now(UTC) - timedelta(hours=1)


def write_segment(uri: str, name: str, *completions: tuple[str, str, int]) -> None:
    """Write a segment of (key, text, seconds after PAID)."""
    rows = [
        {"request_key": key, "text": text, "completed_at": PAID + timedelta(seconds=at)}
        for key, text, at in completions
    ]
    frames.write_frame(pl.DataFrame(rows, schema=JOURNAL), f"{uri}/segments/{name}.parquet")


def find_texts(uri: str, *keys: str) -> dict[str, str]:
    """Return the text that a look-up finds for each of the keys, as far as it finds one."""
    found = find_paid(uri, pl.LazyFrame({"request_key": keys}))
    return dict(found.select("request_key", "text").iter_rows())
