"""What came of a run, as a person reads it in the terminal."""

import sys

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Column, Table
from rich.text import Text

from flows.screen import make_grid
from tasks.core.counting import counted, noun
from tasks.core.layout import Layout
from tasks.core.report import RunReport, reason_rows
from tasks.core.showing import shown
from tasks.core.wording import MODEL_COLUMNS, model_rows, money, money_per_pairs, name_long, name_unknown

MOST_LANGUAGES = 12
FIGURES = ("accepted", "rejected", "share", "cost")
NO_PRICE = "litellm has no price for this model"
REDO_BRAINSTORMED = (
    "More --descriptions make more. To judge these again, run the main command with their tasks/ as --source and "
    "--on-published redo."
)


def show_summary(report: RunReport, *, brainstormed: bool = False) -> None:
    """Print what the run did; one over descriptions that were `brainstormed` just before has no --on-published."""
    console = open_console()
    notes = (Text(shown(note), style="yellow") for note in _notes(report, brainstormed=brainstormed))
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
    page = Layout(report.destination).report_page(report.run_id, "html")
    console.print(Text.assemble("The whole report is ", (page, "bold"), "."))
    if report.pairs_version is not None:
        console.print(Text.assemble("The dataset is ", (report.pairs_uri, "bold"), ". To read it:"))
        code = f'\n    import polars as pl\n    pairs = pl.read_delta("{report.pairs_uri}")\n    print(pairs)\n'
        console.print(Text(code), soft_wrap=True)


def open_console() -> Console:
    """Return the terminal, or 100 characters where there is none."""
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
        *_calls(report),
        ("cost", money(report.cost_usd), NO_PRICE if report.cost_usd is None else money_per_pairs(report)),
        ("seconds", f"{report.seconds:,.1f}", report.model_name),
    ]
    return make_grid(rows)


def _calls(report: RunReport) -> list[tuple[str, str, str]]:
    """Return what is told of calls; nothing where none was made."""
    figures = []
    if report.paid or report.failed or report.retried:
        figures.append(("repeated", f"{report.retried:,}", f"and {report.throttled:,} told to wait by the provider"))
    if report.calls_in_flight:
        allowed = ", as the provider allowed" if report.throttled else ""
        calls = noun(report.calls_in_flight, "call")
        figures.append(("in flight", f"{report.calls_in_flight:,}", f"{calls} at once{allowed}"))
    if report.input_tokens or report.output_tokens:
        figures.append(("tokens", f"{report.input_tokens:,} in", f"{report.output_tokens:,} out"))
    return figures


def _batched(report: RunReport) -> str:
    return f"; {report.batched:,} paid by batch ({report.batches:,}), at half price" if report.batched else ""


def _left_out(report: RunReport) -> str:
    counts = {
        "served already": report.already_served,
        "left to another run at work": report.claimed,
        "with no attempt left": report.given_up,
        "repeated": report.repeated,
        "in unknown languages": sum(report.unknown_languages.values()),
        "too long": report.too_long,
        "blank": report.blank,
    }
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)


def _notes(report: RunReport, *, brainstormed: bool) -> list[str]:
    notes = name_long(report.too_long) + name_unknown(report.unknown_languages)
    if not report.requests:
        left = f", or left to another run at work ({report.claimed:,})" if report.claimed else ""
        left += ", or blank" if not (report.descriptions or report.already_served) else ""
        short = counted(report.given_up, "is short and has", "are short and have")
        left += f"; {short} no attempt left" if report.given_up else ""
        notes.append(f"No call was paid for: what the source holds is served{left}.")
        if report.already_served:
            notes.append(REDO_BRAINSTORMED if brainstormed else _redo(report))
    if report.shortfall:
        notes.append(_shortfall(report))
    if report.source_changes:
        notes.append("The source has changed since the last run of this partition:")
        notes += [f"  {change}" for change in report.source_changes[:5]]
    return notes


def _redo(report: RunReport) -> str:
    """Say how what is served is judged again: by its day, which need not be this run's."""
    if report.files:
        return "--on-published redo judges it again; with another --seed too, it pays for fresh completions."
    return "It is of other days: to judge one again, name it with --partition beside --on-published redo."


def _shortfall(report: RunReport) -> str:
    reasons = ", ".join(f"{reason} {pairs:,}" for reason, pairs in report.shortfall_reasons.items())
    missing = f"{counted(report.shortfall, 'pair is', 'pairs are')} still missing"
    if report.on_published == "redo":
        return (
            f"{missing} ({reasons}). A redo pays for no second try: the same command without --on-published redo asks "
            f"for them again, up to {counted(report.max_attempts_per_pair, 'time')} in all."
        )
    return (
        f"{missing}, after {counted(report.max_attempts_per_pair, 'attempt')} for each ({reasons}). A higher "
        "--max-attempts-per-pair tries those again."
    )


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
    # A name that is cut is nobody's: it takes several lines where the terminal is narrow, and figures none.
    table = Table(*(Column(name, overflow="fold", no_wrap=name in FIGURES) for name in MODEL_COLUMNS))
    for row in rows:
        table.add_row(*(Text(shown(cell)) for cell in row))
    return _titled("Models", table)


def _samples(report: RunReport) -> Group:
    table = Table("task description", "input", "positive document", show_lines=True)
    for pair in report.samples:
        table.add_row(*(Text(shown(text)) for text in (pair.task, pair.input, pair.positive_document)))
    return _titled("Sample pairs", table)
