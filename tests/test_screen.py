"""What a display without a terminal says of a run's progress."""

import os
import pty
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from flows.other_reports import show_upkeep
from flows.reports import show_summary
from flows.screen import REFRESH_SECONDS, _show_lines, say_error
from flows.servers import ROOT
from tasks.core.markdown import escape
from tasks.core.report import RunReport
from tasks.core.showing import shown
from tasks.core.upkeep import UpkeepReport
from tasks.progress import Progress, progress
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


def test_without_a_terminal_nothing_is_said_while_nothing_moves(capfd: pytest.CaptureFixture[str]) -> None:
    said, ended = "", threading.Event()
    progress.begin("generate", 20)
    progress.paid = lambda: 5
    display = threading.Thread(target=_show_lines, args=(ended, 0.0))
    display.start()
    try:
        deadline = time.monotonic() + 60
        while "5 of 20" not in said and time.monotonic() < deadline:
            time.sleep(0.05)
            said += capfd.readouterr().err
        time.sleep(20 * REFRESH_SECONDS)
    finally:
        ended.set()
        display.join()
        progress.begin("start")
    assert (said + capfd.readouterr().err).count("5 of 20") == 1


def test_the_bar_is_for_a_terminal_that_shows_errors_wherever_the_report_goes() -> None:
    shows = "import time; from flows.screen import show_progress\nwith show_progress(): time.sleep(1)"
    terminal, end = pty.openpty()
    try:
        subprocess.run([sys.executable, "-c", shows], stdout=subprocess.PIPE, stderr=end, cwd=ROOT, check=True)
        assert b"\x1b[?25l" in os.read(terminal, 65_536), "a bar hides the cursor"
    finally:
        os.close(terminal)
        os.close(end)


BAR = """
import time
from flows.screen import show_progress
from tasks.progress import progress
asked = []
with show_progress("generate"):
    progress.total, progress.paid = 1_000_000, lambda: asked.append(1) or 123_456
    while len(asked) < 20:
        time.sleep(0.05)
"""


@pytest.mark.parametrize("columns", [50, 80])
def test_a_bar_leaves_room_for_the_sign_of_ctrl_c_in_its_line(columns: int) -> None:
    terminal, end = pty.openpty()
    try:
        environment = {**os.environ, "COLUMNS": str(columns)}
        subprocess.run([sys.executable, "-c", BAR], stderr=end, cwd=ROOT, env=environment, check=True)
        drawn = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", os.read(terminal, 65_536).decode())
    finally:
        os.close(terminal)
        os.close(end)
    lines = [line for line in re.split(r"[\r\n]+", drawn) if line.strip()]
    assert any("123" in line for line in lines), lines
    assert max(map(len, lines)) <= columns - len("^C^C"), lines


SHOWS = """
import sys
from flows.other_reports import show_backfill, show_upkeep
from flows.reports import show_summary
from flows.screen import say, say_error
from tasks.core.backfill import BackfillReport, DayReport
from tasks.core.report import RunReport
from tasks.core.upkeep import UpkeepReport
from tests.orders import report_figures
{
    "error": say_error,
    "remark": say,
    "done": lambda said: show_upkeep(UpkeepReport(destination="s3://b", done=[said], bytes_before=1, bytes_after=1)),
    "day": lambda said: show_backfill(BackfillReport(run_id="r", accepted=1, paid=1, days=[
        DayReport(partition=said, run_id="r", state="Completed", message="", accepted=1, rejected=1, paid=1, cached=1)
    ])),
    "models": lambda said: show_summary(RunReport(**report_figures(by_model={said: {}, said + "-b": {}}))),
}[sys.argv[1]](sys.argv[2])
"""


def in_terminal(kind: str, said: str, columns: int) -> list[str]:
    """Return the lines that a terminal so wide shows."""
    terminal, end = pty.openpty()
    try:
        environment = {**os.environ, "COLUMNS": str(columns)}
        subprocess.run(
            [sys.executable, "-c", SHOWS, kind, said], stdout=end, stderr=end, cwd=ROOT, env=environment, check=True
        )
        return re.sub(r"\x1b\[[\d;]*m", "", os.read(terminal, 65_536).decode()).splitlines()
    finally:
        os.close(terminal)
        os.close(end)


@pytest.mark.parametrize("kind", ["error", "remark", "done"])
def test_a_terminal_breaks_what_it_shows_between_words(kind: str) -> None:
    said = "this many words are more than a line of it holds"
    lines = in_terminal(kind, said, 30)
    assert max(map(len, lines)) <= 30
    assert said in " ".join(line.strip() for line in lines)


def test_a_terminal_cuts_no_day_of_a_backfill() -> None:
    assert "2026-11-01" in "".join(in_terminal("day", "2026-11-01", 70))


def test_a_terminal_shows_the_whole_names_of_models() -> None:
    rows = [line.split("│")[1].strip() for line in in_terminal("models", "openai/gpt-4.1-mini", 80) if line[:1] == "│"]
    assert "openai/gpt-4.1-miniopenai/gpt-4.1-mini-b" in "".join(rows)


def test_a_line_of_code_is_never_broken(capsys: pytest.CaptureFixture[str]) -> None:
    uri = f"s3://bucket/{'long/' * 20}pairs"
    show_summary(RunReport(**report_figures(pairs_uri=uri)))
    assert f'    pairs = pl.read_delta("{uri}")\n' in capsys.readouterr().out


def test_a_step_that_begins_while_a_display_reads_the_last_one_breaks_nothing() -> None:
    one = Progress()
    one.begin("generate", 20)

    def paid() -> int:
        one.begin("load")
        return 5

    one.paid = paid
    assert one.percent == 25.0


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
