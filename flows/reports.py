"""What came of each flow, as a person reads it in the terminal."""

import sys

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from flows.screen import make_grid
from tasks.core.backfill import BackfillReport, backfill_headline
from tasks.core.brainstorming import BrainstormReport
from tasks.core.exports import ExportReport
from tasks.core.report import RunReport, reason_rows
from tasks.core.showing import shown
from tasks.core.upkeep import UpkeepReport, upkeep_headline
from tasks.core.wording import MODEL_COLUMNS, model_rows, money, money_per_pairs

MOST_LANGUAGES = 12
NO_PRICE = "litellm has no price for this model"


def show_summary(report: RunReport) -> None:
    """Print what the run did."""
    console = _open_console()
    notes = (Text(shown(note), style="yellow") for note in _notes(report))
    console.print(
        Panel(Group(_figures(report), *notes), title=_title(report), title_align="left", border_style=_colour(report))
    )
    if report.reasons:
        console.print(_reasons(report))
    if len(report.by_language) > 1:
        console.print(_languages(report))
    if models := model_rows(report):
        console.print(_models(models))
    if report.samples:
        console.print(_samples(report))
    if report.pairs_version is not None:
        console.print(Text.assemble("The dataset is ", (report.pairs_uri, "bold"), ". To read it:"))
        console.print(
            Text(f'\n    import polars as pl\n    pairs = pl.read_delta("{report.pairs_uri}")\n    print(pairs)\n')
        )


def show_backfill(report: BackfillReport) -> None:
    """Print what became of each day, and what the days that failed say."""
    table = Table("day", "state", "accepted", "rejected", "calls paid", "from the journal", "cost")
    for day in report.days:
        figures = (day.accepted, day.rejected, day.paid, day.cached)
        cells = ["" if figure is None else f"{figure:,}" for figure in figures]
        state = Text(day.state, style="green" if day.done else "red")
        table.add_row(day.partition, state, *cells, "" if day.accepted is None else money(day.cost_usd))
    console = _open_console()
    console.print(table)
    for day in report.days:
        if not day.done:
            console.print(Text(shown(f"{day.partition}: {day.message}"), style="yellow"))
    if not report.problem:
        console.print(f"{backfill_headline(report)}.")


def show_upkeep(report: UpkeepReport) -> None:
    """Print what was done to a destination."""
    console = Console(highlight=False, soft_wrap=True)
    for line in report.done:
        console.print(Text(shown(line)))
    console.print(Text(f"{upkeep_headline(report)}."))


def show_export(report: ExportReport) -> None:
    """Print what the export holds and how to read it."""
    console = Console(highlight=False, soft_wrap=True)
    rows = Table("split", "pairs", title=f"Export {report.version}", title_justify="left")
    for split, count in report.rows.items():
        rows.add_row(split, f"{count:,}")
    console.print(rows)
    for cause, count in report.left_out.items():
        console.print(Text(f"{count:,} pairs left out: {cause.replace('_', ' ')}", style="dim"))
    if not report.exported:
        console.print(Text("It was there already, and was not written again.", style="dim"))
    read = "import polars as pl" if report.uri.startswith("s3://") else "from datasets import load_dataset"
    line = f'pl.read_parquet("{report.uri}/pairs/train.parquet")'
    if not report.uri.startswith("s3://"):
        line = f'load_dataset("{report.uri}", "pairs")'
    console.print(Text.assemble("It lies in ", (report.uri, "bold"), ". To read it:"))
    console.print(Text(f"\n    {read}\n    pairs = {line}\n    print(pairs)\n"))


def show_brainstorm(report: BrainstormReport | RunReport) -> None:
    """Print what a brainstorming brought, or the run that followed it."""
    if isinstance(report, RunReport):
        show_summary(report)
        return
    console = _open_console()
    reasons = ", ".join(f"{reason} {rows:,}" for reason, rows in report.reasons.items())
    good = " + ".join(f"{one.new:,} of {one.items:,}" for one in report.rounds)
    rows = [
        ("task descriptions", f"{report.total:,}", f"of {report.wanted:,} wanted; {report.before:,} were there"),
        ("in the lists", f"{report.items:,}", f"in {report.lists:,} lists; {good} good and in no list before"),
        ("new", f"{report.added:,}", f"{report.surplus:,} more than wanted, left out"),
        ("rejected", f"{report.rejected:,}", reasons),
        ("calls paid", f"{report.paid:,}", f"{report.cached:,} answered from the journal"),
        ("cost", money(report.cost_usd), "" if report.cost_usd is not None else NO_PRICE),
        ("stopped by", report.stopped, report.model_name),
    ]
    colour = "green" if report.stopped == "enough" else "yellow"
    console.print(Panel(make_grid(rows), title="task descriptions", title_align="left", border_style=colour))
    for sample in report.samples:
        console.print(Text(shown(f"  {sample}")))
    console.print(Text.assemble("They lie in ", (report.source, "bold"), ", a source like any other."))


