"""When nothing of a partition is published: too much of it is rejected, or it differs too much from the one before."""

from collections.abc import Mapping
from typing import Any

from tasks.core.counting import counted
from tasks.core.drift import ENOUGH_ROWS, Drift
from tasks.core.requests import Order


def rejects_too_much(order: Order, rejected: int, judged: int) -> bool:
    """Whether the share of rejected rows is above the allowed one; a share of few rows says nothing."""
    return judged >= ENOUGH_ROWS and rejected > order.max_rejected_share * judged


def find_refusal(order: Order, figures: Mapping[str, Any]) -> str:
    """Return why the rows with these figures of the report may not be published, where to look and what to change.

    Empty text where they may.
    """
    judged, rejected = figures["judged"], figures["rejected"]
    # A later night may have nothing left but descriptions of which nothing ever comes.
    fresh = not (figures["already_served"] or figures["already_rejected"])
    is_all = fresh and rejected == judged and rejected > order.max_rejected_share * judged
    if is_all or rejects_too_much(order, rejected, judged):
        return _say_rejected(order, figures)
    drift: Drift | None = figures["drift"]
    if judged >= ENOUGH_ROWS and drift is not None and drift.worst.drift > order.max_drift:
        return _say_different(order, drift)
    return ""


def _say_rejected(order: Order, figures: Mapping[str, Any]) -> str:
    judged, rejected = figures["judged"], figures["rejected"]
    reasons = ", ".join(f"{reason} {rows:,}" for reason, rows in list(figures["reasons"].items())[:5])
    return (
        f"{rejected / judged:.0%} of {counted(judged, 'row was', 'rows were')} rejected, above the allowed "
        f"{order.max_rejected_share:.0%} ({reasons}). Nothing was published; every paid completion is kept. "
        f"Read {order.layout.report_page(order.run_id, 'html')}, and all rows in {order.staging}/judged/, then raise "
        "--max-rejected-share or change the model, and run again."
    )


def _say_different(order: Order, drift: Drift) -> str:
    worst = drift.worst
    return (
        f"{worst.name.capitalize()} differ by {worst.drift:.0%} from {drift.partition}, above the allowed "
        f"{order.max_drift:.0%}. Nothing was published; every paid completion is kept. Read "
        f"{order.layout.report_page(order.run_id, 'html')}, then raise --max-drift or mend the source, and run again."
    )
