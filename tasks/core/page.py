"""The report as one HTML page that needs nothing else: no script, no font, no other file."""

from collections.abc import Mapping
from html import escape

from tasks.core.cells import bar, columns, name, note, number, page, percent, piece, section, short, table, text
from tasks.core.counting import counted, noun
from tasks.core.drift import Changes, Drift, Profile
from tasks.core.languages import LANGUAGES
from tasks.core.report import RunReport, headline, reason_rows
from tasks.core.wording import (
    MODEL_COLUMNS,
    TITLES,
    describe_variety,
    list_unknown,
    model_rows,
    money,
    money_per_pairs,
    telling_variations,
)

MOST_LANGUAGES, MOST_SHORTFALLS = 15, 10


def report_page(report: RunReport) -> str:
    """Return the whole page, from what is read first to what is looked up."""
    parts = [_top(report)]
    if report.reasons:
        parts.append(section("Why rows were rejected", _reasons(report)))
    if report.shortfalls:
        parts.append(section("Still missing", _shortfalls(report)))
    if report.changes is not None:
        parts.append(section("What judging again changed", _changes(report.changes)))
    if report.drift is not None:
        parts.append(section(f"Beside the day before, {report.drift.partition}", _drift(report.drift)))
    if report.by_language:
        parts.append(section("Languages", _languages(report)))
    if models := model_rows(report):
        parts.append(section("Models", table(MODEL_COLUMNS, [list(map(name, cells)) for cells in models])))
    if report.profile is not None:
        if any(report.profile.lengths.values()):
            parts.append(section("Lengths", _lengths(report.profile)))
        facts = describe_variety(report, report.profile)
        parts.append(section("Variety", table(["", ""], [[name(said), text(found)] for said, found in facts.items()])))
    if telling_variations(report):
        parts.append(section("Variations of later samples", _variations(report)))
    if report.profile is not None and report.profile.pairs_to_read:
        title = f"{counted(len(report.profile.pairs_to_read), 'accepted pair')}, drawn at random"
        parts.append(section(title, _pairs(report.profile)))
    parts.append(section("This run", _run(report)))
    return page(headline(report), parts)


def _top(report: RunReport) -> str:
    share = report.accepted / max(1, report.judged)
    of_judged = f", {1 - share:.1%} of {report.judged:,}" if report.judged else ""
    cards = [
        (f"{report.accepted:,}", noun(report.accepted, "accepted pair"), "good"),
        (f"{report.rejected:,}", f"rejected{of_judged}", "bad" if report.rejected else ""),
        (f"{report.shortfall:,}", f"{noun(report.shortfall, 'pair')} still missing", "bad" if report.shortfall else ""),
        (money(report.cost_usd), money_per_pairs(report) or "cost", ""),
        (f"{report.paid:,}", f"{noun(report.paid, 'call')} paid, {report.cached:,} from the journal", ""),
        (f"{report.seconds:,.0f} s", "from start to end", ""),
    ]
    tiles = "".join(f'<div class="card"><b class="{kind}">{value}</b>{said}</div>' for value, said, kind in cards)
    verdict = "published" if report.published else "not published"
    changes = "".join(f"<li>{piece(change)}</li>" for change in report.source_changes)
    return (
        f"<h1>{report.partition}: {_title(report)}</h1>"
        f'<p class="soft">{piece(report.model_name)} · {verdict} · {report.finished_at:%Y-%m-%d %H:%M} UTC</p>'
        f'<div class="cards">{tiles}</div>'
        + (
            f'<div class="split" title="accepted and rejected"><i style="width:{share:.2%}"></i></div>'
            if of_judged
            else ""
        )
        + (f"<p>The source has changed since this day's last run:</p><ul>{changes}</ul>" if changes else "")
    )


def _title(report: RunReport) -> str:
    if not report.requests:
        return "nothing to do"
    return f"{counted(report.accepted, 'pair')}, {report.accepted / max(1, report.judged):.1%} of the rows judged"


def _reasons(report: RunReport) -> str:
    most = max(report.reasons.values())
    rows = [
        [name(row["reason"]), bar(row["rows"] / most, "bad"), number(row["rows"]), f'<td class="n">{row["share"]}</td>']
        for row in reason_rows(report)
    ]
    examples = report.profile.examples if report.profile is not None else {}
    shown = "".join(
        f"<details><summary>{escape(reason)}: {counted(len(found), 'example')}</summary>"
        + table(["Input", "Positive document", "Language"], [_example(one) for one in found])
        + "</details>"
        for reason in report.reasons
        if (found := examples.get(reason))
    )
    several = note("A row may have several reasons.") if len(report.reasons) > 1 else ""
    return (
        table(["Reason", "", "#Rows", "#Of judged"], rows) + several + shown.replace("<details>", "<details open>", 1)
    )


