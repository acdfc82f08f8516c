"""The report as one HTML page that needs nothing else: no script, no font, no other file."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from tasks.core.languages import LANGUAGES
from tasks.core.markdown import money, money_per_pairs
from tasks.core.report import Changes, Drift, Profile, RunReport, headline, reason_rows

MOST_LANGUAGES, MOST_TEXT = 15, 300

_STYLE = """
:root{--ink:#1c2430;--soft:#5d6b7c;--line:#e3e8ee;--paper:#fff;--wash:#f6f8fa;--good:#2f7d5b;--bad:#c2553a;--bar:#4a78b5}
@media (prefers-color-scheme:dark){:root{--ink:#e4e9ef;--soft:#98a5b5;--line:#2c3540;--paper:#151b22;--wash:#1c242d;
--good:#5bb98c;--bad:#e08a6f;--bar:#7ba3d8}}
*{box-sizing:border-box}
body{margin:0;background:var(--wash);color:var(--ink);line-height:1.5;
font:15px/1.5 system-ui,"Segoe UI",Roboto,"Noto Sans","Noto Sans CJK SC","Noto Sans Devanagari","Noto Sans Thai",
"Noto Sans Arabic",Ubuntu,sans-serif}
main{max-width:1060px;margin:0 auto;padding:32px 24px 64px}
h1{font-size:25px;line-height:1.25;margin:0 0 4px}h2{font-size:17px;margin:34px 0 10px}
h3{font-size:14px;margin:14px 0 6px;color:var(--soft);font-weight:600}
p{margin:6px 0}.soft{color:var(--soft)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:22px 0 8px}
.card,section{background:var(--paper);border:1px solid var(--line);border-radius:10px}
.card{padding:12px 16px}.card b{display:block;font-size:25px;line-height:1.25;font-variant-numeric:tabular-nums}
section{padding:6px 20px 16px;margin-top:16px;overflow-x:auto}section h2{margin-top:12px}
.good{color:var(--good)}.bad{color:var(--bad)}
table{border-collapse:collapse;width:100%;font-size:14px}
th{text-align:start;color:var(--soft);font-weight:600}th,td{padding:5px 10px 5px 0;border-bottom:1px solid var(--line);
vertical-align:top}tr:last-child>td{border-bottom:0}
td.n,th.n{text-align:end;white-space:nowrap;font-variant-numeric:tabular-nums;width:1%}
td.name{white-space:nowrap;width:1%}td.text{overflow-wrap:anywhere;unicode-bidi:plaintext;text-align:start}
td.bar{min-width:160px}
.bar i{display:block;height:12px;margin-top:5px;border-radius:3px;background:var(--bar);
min-width:2px}
.bar i.bad{background:var(--bad)}
.split{display:flex;height:10px;border-radius:5px;overflow:hidden;background:var(--bad)}
.split i{background:var(--good)}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(360px,1fr));gap:0 36px}
.columns{display:flex;align-items:flex-end;gap:2px;height:90px;border-bottom:1px solid var(--line)}
.columns i{flex:1;background:var(--bar);border-radius:2px 2px 0 0;min-height:1px}
.axis{display:flex;justify-content:space-between;color:var(--soft);font-size:12px}
details{border-top:1px solid var(--line);padding:7px 0}summary{cursor:pointer}code{font-size:13px}
@media print{body{background:#fff}section,.card{break-inside:avoid}}
"""


def report_page(report: RunReport) -> str:
    """Return the whole page; everything that a model or a source wrote is escaped."""
    parts = [_top(report)]
    if report.reasons:
        parts.append(_section("Why rows were rejected", _reasons(report)))
    if report.changes is not None:
        parts.append(_section("What judging again changed", _changes(report.changes)))
    if report.drift is not None:
        parts.append(_section(f"Beside the day before, {report.drift.partition}", _drift(report.drift)))
    if report.by_language:
        parts.append(_section("Languages", _languages(report)))
    if report.profile is not None:
        parts += _profile(report, report.profile)
    parts.append(_section("This run", _run(report)))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(headline(report))}</title><style>{_STYLE}</style></head><body><main>"
        + "\n".join(parts)
        + "</main></body></html>\n"
    )


def _top(report: RunReport) -> str:
    share = report.accepted / report.judged if report.judged else 0.0
    cards = [
        (f"{report.accepted:,}", "accepted pairs", "good"),
        (f"{report.rejected:,}", f"rejected, {1 - share:.1%} of {report.judged:,}", "bad" if report.rejected else ""),
        (f"{report.shortfall:,}", "pairs still missing", "bad" if report.shortfall else ""),
        (money(report.cost_usd), money_per_pairs(report) or "cost", ""),
        (f"{report.paid:,}", f"calls paid, {report.cached:,} from the journal", ""),
        (f"{report.seconds:,.0f} s", "from start to end", ""),
    ]
    tiles = "".join(f'<div class="card"><b class="{kind}">{value}</b>{name}</div>' for value, name, kind in cards)
    verdict = "published" if report.published else "not published"
    changes = "".join(f"<li>{escape(change)}</li>" for change in report.source_changes)
    return (
        f"<h1>{report.partition}: {escape(_title(report))}</h1>"
        f'<p class="soft">{escape(report.model_name)} · {verdict} · {report.finished_at:%Y-%m-%d %H:%M} UTC</p>'
        f'<div class="cards">{tiles}</div>'
        f'<div class="split" title="accepted and rejected"><i style="width:{share:.2%}"></i></div>'
        + (f"<p>The source has changed since this day's last run:</p><ul>{changes}</ul>" if changes else "")
    )


def _title(report: RunReport) -> str:
    if not report.requests:
        return "nothing to do"
    return f"{report.accepted:,} pairs, {report.accepted / max(1, report.judged):.1%} of the rows judged"


def _reasons(report: RunReport) -> str:
    most = max(report.reasons.values())
    rows = [
        [
            _name(row["reason"]),
            _bar(row["rows"] / most, "bad"),
            _number(row["rows"]),
            f'<td class="n">{row["share"]}</td>',
        ]
        for row in reason_rows(report)
    ]
    examples = report.profile.examples if report.profile is not None else {}
    shown = "".join(
        f"<details><summary>{escape(reason)}: {len(found)} example{'' if len(found) == 1 else 's'}</summary>"
        + _table(["Input", "Positive document"], [_example(one) for one in found])
        + "</details>"
        for reason in report.reasons
        if (found := examples.get(reason))
    )
    note = '<p class="soft">A row may have several reasons.</p>' if len(report.reasons) > 1 else ""
    return _table(["Reason", "", "#Rows", "#Of judged"], rows) + note + shown


def _example(one: Mapping[str, str | None]) -> list[str]:
    if one["input"] is None and one["positive_document"] is None:
        return [f'<td class="text" colspan="2" dir="auto"><code>{_short(one["text"] or "no text")}</code></td>']
    return [_text(one["input"] or ""), _text(one["positive_document"] or "")]


def _changes(changes: Changes) -> str:
    rows = [
        [f"<td>{kind}</td>", _name(reason), _number(count)]
        for kind, counts in (
            ('<span class="good">now accepted</span>, was', changes.newly_accepted),
            ('<span class="bad">now rejected</span> for', changes.newly_rejected),
        )
        for reason, count in counts.items()
    ]
    same = f'<p class="soft">{changes.as_before:,} rows are judged as before.</p>'
    return (_table(["", "Reason", "#Rows"], rows) if rows else "") + same


def _drift(drift: Drift) -> str:
    rows = [
        [
            _name(one.name),
            _bar(one.drift, "bad" if one == drift.worst else ""),
            _percent(one.before),
            _percent(one.now),
            _percent(one.drift),
        ]
        for one in drift.measures
    ]
    note = '<p class="soft">Languages and lengths: the share of rows that would have to move.</p>'
    return _table(["", "", "#Before", "#Now", "#Drift"], rows) + note


def _languages(report: RunReport) -> str:
    ordered = sorted(report.by_language.items(), key=lambda item: -item[1].accepted)
    most = max(1, ordered[0][1].accepted)
    rows = [
        [
            f'<td class="name">{escape(name)} <span class="soft">{LANGUAGES[name].code}</span></td>',
            _bar(one.accepted / most),
            _number(one.accepted),
            _number(one.rejected),
            _number(one.missing),
        ]
        for name, one in ordered[:MOST_LANGUAGES]
    ]
    more = len(ordered) - MOST_LANGUAGES
    note = f'<p class="soft">and {more} more, all in the JSON report</p>' if more > 0 else ""
    return _table(["Language", "", "#Accepted", "#Rejected", "#Missing"], rows) + note


def _profile(report: RunReport, profile: Profile) -> list[str]:
    parts = []
    titles = {"input": "Inputs", "positive_document": "Positive documents"}
    if any(profile.lengths.values()):
        charts = "".join(
            f"<div><h3>{titles[name]}, by characters</h3>{_columns(shares)}</div>"
            for name, shares in profile.lengths.items()
        )
        parts.append(_section("Lengths", f'<div class="two">{charts}</div>'))
    facts = [
        (f"{count:,} of the accepted rows carry the flag", f"<code>{escape(flag)}</code>")
        for flag, count in report.flags.items()
    ]
    shared = report.shared_texts
    facts.append(
        (
            "Pairs that share a text with another pair",
            f"{shared.pairs:,} in {shared.groups:,} groups, the largest of {shared.largest:,}",
        )
    )
    for name, shares in profile.distinct.items():
        words, pairs = (f"{share:.2f}" for share in shares)
        facts.append(
            (
                f"distinct-1 and distinct-2 of {profile.distinct_texts:,} {titles[name].lower()}",
                f"{words} and {pairs}",
            )
        )
    for name, openings in profile.openings.items():
        said = ", ".join(f"“{escape(opening)} …” {count:,}×" for opening, count in openings.items())
        facts.append((f"Repeated openings of {titles[name].lower()}", said or "none"))
    parts.append(
        _section("Variety", _table(["", ""], [[f"<td>{name}</td>", f"<td>{value}</td>"] for name, value in facts]))
    )
    if profile.pairs_to_read:
        rows = [
            [
                f'<td class="text soft" dir="auto">{_short(one.task)}</td>',
                _text(one.input),
                _text(one.positive_document),
                f'<td class="soft name">{LANGUAGES[one.language].code}</td>',
            ]
            for one in profile.pairs_to_read
        ]
        title = f"{len(rows)} accepted pairs, drawn at random"
        parts.append(_section(title, _table(["Task description", "Input", "Positive document", ""], rows)))
    return parts


def _run(report: RunReport) -> str:
    facts = {
        "Run": report.run_id,
        "Source": report.source,
        "Published to": f"{report.pairs_uri}"
        + ("" if report.pairs_version is None else f", version {report.pairs_version}"),
        "Task descriptions": f"{report.descriptions:,}, {report.already_served:,} of them x languages served before",
        "Order": f"{report.pairs_per_task} per description and language, seed {report.seed}, {report.on_published}",
        "Rounds of asking": f"{report.rounds}",
        "Repeated calls": f"{report.retried:,}, and {report.throttled:,} told to wait by the provider",
        "Tokens": f"{report.input_tokens:,} in, {report.output_tokens:,} out",
    }
    rows = [[_name(name), _text(value)] for name, value in facts.items()]
    short = [
        [_text(one.task), _name(one.language), _number(one.missing), _name(one.reason)]
        for one in report.shortfalls[:10]
    ]
    missing = "<h3>Still missing</h3>" + _table(["Task description", "Language", "#Pairs", "Main reason"], short)
    return _table(["", ""], rows) + (missing if short else "")


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Make a table of ready cells; a name with # is over numbers."""
    names = "".join(f'<th class="n">{name[1:]}</th>' if name.startswith("#") else f"<th>{name}</th>" for name in header)
    head = f"<thead><tr>{names}</tr></thead>" if any(header) else ""
    lines = "".join("<tr>" + "".join(row) + "</tr>" for row in rows)
    return f"<table>{head}<tbody>{lines}</tbody></table>"


def _columns(shares: Mapping[int, float]) -> str:
    if not shares:
        return ""
    step, last, most = 10, max(shares), max(shares.values())
    bars = "".join(
        f'<i style="height:{100 * share / most:.0f}%" title="{length} to {length + step - 1}: {share:.1%}"></i>'
        for length in range(0, last + step, step)
        for share in [shares.get(length, 0.0)]
    )
    return f'<div class="columns">{bars}</div><div class="axis"><span>0</span><span>{last + step}</span></div>'


def _bar(share: float, kind: str = "") -> str:
    return f'<td class="bar"><i class="{kind}" style="width:{100 * min(1.0, share):.1f}%"></i></td>'


def _number(value: int) -> str:
    return f'<td class="n">{value:,}</td>'


def _percent(share: float | None) -> str:
    return f'<td class="n">{"" if share is None else format(share, ".1%")}</td>'


def _name(text: str) -> str:
    return f'<td class="name">{escape(text)}</td>'


def _text(text: str) -> str:
    return f'<td class="text" dir="auto">{_short(text)}</td>'


def _short(text: str) -> str:
    line = " ".join(text.split())
    return escape(line if len(line) <= MOST_TEXT else line[: MOST_TEXT - 1] + "…")
