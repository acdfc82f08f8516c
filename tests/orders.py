"""An order to change one field of, for tests of what carries it out."""

from datetime import UTC, datetime
from typing import Any

from tasks.core.requests import Order, Recipe

ORDER = Order(
    run_id="run-1",
    started_at=datetime(2026, 1, 2, tzinfo=UTC),
    source="s3://bucket/tasks",
    destination="s3://bucket/out",
    partition="2026-01-01",
    languages=("English",),
    language_mix="each",
    pairs_per_task=1,
    max_attempts_per_pair=3,
    on_published="add",
    recipe=Recipe(model_name="openai/x"),
    api_base="",
    concurrency=8,
    max_rejected_share=0.5,
    limit=0,
)


def report_figures(**changes: Any) -> dict[str, Any]:
    """Return the fields of a report of ten judged rows, two of them rejected."""
    return {
        "run_id": "run-1",
        "partition": "2026-01-01",
        "published": True,
        "source": "s3://bucket/tasks",
        "destination": "s3://bucket/out",
        "model_name": "openai/x",
        "languages": ["English"],
        "language_mix": "each",
        "pairs_per_task": 1,
        "max_attempts_per_pair": 3,
        "on_published": "add",
        "seed": 42,
        "descriptions": 10,
        "blank": 0,
        "repeated": 0,
        "unknown_languages": {},
        "already_served": 0,
        "already_rejected": 0,
        "given_up": 0,
        "requests": 10,
        "rounds": 1,
        "cached": 4,
        "paid": 6,
        "failed": 0,
        "retried": 0,
        "throttled": 0,
        "judged": 10,
        "accepted": 8,
        "rejected": 2,
        "shortfall": 2,
        "shortfall_reasons": {"unparsable": 2},
        "shortfalls": [],
        "reasons": {"unparsable": 2},
        "by_language": {"English": {"accepted": 8, "rejected": 2}},
        "input_tokens": 100,
        "output_tokens": 20,
        "cost_usd": None,
        "seconds": 1.5,
        "started_at": datetime(2026, 1, 2, tzinfo=UTC),
        "finished_at": datetime(2026, 1, 2, tzinfo=UTC),
        "pairs_uri": "s3://bucket/out/pairs",
        "pairs_version": 3,
        "files": ["s3://bucket/out/pairs/partition=2026-01-01/a.parquet"],
        "samples": [],
        "objects": [],
        "source_changes": [],
        **changes,
    }
