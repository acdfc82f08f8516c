"""What the HTML page is made of: its style, tables, bars and charts. Every text that is not ours is escaped here.

A cell's text has a direction of its own; a text among ours is a `piece`.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from tasks.core.languages import LANGUAGES
from tasks.core.showing import shown

MOST_TEXT = 300
# A chart has about as many columns as can be told apart.
MOST_COLUMNS = 50

STYLE = """
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
td.n,th.n{text-align:end;padding-left:14px;white-space:nowrap;font-variant-numeric:tabular-nums;width:1%}
td.name{white-space:nowrap;width:1%}td.text{overflow-wrap:anywhere;unicode-bidi:plaintext;text-align:start}
td.bar{min-width:160px}
.bar i{display:block;height:12px;margin-top:5px;border-radius:3px;background:var(--bar);
min-width:2px}
.bar i.bad{background:var(--bad)}.bar i.good{background:var(--good)}
.split{display:flex;height:10px;margin-bottom:18px;border-radius:5px;overflow:hidden;background:var(--bad)}
.split i{background:var(--good)}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(360px,1fr));gap:0 36px}
.columns{display:flex;align-items:flex-end;gap:2px;height:90px;border-bottom:1px solid var(--line)}
.columns i{flex:1;background:var(--bar);border-radius:2px 2px 0 0;min-height:1px}
.axis{display:flex;justify-content:space-between;color:var(--soft);font-size:12px}
details{border-top:1px solid var(--line);padding:7px 0}summary{cursor:pointer}code{font-size:13px}
@media(max-width:640px){td.name{white-space:normal}td.bar{min-width:60px}}
@media print{body{background:#fff}section,.card{break-inside:avoid}}
"""


def page(title: str, body: Iterable[str]) -> str:
    """Return a whole page that needs nothing else, with U+FFFD for control characters and what reorders text."""
    return shown(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
        + "\n".join(body)
        + "</main></body></html>\n"
    )


def section(title: str, body: str) -> str:
    """Return a titled part of the page."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def note(text: str) -> str:
    """Return a line below a table."""
    return f'<p class="soft">{escape(text)}</p>'


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of ready cells; a name with # is over numbers."""
    names = "".join(f'<th class="n">{name[1:]}</th>' if name.startswith("#") else f"<th>{name}</th>" for name in header)
    head = f"<thead><tr>{names}</tr></thead>" if any(header) else ""
    lines = "".join("<tr>" + "".join(row) + "</tr>" for row in rows)
    return f"<table>{head}<tbody>{lines}</tbody></table>"


def columns(shares: Mapping[int, float]) -> str:
    """Return a chart of shares by length, its ends and the widths of its columns round numbers."""
    if not shares:
        return ""
    last = 20 * (1 + max(shares) // 20)
    wide = next(width for width in (2, 4, 10, 20) if last <= MOST_COLUMNS * width or width == 20)
    merged: dict[int, float] = {}
    for start, share in shares.items():
        merged[start // wide] = merged.get(start // wide, 0.0) + share
    bars = "".join(
        f'<i style="height:{100 * share / max(merged.values()):.0f}%" '
        f'title="{place * wide} to {place * wide + wide - 1}: {share:.1%}"></i>'
        for place in range(last // wide)
        for share in [merged.get(place, 0.0)]
    )
    axis = "".join(f"<span>{last * quarter // 4}</span>" for quarter in range(5))
    return f'<div class="columns">{bars}</div><div class="axis">{axis}</div>'


def bar(share: float, kind: str = "") -> str:
    """Return a cell with a bar of `share` of its width."""
    return f'<td class="bar"><i class="{kind}" style="width:{100 * min(1.0, share):.1f}%"></i></td>'


def number(value: int) -> str:
    """Return a cell of a number."""
    return f'<td class="n">{value:,}</td>'


def percent(share: float | None) -> str:
    """Return a cell of a share, empty where there is none."""
    return f'<td class="n">{"" if share is None else format(share, ".1%")}</td>'


def name(text: str, kind: str = "") -> str:
    """Return a cell that is not broken into lines."""
    return f'<td class="name {kind}">{escape(text)}</td>'


def text(said: str, language: str = "", kind: str = "") -> str:
    """Return a cell of any text, in whatever script and direction; the language picks the shapes of its letters."""
    code = f' lang="{LANGUAGES[language].code.split("_")[0]}"' if language else ""
    return f'<td class="text {kind}" dir="auto"{code}>{short(said)}</td>'


def piece(said: str) -> str:
    """Return a text from outside to stand in a line of ours: its direction moves nothing around it."""
    return f"<bdi>{short(said)}</bdi>"


def short(said: str) -> str:
    """Return `said` on one line, escaped, cut to MOST_TEXT characters."""
    line = " ".join(said.split())
    return escape(line if len(line) <= MOST_TEXT else line[: MOST_TEXT - 1] + "…")
