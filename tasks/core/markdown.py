"""The report as Markdown; everything that a model or a source wrote is escaped."""

import re
from collections.abc import Callable

from tasks.core.drift import Profile
from tasks.core.layout import Layout
from tasks.core.report import RunReport, VariationFigures, headline, reason_rows
from tasks.core.showing import shown

TITLES = {"input": "Inputs", "positive_document": "Positive documents"}
_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~&:@])")

MODEL_COLUMNS = (
    *("model", "accepted", "rejected", "share", "taken over", "turned down"),
    *("cost", "per 1,000 pairs"),
)


def escape(text: str, most: int = 200) -> str:
    """Return `text` on one line, as Markdown that shows it as it is, cut to `most` characters."""
    line = shown(" ".join(text.split()))
    return _SPECIAL.sub(r"\\\1", line if len(line) <= most else line[: most - 1] + "…")


def money(cost_usd: float | None) -> str:
    """Return US dollars as text; unknown is never 0."""
    return "unknown" if cost_usd is None else f"${cost_usd:,.4f}"


def money_per_pairs(report: RunReport) -> str:
    """Return what accepted pairs cost; empty where there are none or the cost is unknown."""
    if report.cost_usd is None or not report.accepted:
        return ""
    return f"{money(1000 * report.cost_usd / report.accepted)} per 1,000 accepted pairs"


def describe_variety(report: RunReport, profile: Profile) -> dict[str, str]:
    """Return what is said of the accepted texts: flags, shared texts, lengths, distinct-n and repeated openings."""
    facts = {f"Rows with the flag {flag}": f"{count:,}" for flag, count in report.flags.items()}
    shared = report.shared_texts
    facts["Pairs that share a text with another"] = (
        f"{shared.pairs:,} in {shared.groups:,} groups, the largest of {shared.largest:,}" if shared.pairs else "none"
    )
    for column in (column for column, lengths in profile.lengths.items() if lengths):
        half, most = (profile.most_characters(column, share) for share in (0.5, 0.95))
        facts[f"Characters of {TITLES[column].lower()}"] = f"half up to {half}, 19 of 20 up to {most}"
    for column, shares in profile.distinct.items():
        said = f"distinct-1 and distinct-2 of {profile.distinct_texts:,} {TITLES[column].lower()}"
        facts[said] = " and ".join(f"{share:.2f}" for share in shares)
    for column, openings in profile.openings.items():
        said = ", ".join(f"“{opening} …” {count:,}×" for opening, count in openings.items())
        facts[f"Repeated openings of {TITLES[column].lower()}"] = said or "none"
    return facts


def model_rows(report: RunReport) -> list[list[str]]:
    """Return the cells of a table of the models under MODEL_COLUMNS; no rows where there is but one."""
    if len(report.by_model) < 2:
        return []
    return [
        [
            name,
            f"{one.accepted:,}",
            f"{one.rejected:,}",
            f"{one.accepted / one.judged:.1%}" if one.judged else "",
            f"{one.taken_over:,}",
            ", ".join(f"{reason} {requests:,}" for reason, requests in one.turned_down.items()),
            money(one.cost_usd),
            "" if one.cost_per_pair is None else money(1000 * one.cost_per_pair),
        ]
        for name, one in report.by_model.items()
    ]


def variations(report: RunReport) -> dict[str, VariationFigures]:
    """Return the figures of each variation; none where all are of so few rows that they tell nothing."""
    measured = any(one.distinct_2 is not None for one in report.by_variation.values())
    return report.by_variation if measured else {}


