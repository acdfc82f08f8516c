"""Numbers and the words after them: of one thing nothing says that there are several."""

import re
from typing import Any

import pytest

from flows.other_reports import show_backfill
from flows.preflight_days import show_estimate
from flows.reports import show_summary
from tasks.core.backfill import DayReport, backfill_headline, backfill_markdown, make_report
from tasks.core.counting import counted, noun
from tasks.core.estimate import add_up
from tasks.core.markdown import report_markdown
from tasks.core.page import report_page
from tasks.core.report import RunReport, headline
from tasks.core.upkeep import say_done
from tests.orders import report_figures

ONE = (
    *("already_served", "claimed", "given_up", "rounds", "cached", "paid", "judged", "accepted", "rejected"),
    *("shortfall", "calls_in_flight", "max_attempts_per_pair"),
)
# What a number of one may not be followed by, whatever adjective stands between.
SEVERAL = re.compile(
    r"(?<![\w.,/-])1 (?:[a-z]+ )?(?:are|have|(?:pair|row|call|day|list|description|request|attempt|round|group)s)\b"
)


def of_one(**changes: Any) -> RunReport:
    """Return the report of a run in which each number is one."""
    shared = {"groups": 1, "pairs": 1, "largest": 1}
    as_before = {"newly_accepted": {}, "newly_rejected": {}, "as_before": 1}
    figures = dict.fromkeys(ONE, 1) | {"shared_texts": shared, "changes": as_before} | changes
    return RunReport(**report_figures(**figures))


def test_a_number_has_the_word_that_fits_it() -> None:
    assert [counted(number, "pair") for number in (0, 1, 2, 1_200)] == ["0 pairs", "1 pair", "2 pairs", "1,200 pairs"]
    assert [counted(number, "batch is", "batches are") for number in (1, 3)] == ["1 batch is", "3 batches are"]
    assert [noun(number, "call") for number in (1, 2)] == ["call", "calls"]
    assert say_done(1, "staging folder", "of ended runs removed") == ["1 staging folder of ended runs removed"]


@pytest.mark.parametrize("changes", [{}, {"requests": 0, "published": False}, {"on_published": "redo"}])
def test_no_report_of_one_thing_says_that_there_are_several(
    capsys: pytest.CaptureFixture[str], changes: dict[str, Any]
) -> None:
    report = of_one(**changes)
    show_summary(report)
    said = [capsys.readouterr().out, headline(report), report_markdown(report), report_page(report)]
    assert [found for text in said for found in SEVERAL.findall(text)] == []
    assert SEVERAL.findall("1 pairs, 1 accepted rows, 1 are left") == ["1 pairs", "1 accepted rows", "1 are"]


def test_no_backfill_of_one_day_says_that_there_are_several(capsys: pytest.CaptureFixture[str]) -> None:
    figures = dict.fromkeys(("accepted", "rejected", "paid", "cached"), 1)
    done = DayReport(partition="2026-01-01", run_id="run-1", state="Completed", message="", **figures)
    failed = make_report("run-1", [done.model_copy(update={"state": "Failed", "message": "no source"})])
    assert failed.problem.startswith("1 of 1 day failed: 2026-01-01.")
    report = make_report("run-1", [done])
    assert backfill_headline(report) == "1 day done: 1 pair accepted, 1 call paid"
    assert backfill_markdown([done]).startswith("## 1 of 1 day done, 1 pair accepted\n")
    show_backfill(report)
    show_estimate(add_up([], {}, 0.0).model_copy(update={"calls": 1, "calls_most": 3, "claimed": 1}))
    assert "1 call to pay" in (said := capsys.readouterr().out)
    assert "1 description more is made" in said
    assert SEVERAL.findall(said) == []
