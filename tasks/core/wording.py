"""How a report's figures read, alike in the terminal, as Markdown and on its page."""

from tasks.core.counting import counted
from tasks.core.drift import Profile
from tasks.core.report import RunReport, VariationFigures
from tasks.core.requests import MOST_CHARACTERS

TITLES = {"input": "Inputs", "positive_document": "Positive documents"}

MODEL_COLUMNS = (
    *("model", "accepted", "rejected", "share", "taken over", "turned down"),
    *("cost", "per 1,000 pairs"),
)


def money(cost_usd: float | None) -> str:
    """Return US dollars as text; unknown is never 0."""
    return "unknown" if cost_usd is None else f"${cost_usd:,.4f}"


def money_per_pairs(report: RunReport) -> str:
    """Return what accepted pairs cost; empty where there are none or the cost is unknown."""
    if report.cost_usd is None or not report.accepted:
        return ""
    return f"{money(1000 * report.cost_usd / report.accepted)} per 1,000 accepted pairs"


def name_unknown(languages: dict[str, int]) -> list[str]:
    """Return the sentence that names languages which are not known, with their rows; none where there are none."""
    return [f"Rows are left out for a language that is not known: {list_unknown(languages)}."] if languages else []


def name_long(rows: int) -> list[str]:
    """Return the sentence about rows with a description that is too long; none where there are none."""
    if not rows:
        return []
    return [f"Rows are left out for a description of more than {MOST_CHARACTERS:,} characters: {rows:,}."]


def list_unknown(languages: dict[str, int]) -> str:
    """List what the first five unknown languages say, with their rows."""
    return ", ".join(f"{text!r} ({rows:,})" for text, rows in list(languages.items())[:5])


def describe_variety(report: RunReport, profile: Profile) -> dict[str, str]:
    """Return what is said of the accepted texts: flags, shared texts, lengths, distinct-n and repeated openings."""
    facts = {f"Rows with the flag {flag}": f"{count:,}" for flag, count in report.flags.items()}
    shared = report.shared_texts
    facts["Pairs that share a text with another"] = (
        f"{shared.pairs:,} in {counted(shared.groups, 'group')}, the largest of {shared.largest:,}"
        if shared.pairs
        else "none"
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


def telling_variations(report: RunReport) -> dict[str, VariationFigures]:
    """Return the figures of each variation; none where all are of so few rows that they tell nothing."""
    measured = any(one.distinct_2 is not None for one in report.by_variation.values())
    return report.by_variation if measured else {}