def report_markdown(report: RunReport, find_address: Callable[[str], str] = lambda _: "") -> str:
    """Return the whole report: headline figures, reasons, languages, sample pairs, where everything lies.

    Args:
        report: The run's.
        find_address: Returns where a browser opens a URI, empty where it cannot.
    """
    parts = [f"## {escape(headline(report))}"]
    if report.source_changes:
        parts.append("The source has changed since this partition's last run:")
        parts.append("\n".join(f"- {escape(change)}" for change in report.source_changes))
    parts.append(
        table(
            ["Figure", "Value"],
            [
                ["Accepted", _of_judged(report.accepted, report)],
                ["Rejected", _of_judged(report.rejected, report)],
                ["Still missing", f"{report.shortfall:,}"],
                ["Cost", ", ".join(filter(None, [money(report.cost_usd), money_per_pairs(report)]))],
                ["Calls paid", f"{report.paid:,}, {report.cached:,} answered from the journal"],
                ["Task descriptions", f"{report.descriptions:,}"],
                ["Served already", f"{report.already_served:,}"],
                *([["Left to another run at work", f"{report.claimed:,}"]] if report.claimed else []),
                ["Requests", f"{report.requests:,}, in {report.rounds:,} round{'s' * (report.rounds != 1)}"],
                ["Calls in flight, settled at", f"{report.calls_in_flight:,}"],
                ["Tokens in / out", f"{report.input_tokens:,} / {report.output_tokens:,}"],
                ["Seconds", f"{report.seconds:,.1f}"],
                ["Model", escape(report.model_name)],
            ],
        )
    )
    if report.reasons:
        rows = [[escape(row["reason"]), f"{row['rows']:,}", row["share"]] for row in reason_rows(report)]
        parts += ["### Why rows were rejected", table(["Reason", "Rows", "Share"], rows)]
        if report.profile is not None and report.profile.examples:
            parts.append(table(["For example", "Input", "Positive document"], _examples(report.profile)))
    if report.shortfalls:
        short = [[escape(one.task), one.language, f"{one.missing:,}", escape(one.reason)] for one in report.shortfalls]
        parts += ["### Still missing", table(["Task description", "Language", "Pairs", "Main reason"], short)]
    if report.by_language:
        figures = [
            [name, f"{one.accepted:,}", f"{one.rejected:,}", f"{one.missing:,}"]
            for name, one in report.by_language.items()
        ]
        parts += ["### Languages", table(["Language", "Accepted", "Rejected", "Missing"], figures)]
    if report.profile is not None:
        facts = describe_variety(report, report.profile)
        parts += ["### Variety", table(["Figure", "Value"], [[escape(said), escape(facts[said])] for said in facts])]
    if models := model_rows(report):
        parts += ["### Models", table(list(MODEL_COLUMNS), [[escape(name), *cells] for name, *cells in models])]
    if variations(report):
        varied = [
            [escape(value), f"{one.accepted:,}", f"{one.rejected:,}", f"{one.duplicates:,}", _figure(one.distinct_2)]
            for value, one in report.by_variation.items()
        ]
        header = ["Value", "Accepted", "Rejected", "Duplicates", "distinct-2"]
        parts += ["### Variations of later samples", table(header, varied)]
    if report.drift is not None:
        measures = [
            [one.name, _percent(one.before), _percent(one.now), _percent(one.drift)] for one in report.drift.measures
        ]
        parts += [f"### Beside {report.drift.partition}", table(["", "Before", "Now", "Drift"], measures)]
    if report.changes is not None:
        changed = [
            [kind, escape(reason), f"{rows:,}"]
            for kind, counts in (
                ("accepted", report.changes.newly_accepted),
                ("rejected", report.changes.newly_rejected),
            )
            for reason, rows in counts.items()
        ]
        parts += ["### What judging again changed", f"{report.changes.as_before:,} rows are judged as before."]
        if changed:
            parts.append(table(["Now", "Reason", "Rows"], changed))
    samples = report.profile.pairs_to_read if report.profile is not None else report.samples
    if samples:
        # Prefect's UI breaks no cell: what is read first stands first.
        pairs = [[escape(one.input), escape(one.positive_document), escape(one.task)] for one in samples]
        parts += ["### Sample pairs", table(["Input", "Positive document", "Task description"], pairs)]
    layout = Layout(report.destination)
    places = {
        "This report as a page": layout.report_page(report.run_id, "html"),
        "All its figures as JSON": layout.report(report.run_id),
        "Pairs (Delta table)": report.pairs_uri,
        "Rejected rows (Delta table)": layout.rejected,
    }
    parts += [
        "### Where it lies",
        "\n".join(f"- {name}: {_link(uri, find_address(uri))}" for name, uri in places.items()),
    ]
    return "\n\n".join(parts) + "\n"


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
