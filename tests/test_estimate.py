import dataclasses
from typing import Any

import pytest

from flows.preflight import show_estimate
from tasks.core.estimate import Estimate, Part, TokensPerCall, estimate
from tasks.core.plans import Plan
from tasks.core.requests import OnPublished
from tests.orders import ORDER


@pytest.mark.parametrize(("on_published", "most"), [("add", 22), ("redo", 2)])
def test_a_redo_pays_for_no_other_try(on_published: OnPublished, most: int) -> None:
    order = dataclasses.replace(ORDER, on_published=on_published)
    assert estimate(order, Plan(requests=10), cached=8, parts=[]).calls_most == most


def test_a_dry_run_counts_rejected_rows_as_rows_not_as_descriptions(capsys: pytest.CaptureFixture[str]) -> None:
    figures: dict[str, Any] = dict.fromkeys(("source", "destination", "model_name", "tokens_from", "price_from"), "")
    counts: dict[str, Any] = {
        "blank": 0,
        "repeated": 0,
        "already_served": 0,
        "claimed": 0,
        "requests": 191,
        "cached": 0,
        "calls": 191,
    }
    found = Estimate(
        partition="2026-01-01",
        descriptions=60,
        already_rejected=58,
        calls_most=573,
        input_tokens=(1, 2),
        output_tokens=(1, 2),
        cost_usd=None,
        max_cost_usd=0.0,
        would_publish=True,
        source_changes=[],
        **figures,
        **counts,
    )
    show_estimate(found)
    assert "58 rows rejected before" in capsys.readouterr().out


def test_what_needs_no_call_costs_nothing_whatever_the_price() -> None:
    per_call = TokensPerCall((0, 0), (0, 0), "nowhere")
    costs = [
        estimate(ORDER, Plan(requests=calls), cached=0, parts=[Part("x", calls, per_call, None, "nowhere")]).cost_usd
        for calls in (0, 1)
    ]
    assert costs == [(0.0, 0.0), None]


@pytest.mark.parametrize(
    ("changes", "publishes"),
    [({}, False), ({"on_published": "redo"}, True), ({"on_published": "redo", "limit": 1}, False)],
)
def test_a_redo_of_what_other_days_serve_publishes_a_day_without_rows(changes: dict[str, Any], publishes: bool) -> None:
    order = dataclasses.replace(ORDER, **changes)
    assert estimate(order, Plan(descriptions=3), cached=0, parts=[]).would_publish is publishes
