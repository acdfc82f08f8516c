"""The command line: its environment, its signals, and how it ends.

python -m flows.run                      the demo, all on this machine
python -m flows.run --source s3://...    the real job
python -m flows.run COMMAND ...          another flow, see COMMANDS
"""

import atexit
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence

from flows.commands import COMMANDS, FAILED, INTERRUPTED, TERMINATED, WRONG_USAGE
from flows.usage import explain
from tasks.core.errors import RESUME, PairmillError
from tasks.core.garbage import collect_seldom
from tasks.core.showing import as_sentence
from tasks.progress import progress
from tasks.stop import stop

# Set before Prefect and litellm are imported; what the user has set stays.
ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOG": "ERROR",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 1, 2, or 130 after Ctrl-C (143 after SIGTERM)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    collect_seldom()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    debug = "--debug" in given
    if not debug:
        warnings.simplefilter("ignore")
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "DEBUG" if debug else "CRITICAL")

    from cyclopts import CycloptsError  # noqa: PLC0415  (after the environment)

    from flows.screen import say_error  # noqa: PLC0415

    _heed_signals()
    try:
        from flows.options import dispatch  # noqa: PLC0415

        return dispatch(given)
    except CycloptsError as error:
        command = next((word for word in error.command_chain or () if word in COMMANDS), "")
        said = explain(error, [name for name in COMMANDS if name])
        say_error(f"{said} See {' '.join(filter(None, ['python -m flows.run', command]))} --help.")
        return WRONG_USAGE
    except PairmillError as error:
        if debug:
            traceback.print_exc()
        say_error(str(error))
        return error.exit_code
    except (Exception, KeyboardInterrupt) as error:
        # A signal that arrives inside pydantic is an error of pydantic's.
        if stop.by or isinstance(error, KeyboardInterrupt):
            at_provider = " Its batches go on at the provider, and are collected then." if progress.open() else ""
            say_error(f"Stopped by {stop.by or 'Ctrl-C'}. {RESUME}{at_provider}")
            return TERMINATED if stop.by == "SIGTERM" else INTERRUPTED
        if debug:
            raise
        say_error(f"{type(error).__name__}: {as_sentence(str(error))} Run again with --debug to see where.")
        return FAILED


def _heed_signals() -> None:
    stop.by = ""
    signal.signal(signal.SIGTERM, _end)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _end)


def _end(number: int, _: object) -> None:
    """Stop paying and flush; from a second Ctrl-C on, end at once."""
    stop.by = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    if number == signal.SIGINT:
        signal.signal(signal.SIGINT, _end_at_once)
    raise KeyboardInterrupt


def _end_at_once(*_: object) -> None:
    # Not through a stream, which may be in the middle of a line; a progress bar hides the cursor.
    show_cursor = b"\r\x1b[K\x1b[?25h" if os.isatty(2) else b""
    os.write(2, show_cursor + b"error: Ended at once. What was paid for is kept on this machine: run again here.\n")
    os._exit(INTERRUPTED)


def _run_and_leave() -> None:
    """End this process with the code of `main`."""
    code = FAILED

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    # Registered first it is called last, when Prefect has sent what it has: Python would then take seconds to free
    # what it has imported.
    atexit.register(leave)
    code = main()


if __name__ == "__main__":
    _run_and_leave()
