"""What a display without a terminal says of a run's progress."""

import threading
import time
from collections.abc import Callable

import pytest

from flows.reports import show_summary, show_upkeep
from flows.screen import REFRESH_SECONDS, _show_lines, say_error
from tasks.core.markdown import escape
from tasks.core.report import RunReport
from tasks.core.showing import shown
from tasks.core.upkeep import UpkeepReport
from tasks.progress import progress
from tests.orders import report_figures

COMMANDS = "\x1b]0;title\x07 \x1b[2J \x9b31m \u202e \u2066 \r \0 \x7f"


def test_without_a_terminal_a_line_is_said_once_and_again_when_it_has_moved(capfd: pytest.CaptureFixture[str]) -> None:
    said, ended = "", threading.Event()

    def wait_for(found: Callable[[str], bool]) -> None:
        nonlocal said
        deadline = time.monotonic() + 60
        while not found(said):
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
            said += capfd.readouterr().err

    progress.begin("start")
    display = threading.Thread(target=_show_lines, args=(ended, 0.0))
    display.start()
    try:
        wait_for(lambda said: "Starting Prefect" in said)
        time.sleep(10 * REFRESH_SECONDS)
        progress.begin("generate", 20)
        wait_for(lambda said: "0 of 20" in said)
        progress.cached = 5
        wait_for(lambda said: "5 of 20" in said)
    finally:
        ended.set()
        display.join()
        progress.begin("start")
    assert [line.strip() for line in said.splitlines()] == [
        "Starting Prefect",
        "Generating pairs: 0 of 20",
        "Generating pairs: 5 of 20",
    ]


def test_a_text_from_outside_commands_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    say_error(f"s3://b/{COMMANDS}.jsonl cannot be read")
    show_upkeep(UpkeepReport(destination="s3://b/out", done=[f"s3://b/{COMMANDS}"], bytes_before=1, bytes_after=1))
    pair = {"task": COMMANDS, "language": "English", "input": COMMANDS, "positive_document": COMMANDS}
    show_summary(RunReport(**report_figures(samples=[pair], source_changes=[f"new: s3://b/{COMMANDS}"])))
    said = "".join(capfd.readouterr())
    assert said.count("\ufffd]0;title\ufffd") >= 4
    assert shown(said) == said


def test_what_is_shown_keeps_lines_tabs_and_every_script() -> None:
    text = "two\nlines\tand a tab, \u0645\u0631\u062d\u0628\u0627 \u200f\U0001f469\u200d\U0001f52c"
    assert shown(text) == text


def test_a_text_from_outside_commands_no_terminal_that_prints_a_markdown_report() -> None:
    assert escape(COMMANDS) == shown(escape(COMMANDS))
