"""Before a brainstorming: whether its parts work, and what it would do and cost."""

from typing import Any

from rich.console import Console

from flows.order_lists import place_brainstorm, place_pairs
from flows.parts import Check, show_check, try_parts
from flows.preflight import show_cost, show_range
from flows.screen import make_grid
from tasks.core.counting import counted
from tasks.core.estimate import ListEstimate

__all__ = ["check", "dry_run", "show_check", "show_estimate"]


def check(**parameters: Any) -> Check:
    """Try the destination and every model: of the lists, and of the pairs with then_generate.

    Args:
        **parameters: The flow's.

    Raises:
        UsageError: A parameter is missing or cannot be right.
    """
    lists = place_brainstorm(**parameters).order
    return try_parts(place_pairs(**parameters) if parameters["then_generate"] else lists, without="source")


def dry_run(**parameters: Any) -> ListEstimate:
    """Find out what the lists would cost, without the pairs of then_generate; pays for nothing and writes nothing.

    Args:
        **parameters: The flow's.

    Raises:
        UsageError: A parameter is missing or cannot be right.
        StorageError: Bucket, credentials or endpoint.
    """
    from tasks.estimate_lists import estimate_lists  # noqa: PLC0415  (slow; the display is there first)

    return estimate_lists(place_brainstorm(**parameters))


def show_estimate(found: ListEstimate) -> None:
    """Print what a brainstorming would do and cost."""
    rows = [
        ("task descriptions", f"{found.wanted:,}", f"{counted(found.before, 'of them is', 'of them are')} there"),
        ("lists", show_range(found.lists), f"{found.cached:,} of them in the journal"),
        ("calls to pay", show_range(found.calls), "as many as bring enough new ones"),
        ("tokens in", show_range(found.input_tokens), ""),
        ("tokens out", show_range(found.output_tokens), ""),
        ("cost", show_cost(found.cost_usd), "of the lists alone"),
    ]
    console = Console(highlight=False)
    console.print("A dry run: nothing is paid for or written.")
    console.print(make_grid(rows))