def _open_console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else 100)


def _title(report: RunReport) -> str:
    if not report.requests:
        return f"{report.partition}: nothing to do"
    return f"{report.partition}: {'published' if report.published else 'preview, not published'}"


def _colour(report: RunReport) -> str:
    return "green" if report.published or not report.requests else "yellow"


def _figures(report: RunReport) -> Table:
    rows = [
        ("task descriptions", f"{report.descriptions:,}", _left_out(report)),
        ("accepted", f"{report.accepted:,}", f"{report.rejected:,} rejected, {report.shortfall:,} still missing"),
        ("calls paid", f"{report.paid:,}", f"{report.cached:,} answered from the journal{_batched(report)}"),
        ("repeated", f"{report.retried:,}", f"{report.throttled:,} told to wait by the provider"),
        ("in flight", f"{report.calls_in_flight:,}", "calls at once, as the provider allowed"),
        ("tokens", f"{report.input_tokens:,} in", f"{report.output_tokens:,} out"),
        ("cost", money(report.cost_usd), NO_PRICE if report.cost_usd is None else money_per_pairs(report)),
        ("seconds", f"{report.seconds:,.1f}", report.model_name),
    ]
    return make_grid(rows)


def _batched(report: RunReport) -> str:
    return f"; {report.batched:,} paid by batch ({report.batches:,}), at half price" if report.batched else ""


def _left_out(report: RunReport) -> str:
    counts = {
        "served already": report.already_served,
        "left to another run at work": report.claimed,
        "with no attempt left": report.given_up,
        "repeated": report.repeated,
        "in unknown languages": sum(report.unknown_languages.values()),
        "blank": report.blank,
    }
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)


def _notes(report: RunReport) -> list[str]:
    notes = []
    if not report.requests:
        left = f", or left to another run at work ({report.claimed:,})" if report.claimed else ""
        left += f"; {report.given_up:,} are short and have no attempt left" if report.given_up else ""
        notes.append(f"No call was paid for: what the source holds is served{left}.")
        if report.already_served:
            notes.append("--on-published redo judges it again; with another --seed too, it pays for fresh completions.")
    if report.shortfall:
        reasons = ", ".join(f"{reason} {pairs:,}" for reason, pairs in report.shortfall_reasons.items())
        notes.append(
            f"{report.shortfall:,} pairs are still missing, after {report.max_attempts_per_pair} attempts for each "
            f"({reasons}). A higher --max-attempts-per-pair tries those again."
        )
    if report.source_changes:
        notes.append("The source has changed since the last run of this partition:")
        notes += [f"  {change}" for change in report.source_changes[:5]]
    return notes


def _titled(title: str, table: Table) -> Group:
    # A table's own title is broken at the table's width.
    return Group(Text(title, style="italic"), table)


def _reasons(report: RunReport) -> Group:
    table = Table("reason", "rows", "share")
    for row in reason_rows(report):
        table.add_row(row["reason"], f"{row['rows']:,}", row["share"])
    return _titled("Rejected; a row may have several reasons", table)


def _languages(report: RunReport) -> Group:
    title = "Languages" if len(report.by_language) <= MOST_LANGUAGES else f"Languages, {MOST_LANGUAGES} most frequent"
    table = Table("language", "accepted", "rejected", "missing")
    most = sorted(report.by_language.items(), key=lambda item: -item[1].accepted)[:MOST_LANGUAGES]
    for name, one in most:
        table.add_row(name, f"{one.accepted:,}", f"{one.rejected:,}", f"{one.missing:,}")
    return _titled(title, table)


def _models(rows: list[list[str]]) -> Group:
    table = Table(*MODEL_COLUMNS)
    for row in rows:
        table.add_row(*(Text(shown(cell)) for cell in row))
    return _titled("Models", table)


def _samples(report: RunReport) -> Group:
    table = Table("task description", "input", "positive document", show_lines=True)
    for pair in report.samples:
        table.add_row(*(Text(shown(text)) for text in (pair.task, pair.input, pair.positive_document)))
    return _titled("Sample pairs", table)
