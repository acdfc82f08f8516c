"""What came of every other flow, as a person reads it in the terminal."""

import sys

from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Column, Table
from rich.text import Text

from flows.reports import NO_PRICE, open_console, show_summary
from flows.screen import make_grid, open_lines
from tasks.core.backfill import BackfillReport, backfill_headline
from tasks.core.counting import counted
from tasks.core.exports import ExportReport
from tasks.core.findings import BrainstormReport
from tasks.core.report import RunReport
from tasks.core.showing import shown
from tasks.core.upkeep import UpkeepReport, upkeep_headline
from tasks.core.wording import money


def show_backfill(report: BackfillReport) -> None:
    """Print what became of each day, and what the days that failed say."""
    # A figure that is cut is nobody's: two headings take several lines where the terminal is narrow.
    whole = [Column(name, no_wrap=True) for name in ("day", "state", "accepted", "rejected")]
    table = Table(*whole, "calls paid", "from the journal", Column("cost", no_wrap=True))
    for day in report.days:
        table.add_row(day.partition, Text(day.state, style="green" if day.done else "red"), *day.figures)
    console = open_console()
    console.print(table)
    for day in report.days:
        if not day.done:
            console.print(Text(shown(f"{day.partition}: {day.message}"), style="yellow"))
    if not report.problem:
        console.print(f"{backfill_headline(report)}.")


def show_upkeep(report: UpkeepReport) -> None:
    """Print what was done to a destination."""
    console = open_lines(sys.stdout)
    for line in report.done:
        console.print(Text(shown(line)))
    for line in report.left:
        console.print(Text(shown(line), style="yellow"))
    console.print(Text(f"{upkeep_headline(report)}."))


def show_export(report: ExportReport) -> None:
    """Print what the export holds and how to read it."""
    console = Console(highlight=False, soft_wrap=True)
    rows = Table("split", "pairs", title=f"Export {report.version}", title_justify="left")
    for split, count in report.rows.items():
        rows.add_row(split, f"{count:,}")
    console.print(rows)
    for cause, count in report.left_out.items():
        console.print(Text(f"{counted(count, 'pair')} left out: {cause.replace('_', ' ')}", style="dim"))
    if not report.exported:
        console.print(Text("It was there already, and was not written again.", style="dim"))
    if report.uri.startswith("s3://"):
        library, pairs = "import polars as pl", f'pl.read_parquet("{report.uri}/pairs/train.parquet")'
    else:
        library, pairs = "from datasets import load_dataset", f'load_dataset("{report.uri}", "pairs")'
    console.print(Text.assemble("It lies in ", (report.uri, "bold"), ". To read it:"))
    console.print(Text(f"\n    {library}\n    pairs = {pairs}\n    print(pairs)\n"))


def show_brainstorm(report: BrainstormReport | RunReport) -> None:
    """Print what a brainstorming brought, or the run that followed it."""
    if isinstance(report, RunReport):
        show_summary(report, brainstormed=True)
        return
    console = open_console()
    reasons = ", ".join(f"{reason} {rows:,}" for reason, rows in report.reasons.items())
    good = " + ".join(f"{one.new:,} of {one.items:,}" for one in report.rounds)
    lists = f"in {counted(report.lists, 'list')}; {good} good and in no list before" if report.lists else ""
    before = f"{counted(report.before, 'was', 'were')} there"
    rows = [
        ("task descriptions", f"{report.total:,}", f"of {report.wanted:,} wanted; {before}"),
        ("in the lists", f"{report.items:,}", lists),
        ("new", f"{report.added:,}", f"{report.surplus:,} more than wanted, left out"),
        ("rejected", f"{report.rejected:,}", reasons),
        ("calls paid", f"{report.paid:,}", f"{report.cached:,} answered from the journal"),
        ("cost", money(report.cost_usd), "" if report.cost_usd is not None else NO_PRICE),
        ("stopped by", report.stopped, report.model_name),
    ]
    colour = "green" if report.stopped == "enough" else "yellow"
    console.print(Panel(make_grid(rows), title="task descriptions", title_align="left", border_style=colour))
    for sample in report.samples:
        console.print(Padding(Text(shown(sample)), (0, 0, 0, 2)))
    console.print(Text.assemble("They lie in ", (report.source, "bold"), ", a source like any other."))
