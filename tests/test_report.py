import json
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.other_reports import show_brainstorm
from flows.reports import show_summary
from tasks.core.markdown import escape, report_markdown
from tasks.core.page import report_page
from tasks.core.plans import Plan
from tasks.core.report import RunReport, headline, reason_rows
from tasks.core.rules import CALL_FAILED
from tasks.core.summary import summarise
from tasks.core.wording import money
from tests.orders import ORDER, report_figures
from tests.test_profile import judged

HOSTILE = "| a [red]b[/red] <script>alert(1)</script> ![x](http://h) `c`\n# d\n| e |"


def report(**changes: Any) -> RunReport:
    return RunReport(**report_figures(**changes))


def sample(text: str) -> dict[str, str]:
    return {"task": text, "language": "English", "input": text, "positive_document": text}


def test_a_request_whose_model_was_down_is_no_attempt_to_take_off() -> None:
    rows = judged(["no json"] * 2).with_columns(
        pl.Series("attempts", [0, 3]),
        model_name=pl.lit("openai/x"),
        error=pl.lit(CALL_FAILED),
        turned_down_by=pl.lit([], pl.List(pl.String)),
    )
    figures = summarise(ORDER, Plan(requests=2, wanted=2), rows)
    assert (figures["failed"], figures["retried"], figures["shortfall"]) == (2, 2, 2)


def test_a_report_survives_json() -> None:
    whole = report(samples=[sample("a")])
    assert RunReport.model_validate_json(whole.model_dump_json()) == whole
    assert json.loads(whole.model_dump_json())["cost_usd"] is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "2026-01-01: published 8 pairs, 2 rejected"),
        ({"published": False}, "2026-01-01: judged, not published: 8 pairs"),
        ({"requests": 0, "judged": 0, "accepted": 0, "rejected": 0}, "2026-01-01: published 0 pairs"),
        ({"requests": 0, "judged": 0, "already_served": 9, "published": False}, "2026-01-01: nothing to do, 9 "),
    ],
)
def test_the_headline_says_how_the_run_ended(changes: dict[str, Any], said: str) -> None:
    assert headline(report(**changes)).startswith(said)


@pytest.mark.parametrize(("cost", "said"), [(None, "unknown"), (0.0, "$0.0000"), (1234.5, "$1,234.5000")])
def test_an_unknown_cost_is_never_nothing(cost: float | None, said: str) -> None:
    assert money(cost) == said


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"cost_usd": 0.02, "accepted": 8}, "$0.0200, $2.5000 per 1,000 accepted pairs"),
        ({"cost_usd": 0.02, "accepted": 0}, "$0.0200"),
        ({"cost_usd": None, "accepted": 8}, "unknown"),
    ],
)
def test_the_report_says_what_accepted_pairs_cost(figures: dict[str, Any], said: str) -> None:
    assert f"| Cost | {said} |" in report_markdown(report(**figures))


def test_the_report_leads_to_the_page_the_json_and_the_tables() -> None:
    whole = report(destination="s3://bucket/my data", run_id="r1", pairs_uri="s3://bucket/my data/pairs")
    page = "s3://bucket/my data/runs/r1.html"
    assert f"- This report as a page: {escape(page)}\n" in report_markdown(whole)
    linked = report_markdown(whole, lambda uri: "https://console/my%20page" if uri == page else "")
    assert f"- This report as a page: [{escape(page)}](<https://console/my%20page>)\n" in linked
    assert f"- Rejected rows (Delta table): {escape('s3://bucket/my data/rejected')}\n" in linked


def test_a_preview_names_no_place_where_its_rows_would_lie() -> None:
    preview = report(published=False, pairs_version=None, files=[])
    assert "nothing was published" in report_page(preview)
    for page in (report_page(preview), report_markdown(preview)):
        assert not [
            uri for uri in ("s3://bucket/out/pairs", "s3://bucket/out/rejected") if uri in page.replace("\\", "")
        ]


def test_what_is_read_first_stands_first() -> None:
    lines = report_markdown(report(cost_usd=0.02, samples=[sample("a") | {"input": "b"}])).splitlines()
    first = lines.index("| Figure | Value |") + 2
    names = [line.split(" | ")[0] for line in lines[first : first + 4]]
    assert names == ["| Accepted", "| Rejected", "| Still missing", "| Cost"]
    assert lines[first] == "| Accepted | 8, 80.0% of the rows judged |"
    assert "| b | a | a |" in lines


