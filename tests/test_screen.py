"""What a display without a terminal says of a run's progress."""

import threading
import time
from collections.abc import Callable

import pytest

from flows.screen import REFRESH_SECONDS, _show_lines
from tasks.progress import progress


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
