"""The command line: the flows' own parameters as options.

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
from typing import Annotated, Literal

from flows.commands import (
    CHECK,
    COMMANDS,
    DRY_RUN,
    FAILED,
    INTERRUPTED,
    PUBLISHED,
    TERMINATED,
    WRONG_USAGE,
    find,
)
from flows.usage import DEMO_USAGE, explain, pays, write_default
from tasks.core.errors import RESUME, PairmillError, UsageError
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

    stop.by = ""

    def end(number: int, _: object) -> None:
        """Stop paying and flush; from a second Ctrl-C on, end at once."""
        stop.by = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, _end_at_once)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, end)
    try:
        return _dispatch(given)
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


def _end_at_once(*_: object) -> None:
    # Not through a stream, which may be in the middle of a line; a progress bar hides the cursor.
    show_cursor = b"\r\x1b[K\x1b[?25h" if os.isatty(2) else b""
    os.write(2, show_cursor + b"error: Ended at once. What was paid for is kept on this machine: run again here.\n")
    os._exit(INTERRUPTED)


def _dispatch(given: list[str]) -> int:
    from cyclopts import App, Group, Parameter  # noqa: PLC0415

    from flows.cluster import SETTING  # noqa: PLC0415

    main_command = COMMANDS[""]
    app = App(
        name="python -m flows.run",
        usage=DEMO_USAGE,
        help_flags=["--help", "-h"],
        version_flags=[],
        default_parameter=Parameter(negative_iterable=(), consume_multiple=True, show_default=write_default),
        exit_on_error=False,
        print_error=False,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    app.default(find(main_command.flow))
    for name, command in COMMANDS.items():
        if name:
            app.command(command.flow, name=name, help=command.help)

    app.meta.suppress_keyboard_interrupt = False
    last = Group("How it runs", sort_key=1)
    of_what_pays = Parameter(negative=(), group=last, show=pays(given))

    @app.meta.default
    def launch(
        *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        check: Annotated[bool, of_what_pays] = False,
        dry_run: Annotated[bool, of_what_pays] = False,
        output: Annotated[Literal["text", "json"], Parameter(group=last)] = "text",
        dask_scheduler: Annotated[str, of_what_pays] = "",
        debug: Annotated[bool, Parameter(negative=(), group=last)] = False,  # noqa: ARG001  (main reads it before this is parsed)
    ) -> int:
        """Launch the flow.

        Args:
            *tokens: The flow's own options.
            check: Try source, destination and model (one paid call) and say what works; run nothing.
            dry_run: Say what it would do and cost; pay for nothing and write nothing.
            output: json prints the run's report as one JSON object on standard output.
            dask_scheduler: Generate on a Dask cluster: its scheduler's address, tcp://host:port, or how many processes
                to start on this machine. Needs the extra dask.
            debug: Show Prefect's log and whole tracebacks.
        """
        if check and dry_run:
            raise UsageError("--check and --dry-run are two things to do before a run. Give one of them.")
        if dask_scheduler:
            os.environ[SETTING] = dask_scheduler
        rehearsal = CHECK if check else DRY_RUN if dry_run else None
        flow, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
        for command in COMMANDS.values():
            if flow is find(command.flow):
                from flows.launch import carry_out  # noqa: PLC0415  (not for --help)

                return carry_out(command, flow, dict(bound.kwargs), output, rehearsal)
        flow(*bound.args, **bound.kwargs)  # --help
        return PUBLISHED

    code: int = app.meta(given)
    return code if isinstance(code, int) else PUBLISHED


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