def test_shares_are_of_the_rows_judged() -> None:
    rows = reason_rows(report(reasons={"unparsable": 2, "refused": 1}))
    assert [(row["reason"], row["rows"], row["share"]) for row in rows] == [
        ("unparsable", 2, "20.0%"),
        ("refused", 1, "10.0%"),
    ]


def test_what_a_model_wrote_cannot_shape_the_markdown() -> None:
    text = report_markdown(report(samples=[sample(HOSTILE)], source_changes=[HOSTILE]))
    (row,) = [line for line in text.splitlines() if "alert" in line and line.startswith("| ")]
    assert row.replace("\\|", "").count("|") == 4
    assert "<script>" not in text
    assert "![x](" not in text
    assert not [line for line in text.splitlines() if line.startswith("# d")]


@given(st.text())
def test_escaped_text_is_one_line_that_holds_no_live_sign(text: str) -> None:
    escaped = escape(text)
    assert len(escaped.splitlines()) <= 1
    bare = escaped.replace("\\\\", "")
    assert all(bare[at - 1] == "\\" for at, sign in enumerate(bare) if sign in "|<`[*_#")


def test_a_long_text_is_cut_with_a_sign() -> None:
    assert escape("x" * 300, 20) == "x" * 19 + "…"
    assert escape("x" * 20, 20) == "x" * 20


def test_the_terminal_shows_texts_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    show_summary(report(samples=[sample("[red]a[/red] b")], model_name="openai/[bold]x"))
    out = capsys.readouterr().out
    for part in ("[red]a[/red] b", "openai/[bold]x", "2026-01-01: published", "unparsable", "20.0%", "unknown"):
        assert part in out, out


@pytest.mark.parametrize("published", [True, False])
def test_the_terminal_names_the_page_of_a_run_and_of_a_preview(
    capsys: pytest.CaptureFixture[str], *, published: bool
) -> None:
    show_summary(report(published=published))
    assert "The whole report is s3://bucket/out/runs/run-1.html." in capsys.readouterr().out.splitlines()


def test_the_terminal_breaks_no_title_at_the_width_of_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    show_summary(report(samples=[sample("a")]))
    lines = capsys.readouterr().out.splitlines()
    assert "Rejected; a row may have several reasons" in lines
    assert "Sample pairs" in lines


def test_a_redo_does_not_claim_attempts_that_it_does_not_make(capsys: pytest.CaptureFixture[str]) -> None:
    show_summary(report(on_published="redo"))
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "2 pairs are still missing (unparsable 2)." in said
    assert "the same command without --on-published redo asks for them again" in said
    assert "attempts for each" not in said


def test_a_run_that_made_no_call_tells_nothing_of_calls(capsys: pytest.CaptureFixture[str]) -> None:
    none = dict.fromkeys(("paid", "input_tokens", "output_tokens"), 0)
    for changes, told in (({"calls_in_flight": 8}, True), (none, False)):
        show_summary(report(**changes))
        names = {line[2:].split("  ")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("│")}
        assert ({"repeated", "in flight", "tokens"} <= names, "tokens" in names) == (told, told)


@pytest.mark.parametrize(("throttled", "said"), [(0, "calls at once"), (1, "calls at once, as the provider allowed")])
def test_only_what_a_provider_refused_is_what_it_allowed(
    capsys: pytest.CaptureFixture[str], throttled: int, said: str
) -> None:
    show_summary(report(calls_in_flight=4, throttled=throttled))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "in flight" in line]
    assert line.strip(" │").split("  ")[-1].strip() == said


@pytest.mark.parametrize(("files", "names_day"), [(["s3://bucket/a.parquet"], False), ([], True)])
def test_a_redo_is_not_advised_for_a_day_that_other_days_serve(
    capsys: pytest.CaptureFixture[str], *, files: list[str], names_day: bool
) -> None:
    show_summary(report(requests=0, already_served=9, files=files))
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert ("It is of other days: to judge one again, name it with --partition" in said) == names_day
    assert ("--on-published redo judges it again" in said) != names_day


def test_a_redo_is_not_advised_to_a_brainstorming_which_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    show_brainstorm(report(requests=0, already_served=9))
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "run the main command with their tasks/ as --source and --on-published redo" in said


def test_a_source_of_blank_rows_is_not_said_to_be_served(capsys: pytest.CaptureFixture[str]) -> None:
    for served, said in ((0, "is served, or blank."), (9, "is served.")):
        show_summary(report(descriptions=0, requests=0, blank=3, shortfall=0, already_served=served))
        assert said in capsys.readouterr().out
