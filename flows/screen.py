"""What a person sees in the terminal: progress, errors and remarks, and the grids that reports are made of."""

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from tasks.clients.concealment import one_line
from tasks.core.showing import shown
from tasks.progress import progress

LINE_SECONDS = 5.0
REFRESH_SECONDS = 0.1
# Columns that the bar leaves free: a terminal writes ^C after it, and on a full line would go on below, out of reach.
FREE_COLUMNS = 5


@contextmanager
def show_progress(step: str = "start") -> Iterator[None]:
    """Show on standard error how far the run is inside the block, from `step` on.

    A bar in a terminal, else a line when it has moved.
    """
    ended = threading.Event()
    show = _show_bar if sys.stderr.isatty() else _show_lines
    display = threading.Thread(target=show, args=(ended,), name="display", daemon=True)
    progress.begin(step)
    display.start()
    try:
        yield
    finally:
        ended.set()
        display.join()


def _show_bar(ended: threading.Event) -> None:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True, width=_bar_width())
    with Progress(*columns, console=console, transient=True) as bar:
        row, step = bar.add_task(progress.says, total=None, figures=""), ""
        while not ended.wait(REFRESH_SECONDS):
            console.width = _bar_width()
            if progress.step != step:
                step = progress.step
                bar.reset(row, total=progress.total or None)
            figures = f"{progress.done:,} of {progress.total:,} {_rate()}{_left()}" if progress.total else ""
            total = progress.total or None
            bar.update(row, completed=progress.done, total=total, figures=figures, description=progress.says)


def _bar_width() -> int:
    return max(1, Console(stderr=True).width - FREE_COLUMNS)


def _show_lines(ended: threading.Event, line_seconds: float = LINE_SECONDS) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    step, said, said_at = "", "", 0.0
    while not ended.wait(REFRESH_SECONDS):
        now = str(progress)
        if progress.step == step and (now == said or time.monotonic() - said_at < line_seconds):
            continue
        step, said, said_at = progress.step, now, time.monotonic()
        console.print(f"{now} {_rate()}{_left()}" if progress.total else now)


def _rate() -> str:
    seconds = time.monotonic() - progress.started
    return f"{progress.paid() / seconds:,.0f}/s" if progress.paid() and seconds > 0 else ""


def _left() -> str:
    seconds, paid = time.monotonic() - progress.started, progress.paid()
    return f", {(progress.total - progress.done) * seconds / paid:,.0f} s left" if paid else ""


def say_error(message: str) -> None:
    """Print one error on standard error, without keys, whoever wrote it."""
    open_lines(sys.stderr).print(Text.assemble(("error: ", "bold red"), shown(one_line(message))))


def say(message: str) -> None:
    """Print one remark on standard error."""
    open_lines(sys.stderr).print(Text(shown(message), style="dim"))


def open_lines(stream: TextIO) -> Console:
    """Return what prints each text as one line, which is broken between words where a terminal shows it."""
    return Console(file=stream, highlight=False, soft_wrap=not stream.isatty())


def make_grid(rows: Iterable[tuple[str, str, str]]) -> Table:
    """Return names, their figures and remarks on them, side by side."""
    grid = Table.grid(padding=(0, 2))
    for name, figure, remark in rows:
        grid.add_row(Text(name, style="dim"), Text(figure, style="bold"), Text(remark))
    return grid