def _example(one: Mapping[str, str | None]) -> list[str]:
    language = one["language"] or ""
    if one["input"] is None and one["positive_document"] is None:
        raw = f'<td class="text" colspan="2" dir="auto"><code>{short(one["text"] or "no text")}</code></td>'
        return [raw, name(language, "soft")]
    return [text(one["input"] or ""), text(one["positive_document"] or ""), name(language, "soft")]


def _shortfalls(report: RunReport) -> str:
    rows = [
        [text(one.task), name(one.language), number(one.missing), name(one.reason)]
        for one in report.shortfalls[:MOST_SHORTFALLS]
    ]
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in report.shortfall_reasons.items())
    return table(["Task description", "Language", "#Pairs", "Main reason"], rows) + note(
        f"{counted(report.shortfall, 'pair')} in all, by main reason: {reasons}."
    )


def _changes(changes: Changes) -> str:
    both = (
        ("now accepted, was", "good", changes.newly_accepted),
        ("now rejected for", "bad", changes.newly_rejected),
    )
    most = max([1, *changes.newly_accepted.values(), *changes.newly_rejected.values()])
    rows = [
        [name(said, kind), name(reason), bar(count / most, kind), number(count)]
        for said, kind, counts in both
        for reason, count in counts.items()
    ]
    same = note(f"{counted(changes.as_before, 'row is', 'rows are')} judged as before.")
    return (table(["", "Reason", "", "#Rows"], rows) if rows else "") + same


def _drift(drift: Drift) -> str:
    rows = [
        [
            name(one.name),
            bar(one.drift, "bad" if one == drift.worst else ""),
            percent(one.before),
            percent(one.now),
            percent(one.drift),
        ]
        for one in drift.measures
    ]
    said = note("Languages and lengths: the share of rows that would have to move.")
    return table(["", "", "#Before", "#Now", "#Drift"], rows) + said


def _languages(report: RunReport) -> str:
    ordered = sorted(report.by_language.items(), key=lambda item: -item[1].accepted)
    most = max(1, ordered[0][1].accepted)
    rows = [
        [
            f'<td class="name">{escape(language)} <span class="soft">{LANGUAGES[language].code}</span></td>',
            bar(one.accepted / most),
            number(one.accepted),
            number(one.rejected),
            number(one.missing),
        ]
        for language, one in ordered[:MOST_LANGUAGES]
    ]
    more = len(ordered) - MOST_LANGUAGES
    rest = note(f"and {more} more, all in the JSON report") if more > 0 else ""
    return table(["Language", "", "#Accepted", "#Rejected", "#Missing"], rows) + rest


def _lengths(profile: Profile) -> str:
    charts = "".join(
        f"<div><h3>{TITLES[column]}, in characters</h3>{columns(shares)}</div>"
        for column, shares in profile.lengths.items()
    )
    return f'<div class="two">{charts}</div>'


def _variations(report: RunReport) -> str:
    rows = [
        [
            name(value),
            number(one.accepted),
            number(one.rejected),
            number(one.duplicates),
            f'<td class="n">{"too few pairs" if one.distinct_2 is None else format(one.distinct_2, ".3f")}</td>',
        ]
        for value, one in report.by_variation.items()
    ]
    return table(["Value", "#Accepted", "#Rejected", "#Duplicates", "#distinct-2"], rows)


def _pairs(profile: Profile) -> str:
    rows = [
        [
            text(one.task, kind="soft"),
            text(one.input, one.language),
            text(one.positive_document, one.language),
            name(LANGUAGES[one.language].code, "soft"),
        ]
        for one in profile.pairs_to_read
    ]
    return table(["Task description", "Input", "Positive document", ""], rows)


def _run(report: RunReport) -> str:
    version = "" if report.pairs_version is None else f", version {report.pairs_version}"
    facts = {
        "Run": report.run_id,
        "Source": report.source,
        "Published to": f"{report.pairs_uri}{version}" if report.published else "nothing was published",
        "Task descriptions": f"{report.descriptions:,}; {report.already_served:,} served already, counted by language",
        "Left to another run at work": f"{report.claimed:,}, counted by language" if report.claimed else "",
        "Too long": f"{report.too_long:,}" if report.too_long else "",
        "In unknown languages": list_unknown(report.unknown_languages),
        "Order": f"{report.pairs_per_task} per description and language, seed {report.seed}, {report.on_published}",
        "Rounds of asking": f"{report.rounds}",
        "Repeated calls": f"{report.retried:,}, and {report.throttled:,} told to wait by the provider",
        "Batches": f"{report.batched:,} of the calls, in {report.batches:,}" if report.batches else "",
        "Tokens": f"{report.input_tokens:,} in, {report.output_tokens:,} out",
    }
    return table(["", ""], [[name(said), text(found)] for said, found in facts.items() if found])
