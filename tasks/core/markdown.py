"""The report as Markdown; everything that a model or a source wrote is escaped."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tasks.core.counting import counted
from tasks.core.drift import Profile
from tasks.core.layout import Layout
from tasks.core.report import RunReport, headline, reason_rows
from tasks.core.showing import shown
from tasks.core.wording import (
    MODEL_COLUMNS,
    describe_variety,
    list_unknown,
    model_rows,
    money,
    money_per_pairs,
    telling_variations,
)

_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~&:@])")


def escape(text: str, most: int = 200) -> str:
    """Return `text` on one line, as Markdown that shows it as it is, cut to `most` characters."""
    line = shown(" ".join(text.split()))
    return _SPECIAL.sub(r"\\\1", line if len(line) <= most else line[: most - 1] + "…")


def report_markdown(report: RunReport, find_address: Callable[[str], str] = lambda _: "") -> str:
    """Return the whole report: headline figures, reasons, languages, sample pairs, where everything lies.

    Args:
        report: The run's.
        find_address: Returns where a browser opens a URI, empty where it cannot.
    """
    parts = [
        f"## {escape(headline(report))}",
        *_source_changes(report),
        table(["Figure", "Value"], _figures(report)),
        *_rejections(report),
        *_shortfalls(report),
        *_languages(report),
        *_variety(report),
        *_models(report),
        *_variations(report),
        *_drift(report),
        *_changes(report),
        *_samples(report),
        "### Where it lies",
        _places(report, find_address),
    ]
    return "\n\n".join(parts) + "\n"


def rejected_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rejected rows (`reasons`, `task`, `language`, `text`) as a table, with the start of what was answered."""
    cells = [
        [escape(", ".join(row["reasons"])), escape(row["task"]), row["language"], escape(row["text"] or "", most=300)]
        for row in rows
    ]
    return table(["Reasons", "Task description", "Language", "The model wrote"], cells) + "\n"


def _source_changes(report: RunReport) -> list[str]:
    if not report.source_changes:
        return []
    changes = "\n".join(f"- {escape(change)}" for change in report.source_changes)
    return ["The source has changed since this partition's last run:", changes]


def _figures(report: RunReport) -> list[list[str]]:
    return [
        ["Accepted", _of_judged(report.accepted, report)],
        ["Rejected", _of_judged(report.rejected, report)],
        ["Still missing", f"{report.shortfall:,}"],
        ["Cost", ", ".join(filter(None, [money(report.cost_usd), money_per_pairs(report)]))],
        ["Calls paid", f"{report.paid:,}, {report.cached:,} answered from the journal"],
        ["Task descriptions", f"{report.descriptions:,}"],
        ["Served already", f"{report.already_served:,}"],
        *([["Left to another run at work", f"{report.claimed:,}"]] if report.claimed else []),
        *([["Too long", f"{report.too_long:,}"]] if report.too_long else []),
        *([["In unknown languages", escape(unknown)]] if (unknown := list_unknown(report.unknown_languages)) else []),
        ["Requests", f"{report.requests:,}, in {counted(report.rounds, 'round')}"],
        ["Calls in flight, settled at", f"{report.calls_in_flight:,}"],
        ["Tokens in / out", f"{report.input_tokens:,} / {report.output_tokens:,}"],
        ["Seconds", f"{report.seconds:,.1f}"],
        ["Model", escape(report.model_name)],
    ]


def _rejections(report: RunReport) -> list[str]:
    if not report.reasons:
        return []
    rows = [[escape(row["reason"]), f"{row['rows']:,}", row["share"]] for row in reason_rows(report)]
    parts = ["### Why rows were rejected", table(["Reason", "Rows", "Share"], rows)]
    if report.profile is not None and report.profile.examples:
        parts.append(table(["For example", "Input", "Positive document"], _examples(report.profile)))
    return parts


