"""The command line: the flows' own parameters as options.

python -m flows.run                      the demo, all on this machine
python -m flows.run --source s3://...    the real job
python -m flows.run COMMAND ...          another flow, see COMMANDS
"""

import atexit
import inspect
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Literal

from flows.usage import explain, one_line

if TYPE_CHECKING:
    from flows.servers import Server

PUBLISHED, FAILED, WRONG_USAGE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143

# Set before Prefect and litellm are imported; what the user has set stays.
ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOG": "ERROR",
}
DEMO_LINE = (
    "No --source, --destination or --model-name: running the demo, with a stand-in instead of a model "
    "and an S3 server on this machine."
)


@dataclass(frozen=True)
class Command:
    """One flow of the command line; each place is module:name, imported when it is needed.

    `check` takes the flow's parameters and refuses what cannot be right before
    Prefect starts; `show` prints the flow's result for a person. `rehearsal` is the module of what
    --check and --dry-run do in the flow's place, empty where they have no meaning.
    """

    flow: str
    check: str
    show: str
    help: str = ""
    rehearsal: str = ""


# By the sub-command's name; the main flow has none.
COMMANDS = {
    "": Command(
        "flows.short_text_matching:generate_short_text_pairs",
        "flows.order:place_order",
        "flows.screen:show_summary",
        rehearsal="flows.preflight",
    ),
    "brainstorm": Command(
        "flows.brainstorm:brainstorm",
        "flows.brainstorm:place_brainstorm",
        "flows.screen:show_brainstorm",
        help="Brainstorm task descriptions, out of nothing.",
        rehearsal="flows.preflight_lists",
    ),
    "backfill": Command(
        "flows.backfill:backfill",
        "flows.backfill:check_backfill",
        "flows.screen:show_backfill",
        help="Generate pairs for every day of a range.",
        rehearsal="flows.preflight_days",
    ),
    "maintain": Command(
        "flows.maintain:maintain",
        "flows.maintain:check_maintain",
        "flows.screen:show_upkeep",
        help="Tidy a destination, or erase one task description.",
    ),
    "export": Command(
        "flows.export:export_pairs",
        "flows.export:place_export",
        "flows.screen:show_export",
        help="Write the published pairs as a dataset to train on.",
    ),
}


@dataclass(frozen=True)
class Rehearsal:
    """What an option of the command line does in place of a flow, with its parameters: two functions of a module.

    `step` is what the display says meanwhile.
    """

    act: str
    show: str
    step: str


