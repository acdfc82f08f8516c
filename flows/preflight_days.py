"""Before a backfill: whether its parts work, and what its days would do and cost."""

from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from flows.backfill import OWN, check_backfill
from flows.order import place_order
from flows.parts import Check, show_check, try_parts
from flows.preflight import show_cost
from tasks.core.counting import counted
from tasks.core.errors import SchemaError, SourceError
from tasks.core.estimate import RangeEstimate, add_up
from tasks.core.layout import PARTITION_FIELD
from tasks.core.requests import Order
from tasks.core.showing import shown

__all__ = ["check", "dry_run", "show_check", "show_estimate"]


def check(**parameters: Any) -> Check:
    """Try what the first day needs.

    Args:
        **parameters: The flow's.

    Raises:
        UsageError: A parameter is missing or cannot be right.
    """
    return try_parts(_orders(parameters)[0])


def dry_run(**parameters: Any) -> RangeEstimate:
    """Find out what each day would do and cost; pays for nothing and writes nothing.

    A source without {partition} is the same every day: the first one makes it all.

    Args:
        **parameters: The flow's.

    Raises:
        UsageError: A parameter is missing or cannot be right.
        StorageError: Bucket, credentials or endpoint.
    """
    from tasks.estimate import estimate_run  # noqa: PLC0415  (slow; the display is there first)

    days, problems = [], {}
    orders = _orders(parameters)
    days_alike = 0 if PARTITION_FIELD in parameters["source"] else len(orders)
    for order in orders[:1] if days_alike else orders:
        try:
            days.append(estimate_run(order))
        except (SourceError, SchemaError) as error:
            problems[order.partition] = str(error)
    return add_up(days, problems, parameters["max_cost_usd"], days_alike)


def show_estimate(found: RangeEstimate) -> None:
    """Print what a backfill would do and cost."""
    whole = (Column(name, no_wrap=True) for name in ("day", "descriptions", "requests"))
    grid = Table(*whole, "in the journal", "calls to pay", "cost")
    for day in found.days:
        counts = [f"{count:,}" for count in (day.descriptions, day.requests, day.cached, day.calls)]
        grid.add_row(day.partition, *counts, show_cost(day.cost_usd))
    console = Console(highlight=False)
    console.print("A dry run: nothing is paid for or published.")
    console.print(grid)
    again = f", at most {found.calls_most - found.calls:,} more for what validation rejects"
    console.print(Text(f"{counted(found.calls, 'call')} to pay{again}; cost: {show_cost(found.cost_usd)}"))
    if found.claimed:
        more = counted(found.claimed, "description more is", "descriptions more are")
        console.print(Text(f"{more} made, and paid for, by a run at work.", "yellow"))
    if found.days_alike > 1:
        console.print(
            Text(
                f"The source has no {PARTITION_FIELD}, so each of the {found.days_alike:,} days reads the same: "
                "the first makes it all, and the others find it served.",
                style="yellow",
            )
        )
    for name, problem in found.problems.items():
        console.print(Text(shown(f"{name}: {problem}"), style="yellow"))


def _orders(parameters: dict[str, Any]) -> list[Order]:
    shared = {name: value for name, value in parameters.items() if name not in OWN}
    return [place_order(partition=day, limit=0, **shared) for day in check_backfill(**parameters)]
