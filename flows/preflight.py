"""Before a run: whether its parts work, and what it would do and cost."""

from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.text import Text

from flows.order import place_order
from flows.parts import Check, show_check, try_parts
from flows.screen import make_grid
from tasks.core.counting import counted, noun
from tasks.core.estimate import Estimate
from tasks.core.showing import shown
from tasks.core.wording import money, name_long, name_unknown

__all__ = ["check", "dry_run", "show_check", "show_estimate"]


def check(**parameters: Any) -> Check:
    """Try the source, the destination and every model: one listing, writes and a delete, one paid call each.

    Args:
        **parameters: The flow's.

    Raises:
        UsageError: A parameter is missing or cannot be right.
    """
    return try_parts(place_order(**parameters))


def dry_run(**parameters: Any) -> Estimate:
    """Find out what the main flow would do and cost; pays for nothing and writes nothing.

    Args:
        **parameters: The flow's.

    Raises:
        UsageError: A parameter is missing or cannot be right.
    """
    from tasks.estimate import estimate_run  # noqa: PLC0415  (slow; the display is there first)

    return estimate_run(place_order(**parameters))


def show_estimate(found: Estimate) -> None:
    """Print what a run would do and cost."""
    left_out = {
        "served already": found.already_served,
        noun(found.already_rejected, "row") + " rejected before": found.already_rejected,
        "repeated": found.repeated,
        "in unknown languages": sum(found.unknown_languages.values()),
        "too long": found.too_long,
        "blank": found.blank,
    }
    again = found.calls_most - found.calls
    cost = show_cost(found.cost_usd)
    made = f"{noun(found.claimed, 'description')} that a run at work is making"
    at_work = [("at work", f"{found.claimed:,}", made)] if found.claimed else []
    rows = [
        (
            "task descriptions",
            f"{found.descriptions:,}",
            ", ".join(f"{n:,} {what}" for what, n in left_out.items() if n),
        ),
        *at_work,
        ("requests", f"{found.requests:,}", f"{found.cached:,} of them in the journal"),
        ("calls to pay", f"{found.calls:,}", f"at most {again:,} more for what validation rejects" if again else ""),
        ("tokens in", show_range(found.input_tokens), f"from {found.tokens_from}" if found.calls else ""),
        ("tokens out", show_range(found.output_tokens), ""),
        ("cost", cost, _explain_cost(found)),
    ]
    console = Console(highlight=False)
    console.print(f"[bold]{found.partition}[/]: a dry run, nothing is paid for or published")
    console.print(make_grid(rows))
    for note in _notes(found):
        console.print(Text(shown(note), style="yellow"))


def _explain_cost(found: Estimate) -> str:
    if not found.calls or found.cost_usd is None:
        return ""
    alone = f"of {counted(found.calls, 'call')}; " if found.calls_most > found.calls else ""
    return f"{alone}price from {found.price_from}"


def _notes(found: Estimate) -> list[str]:
    notes = name_long(found.too_long) + name_unknown(found.unknown_languages)
    if found.claimed:
        notes.append("What a run at work is making is paid for by that run; what it leaves, the next one asks for.")
    if not found.requests and found.would_publish:
        notes.append(f"Other days serve what the source holds: a redo leaves no rows of {found.partition}.")
    elif not found.requests:
        other = "else " if found.claimed else ""
        blank = ", or is blank" if not (found.descriptions or found.already_served) else ""
        notes.append(f"There is nothing {other}to do: what the source holds is served, or was judged before{blank}.")
    elif not found.would_publish:
        notes.append("With --limit a run shows a preview and does not publish.")
    if found.cost_usd is None:
        notes.append(
            f"litellm knows no price for {found.model_name}. To know the cost, give --input-cost-per-token and "
            "--output-cost-per-token in US dollars a token ($0.40 a million is 0.0000004)."
        )
    elif found.max_cost_usd and found.cost_usd[1] > found.max_cost_usd:
        notes.append(f"It may stop at --max-cost-usd {found.max_cost_usd:,.2f}; the same command then goes on.")
    return notes


def show_cost(between: tuple[float, float] | None) -> str:
    """Return a range of US dollars as text."""
    return "price unknown" if between is None else show_range(between, money)


def show_range(between: tuple[float, float], write: Callable[[float], str] = "{:,.0f}".format) -> str:
    """Return a range as text, one number where both ends are equal."""
    low, high = map(write, between)
    return low if low == high else f"{low} to {high}"
