"""What came of a brainstorming and of an upkeep, as Markdown; everything that is from outside is escaped."""

from collections.abc import Sequence

from tasks.core.counting import counted
from tasks.core.findings import BrainstormReport, brainstorm_headline
from tasks.core.markdown import escape, table
from tasks.core.upkeep import UpkeepReport, upkeep_headline
from tasks.core.wording import money

# Of a line that names objects, whose names are long.
MOST = 1_000


def upkeep_markdown(report: UpkeepReport) -> str:
    """Return what was done to a destination, and first what is left to do by hand."""
    parts = [f"## {escape(upkeep_headline(report), MOST)}"]
    if report.left:
        parts += ["### Left to do by hand", _list(report.left)]
    if report.done:
        parts += ["### Done", _list(report.done)]
    return "\n\n".join(parts) + "\n"


def brainstorm_markdown(report: BrainstormReport) -> str:
    """Return what the lists brought, why descriptions were turned down, some that were not, and where all lie."""
    before = f"{counted(report.before, 'was', 'were')} there"
    surplus = counted(report.surplus, "more than wanted was", "more than wanted were")
    figures = [
        ["Task descriptions", f"{report.total:,} of {report.wanted:,} wanted; {before}"],
        ["In the lists", f"{report.items:,}, in {counted(report.lists, 'list')}"],
        ["New", f"{report.added:,}; {surplus} left out"],
        ["Turned down", f"{report.rejected:,}"],
        ["Calls paid", f"{report.paid:,}, {report.cached:,} answered from the journal"],
        ["Cost", money(report.cost_usd)],
        ["Ended by", escape(report.stopped)],
        ["Model", escape(report.model_name)],
    ]
    parts = [f"## {escape(brainstorm_headline(report))}", table(["Figure", "Value"], figures)]
    if report.reasons:
        reasons = [[escape(reason), f"{rows:,}"] for reason, rows in report.reasons.items()]
        parts += ["### Why descriptions were turned down", table(["Reason", "Descriptions"], reasons)]
    if report.samples:
        parts += ["### Some of them", _list(report.samples)]
    places = [uri for uri in (report.source, report.rejected_uri) if uri]
    return "\n\n".join([*parts, "### Where they lie", _list(places)]) + "\n"


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {escape(line, MOST)}" for line in lines)