CHECK = Rehearsal("check", "show_check", "check")
DRY_RUN = Rehearsal("dry_run", "show_estimate", "extract")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 1, 2, or 130 after Ctrl-C (143 after SIGTERM)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    debug = "--debug" in given
    if not debug:
        warnings.simplefilter("ignore")
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "DEBUG" if debug else "CRITICAL")

    from cyclopts import CycloptsError  # noqa: PLC0415  (after the environment)

    from flows.screen import say_error  # noqa: PLC0415
    from tasks.core.errors import RESUME, PairmillError  # noqa: PLC0415
    from tasks.progress import progress  # noqa: PLC0415

    stopped_by = "Ctrl-C"

    def terminate(*_: object) -> None:
        nonlocal stopped_by
        stopped_by = "SIGTERM"
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        return _dispatch(given)
    except CycloptsError as error:
        command = next((word for word in error.command_chain or () if word in COMMANDS), "")
        said = explain(error, [name for name in COMMANDS if name])
        say_error(f"{said} See {' '.join(filter(None, ['python -m flows.run', command]))} --help.")
        return WRONG_USAGE
    except PairmillError as error:
        if debug:
            raise
        say_error(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        at_provider = " Its batches go on at the provider, and are collected then." if progress.open() else ""
        say_error(f"Stopped by {stopped_by}. {RESUME}{at_provider}")
        return INTERRUPTED if stopped_by == "Ctrl-C" else TERMINATED
    except Exception as error:
        if debug:
            raise
        say_error(f"{type(error).__name__}: {one_line(str(error))} Run again with --debug to see where.")
        return FAILED


def _interrupt(*_: object) -> None:
    """Stop paying and flush; from a second Ctrl-C on, end at once."""
    signal.signal(signal.SIGINT, _end_at_once)
    raise KeyboardInterrupt


def _end_at_once(*_: object) -> None:
    # Not through a stream, which may be in the middle of a line; a progress bar hides the cursor.
    show_cursor = b"\r\x1b[K\x1b[?25h" if os.isatty(2) else b""
    os.write(2, show_cursor + b"error: Ended at once. What was paid for is kept on this machine: run again here.\n")
    os._exit(INTERRUPTED)


def _dispatch(given: list[str]) -> int:
    from cyclopts import App, Parameter  # noqa: PLC0415

    from flows.cluster import SETTING  # noqa: PLC0415

    main_command = COMMANDS[""]
    app = App(
        name="python -m flows.run",
        help_flags=["--help", "-h"],
        version_flags=[],
        default_parameter=Parameter(negative_iterable=(), consume_multiple=True),
        exit_on_error=False,
        print_error=False,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    app.default(_find(main_command.flow))
    for name, command in COMMANDS.items():
        if name:
            app.command(command.flow, name=name, help=command.help)

    app.meta.suppress_keyboard_interrupt = False

    @app.meta.default
    def launch(
        *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        output: Literal["text", "json"] = "text",
        check: Annotated[bool, Parameter(negative=())] = False,
        dry_run: Annotated[bool, Parameter(negative=())] = False,
        dask_scheduler: str = "",
        debug: bool = False,  # noqa: ARG001  (main reads it before this is parsed)
    ) -> int:
        """Launch the flow.

        Args:
            *tokens: The flow's own options.
            output: json prints the run's report as one JSON object on standard output.
            check: Of what pays: try source, destination and model (one paid call) and say what works; run nothing.
            dry_run: Of what pays: say what it would do and cost; pay for nothing and write nothing.
            dask_scheduler: Generate on a Dask cluster: its scheduler's address, tcp://host:port, or how many processes
                to start on this machine. Needs the extra dask.
            debug: Show Prefect's log and whole tracebacks.
        """
        if dask_scheduler:
            os.environ[SETTING] = dask_scheduler
        rehearsal = CHECK if check else DRY_RUN if dry_run else None
        flow, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
        for command in COMMANDS.values():
            if flow is _find(command.flow):
                return _run(command, flow, dict(bound.kwargs), output, rehearsal)
        flow(*bound.args, **bound.kwargs)  # --help
        return PUBLISHED

    code: int = app.meta(given)
    return code if isinstance(code, int) else PUBLISHED


def _find(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def _run(
    command: Command, flow: Callable[..., Any], parameters: dict[str, Any], output: str, rehearsal: Rehearsal | None
) -> int:
    from flows.demo import PARAMETERS, alone, demo_stack, localise  # noqa: PLC0415
    from flows.order import NEEDED  # noqa: PLC0415
    from flows.screen import say, say_error, show_progress  # noqa: PLC0415
    from flows.servers import start_prefect_api  # noqa: PLC0415
    from flows.telling import call  # noqa: PLC0415
    from tasks.core.errors import UsageError  # noqa: PLC0415

    if rehearsal and not command.rehearsal:
        raise UsageError("--check and --dry-run are for what pays: the main command, brainstorm and backfill.")
    signature = inspect.signature(flow)
    needed = [name for name in NEEDED if name in signature.parameters]
    named = [name for name in needed if parameters.get(name)]
    missing = ["--" + name.replace("_", "-") for name in needed if name not in named]
    if named and missing:
        raise UsageError(
            f"Missing: {', '.join(missing)}. Name all that is needed for a real run, or nothing for the demo."
        )
    act = _find(f"{command.rehearsal}:{rehearsal.act}") if rehearsal else partial(call, flow)
    step = rehearsal.step if rehearsal else "start"
    if not named:
        say(DEMO_LINE)
        parameters |= {name: value for name, value in PARAMETERS.items() if name in signature.parameters}
    parameters = _complete(signature, parameters)
    _find(command.check)(**parameters)
    if named:
        with show_progress(step):
            report = _start(act, parameters, None if rehearsal else start_prefect_api())
    else:
        with alone(), show_progress(step):
            server = None if rehearsal else start_prefect_api()
            with demo_stack() as api_base:
                ours = {"api_base": api_base} if "api_base" in parameters else {}
                report = _start(act, parameters | ours, server)
        report = localise(report)
    if output == "json":
        sys.stdout.write(report.model_dump_json() + "\n")
    else:
        _find(f"{command.rehearsal}:{rehearsal.show}" if rehearsal else command.show)(report)
    if rehearsal:
        return PUBLISHED if report.ok else FAILED
    problem: str = getattr(report, "problem", "")
    if problem:
        say_error(problem)
    return FAILED if problem else PUBLISHED


def _start(act: Callable[..., Any], parameters: dict[str, Any], server: "Server | None") -> Any:
    if server is not None:
        if "model_name" in parameters:
            _import_steps()
        server.wait()
    elif "model_name" in parameters:
        # Beside the first answers of Prefect's server and of the storage: half a second.
        threading.Thread(target=_import_steps, name="import", daemon=True).start()
    return act(**parameters)


def _import_steps() -> None:
    """Import what the steps need while servers are waited for; what fails here fails again where it is needed."""
    from tasks import extract, generate, load, validate  # noqa: F401, PLC0415
    from tasks.clients import llm  # noqa: PLC0415

    llm.import_litellm()


def _complete(signature: inspect.Signature, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters with the flow's defaults."""
    bound = signature.bind(**parameters)
    bound.apply_defaults()
    return bound.arguments


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
