from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from flows.demo import DESTINATION
from flows.order import default_partition, place_order
from flows.order_models import STAND_IN, check_model_fits
from tasks.core.errors import UsageError

GIVEN: dict[str, Any] = {
    "source": "s3://bucket/tasks/{partition}/",
    "destination": "s3://bucket/out/",
    "model_name": "openai/x",
    "partition": "2026-03-04",
    "languages": ["English", "German", "English"],
    "language_mix": "each",
    "pairs_per_task": 2,
    "max_attempts_per_pair": 3,
    "on_published": "add",
    "api_base": "",
    "model_revision": "r",
    "temperature": 0.5,
    "top_p": 0.9,
    "max_tokens": 64,
    "structured_output": False,
    "concurrency": 4,
    "max_rejected_share": 0.1,
    "seed": 7,
    "limit": 3,
}


def test_an_order_is_resolved_once() -> None:
    order = place_order(**GIVEN)
    assert (order.source, order.destination) == ("s3://bucket/tasks/2026-03-04", "s3://bucket/out")
    assert order.languages == ("English", "German")
    assert (order.recipe.seed, order.recipe.model_revision, order.limit) == (7, "r", 3)


@pytest.mark.parametrize(
    ("source", "start", "day"),
    [
        ("s3://bucket/tasks", datetime(2026, 3, 1, 2, 0, tzinfo=UTC), "2026-03-01"),
        ("s3://bucket/{partition}", datetime(2026, 3, 1, 2, 0, tzinfo=UTC), "2026-02-28"),
        ("s3://bucket/{partition}", datetime(2026, 1, 1, 0, 0, tzinfo=UTC), "2025-12-31"),
        ("s3://bucket/tasks", datetime(2026, 3, 1, 23, 30, tzinfo=timezone(timedelta(hours=-2))), "2026-03-02"),
    ],
)
def test_the_default_partition_is_a_complete_day_in_utc(source: str, start: datetime, day: str) -> None:
    assert default_partition(source, start) == day


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"source": ""}, "Missing: --source."),
        ({"source": " ", "destination": ""}, "Missing: --source, --destination."),
        ({"model_name": ""}, "Missing: --model-name."),
        ({"destination": "gs://bucket/out"}, "--destination is 'gs://bucket/out'"),
        ({"source": "https://host/tasks"}, "--source is 'https://host/tasks'"),
        ({"partition": "2026-02-30"}, "YYYY-MM-DD"),
        ({"languages": ["Klingon"]}, "Unknown language"),
        ({"api_base": "http://host/v1/chat/completions"}, "Leave chat/completions out: http://host/v1"),
        ({"api_base": "http://host/v1/Chat//completions/"}, "out: http://host/v1"),
        ({"api_base": "https://host/completions"}, "Leave completions out: https://host"),
        ({"model_name": f"openai/{STAND_IN}"}, "is no model"),
    ],
)
def test_what_cannot_be_right_is_refused_before_anything_is_read(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        place_order(**GIVEN | changes)
    assert said in str(caught.value)


def test_the_stand_in_serves_the_demo_only() -> None:
    check_model_fits(f"openai/{STAND_IN}", DESTINATION)
    check_model_fits("openai/x", "s3://bucket/out")
    for destination in ("s3://bucket/out", DESTINATION.replace("demo/", "demo-2/")):
        with pytest.raises(UsageError, match="only serves the demo"):
            check_model_fits(f"openai/{STAND_IN}", destination)
