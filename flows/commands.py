"""What the command line can do: its flows, what --check and --dry-run do in their place, and how it exits."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

PUBLISHED, FAILED, WRONG_USAGE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


@dataclass(frozen=True)
class Command:
    """One flow of the command line; each place is module:name, imported when it is needed.

    `check` takes the flow's parameters and refuses what cannot be right before
    Prefect starts; `show` prints the flow's result for a person. `rehearsal` is the module of what
    --check and --dry-run do in the flow's place, empty where they have no meaning.
    """

    flow: str
    check: str
    show: str
    help: str = ""
    rehearsal: str = ""


# By the sub-command's name; the main flow has none.
COMMANDS = {
    "": Command(
        "flows.short_text_matching:generate_short_text_pairs",
        "flows.order:place_order",
        "flows.reports:show_summary",
        rehearsal="flows.preflight",
    ),
    "brainstorm": Command(
        "flows.brainstorm:brainstorm",
        "flows.order_lists:place_brainstorm",
        "flows.other_reports:show_brainstorm",
        help="Brainstorm task descriptions, out of nothing.",
        rehearsal="flows.preflight_lists",
    ),
    "backfill": Command(
        "flows.backfill:backfill",
        "flows.backfill:check_backfill",
        "flows.other_reports:show_backfill",
        help="Generate pairs for every day of a range.",
        rehearsal="flows.preflight_days",
    ),
    "maintain": Command(
        "flows.maintain:maintain",
        "flows.maintain:check_maintain",
        "flows.other_reports:show_upkeep",
        help="Tidy a destination, or erase one task description.",
    ),
    "export": Command(
        "flows.export:export_pairs",
        "flows.export:place_export",
        "flows.other_reports:show_export",
        help="Write the published pairs as a dataset to train on.",
    ),
}


@dataclass(frozen=True)
class Rehearsal:
    """What an option of the command line does in place of a flow, with its parameters: two functions of a module.

    `step` is what the display says meanwhile.
    """

    act: str
    show: str
    step: str


CHECK = Rehearsal("check", "show_check", "check")
DRY_RUN = Rehearsal("dry_run", "show_estimate", "extract")


def find(place: str) -> Any:
    """Import what a place, module:name, names."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