def _shortfalls(report: RunReport) -> list[str]:
    if not report.shortfalls:
        return []
    rows = [[escape(one.task), one.language, f"{one.missing:,}", escape(one.reason)] for one in report.shortfalls]
    return ["### Still missing", table(["Task description", "Language", "Pairs", "Main reason"], rows)]


def _languages(report: RunReport) -> list[str]:
    if not report.by_language:
        return []
    rows = [
        [name, f"{one.accepted:,}", f"{one.rejected:,}", f"{one.missing:,}"] for name, one in report.by_language.items()
    ]
    return ["### Languages", table(["Language", "Accepted", "Rejected", "Missing"], rows)]


def _variety(report: RunReport) -> list[str]:
    if report.profile is None:
        return []
    facts = describe_variety(report, report.profile)
    return ["### Variety", table(["Figure", "Value"], [[escape(said), escape(found)] for said, found in facts.items()])]


def _models(report: RunReport) -> list[str]:
    rows = [[escape(name), *cells] for name, *cells in model_rows(report)]
    return ["### Models", table(list(MODEL_COLUMNS), rows)] if rows else []


def _variations(report: RunReport) -> list[str]:
    rows = [
        [escape(value), f"{one.accepted:,}", f"{one.rejected:,}", f"{one.duplicates:,}", _figure(one.distinct_2)]
        for value, one in telling_variations(report).items()
    ]
    header = ["Value", "Accepted", "Rejected", "Duplicates", "distinct-2"]
    return ["### Variations of later samples", table(header, rows)] if rows else []


def _drift(report: RunReport) -> list[str]:
    if report.drift is None:
        return []
    rows = [[one.name, _percent(one.before), _percent(one.now), _percent(one.drift)] for one in report.drift.measures]
    return [f"### Beside {report.drift.partition}", table(["", "Before", "Now", "Drift"], rows)]


def _changes(report: RunReport) -> list[str]:
    changes = report.changes
    if changes is None:
        return []
    both = {"accepted": changes.newly_accepted, "rejected": changes.newly_rejected}
    rows = [[kind, escape(reason), f"{count:,}"] for kind, counts in both.items() for reason, count in counts.items()]
    parts = ["### What judging again changed", f"{counted(changes.as_before, 'row is', 'rows are')} judged as before."]
    return [*parts, table(["Now", "Reason", "Rows"], rows)] if rows else parts


def _samples(report: RunReport) -> list[str]:
    samples = report.profile.pairs_to_read if report.profile is not None else report.samples
    if not samples:
        return []
    # Prefect's UI breaks no cell: what is read first stands first.
    rows = [[escape(one.input), escape(one.positive_document), escape(one.task)] for one in samples]
    return ["### Sample pairs", table(["Input", "Positive document", "Task description"], rows)]


def _places(report: RunReport, find_address: Callable[[str], str]) -> str:
    layout = Layout(report.destination)
    places = {
        "This report as a page": layout.report_page(report.run_id, "html"),
        "All its figures as JSON": layout.report(report.run_id),
    }
    if report.pairs_version is not None:
        places |= {"Pairs (Delta table)": report.pairs_uri, "Rejected rows (Delta table)": layout.rejected}
    return "\n".join(f"- {name}: {_link(uri, find_address(uri))}" for name, uri in places.items())


def _examples(profile: Profile) -> list[list[str]]:
    """Return rows of the reasons' examples; one without texts shows the start of its raw text."""
    return [
        [escape(reason), escape(one["input"] or one["text"] or ""), escape(one["positive_document"] or "")]
        for reason, found in profile.examples.items()
        for one in found
    ]


def _link(uri: str, address: str) -> str:
    text = escape(uri, most=1_000)
    return f"[{text}](<{address}>)" if address else text


def _of_judged(rows: int, report: RunReport) -> str:
    return f"{rows:,}, {rows / report.judged:.1%} of the rows judged" if report.judged else f"{rows:,}"


def _figure(share: float | None) -> str:
    return "too few pairs" if share is None else f"{share:.3f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table of cells that are escaped already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
