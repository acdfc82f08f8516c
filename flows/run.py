"""The command line: the flow's own parameters as options.

python -m flows.run                      the demo, all on this machine
python -m flows.run --source s3://...    the real job
"""

import inspect
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

if TYPE_CHECKING:
    from cyclopts import CycloptsError

    from flows.servers import Server

PUBLISHED, FAILED, WRONG_USAGE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143

# Set before Prefect and litellm are imported; what the user has set stays.
ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOG": "ERROR",
}
NEEDED = ("source", "destination", "model_name")
DEMO_LINE = (
    "No --source, --destination or --model-name: running the demo, with a stand-in instead of a model "
    "and an S3 server on this machine."
)


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
    from tasks.core.errors import PairmillError  # noqa: PLC0415

    stopped_by = "Ctrl-C"

    def terminate(*_: object) -> None:
        nonlocal stopped_by
        stopped_by = "SIGTERM"
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)
    try:
        return _dispatch(given)
    except CycloptsError as error:
        say_error(f"{_explain(error)} See python -m flows.run --help.")
        return WRONG_USAGE
    except PairmillError as error:
        if debug:
            raise
        say_error(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        say_error(f"Stopped by {stopped_by}. What was paid for is kept: run the same command again to go on.")
        return INTERRUPTED if stopped_by == "Ctrl-C" else TERMINATED
    except Exception as error:
        if debug:
            raise
        say_error(f"{type(error).__name__}: {_one_line(str(error))} Run again with --debug to see where.")
        return FAILED


def _dispatch(given: list[str]) -> int:
    from cyclopts import App, Parameter  # noqa: PLC0415

    from flows.short_text_matching import generate_short_text_pairs  # noqa: PLC0415

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
    app.default(generate_short_text_pairs)

    app.meta.suppress_keyboard_interrupt = False

    @app.meta.default
    def launch(
        *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        output: Literal["text", "json"] = "text",
        debug: bool = False,  # noqa: ARG001  (main reads it before this is parsed)
    ) -> int:
        """Launch the flow.

        Args:
            *tokens: The flow's own options.
            output: json prints the run's report as one JSON object on standard output.
            debug: Show Prefect's log and whole tracebacks.
        """
        flow, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
        if flow is not generate_short_text_pairs:
            flow(*bound.args, **bound.kwargs)
            return PUBLISHED
        return _run(generate_short_text_pairs, dict(bound.kwargs), output)

    code: int = app.meta(given)
    return code if isinstance(code, int) else PUBLISHED


def _run(flow: Callable[..., Any], parameters: dict[str, Any], output: str) -> int:
    from flows.demo import demo_stack, local_path  # noqa: PLC0415
    from flows.order import place_order  # noqa: PLC0415
    from flows.screen import say, show_progress, show_summary  # noqa: PLC0415
    from flows.servers import start_prefect_api  # noqa: PLC0415
    from tasks.core.errors import UsageError  # noqa: PLC0415

    named = [name for name in NEEDED if parameters.get(name)]
    missing = ["--" + name.replace("_", "-") for name in NEEDED if name not in named]
    if named and missing:
        raise UsageError(f"Missing: {', '.join(missing)}. Name all three for a real run, or none for the demo.")
    if named:
        bound = inspect.signature(flow).bind(**parameters)
        bound.apply_defaults()
        place_order(**bound.arguments)  # what cannot be right is refused before Prefect starts
        with show_progress():
            report = _start(flow, parameters, start_prefect_api())
        dataset = report.pairs_uri
    else:
        say(DEMO_LINE)
        with show_progress():
            server = start_prefect_api()
            with demo_stack() as stack:
                report = _start(flow, parameters | stack, server)
        dataset = local_path(report.pairs_uri)
        report = report.model_copy(update={"pairs_uri": dataset, "files": [local_path(uri) for uri in report.files]})
    if output == "json":
        sys.stdout.write(report.model_dump_json() + "\n")
    else:
        show_summary(report, dataset)
    return PUBLISHED


def _start(flow: Callable[..., Any], parameters: dict[str, Any], server: "Server | None") -> Any:
    if server is not None:
        server.wait()
    return flow(**parameters)


def _explain(error: "CycloptsError") -> str:
    """Say what is wrong with the arguments, without pydantic's own words for it."""
    from cyclopts import UnusedCliTokensError  # noqa: PLC0415
    from pydantic import ValidationError  # noqa: PLC0415

    cause = error.__cause__
    if isinstance(error, UnusedCliTokensError):
        return f"{' '.join(error.unused_tokens or [])!r} is neither a sub-command nor an option."
    if isinstance(cause, ValidationError):
        return f"{str(error).partition(str(cause))[0].strip()} {cause.errors()[0]['msg']}."
    return _one_line(str(error))


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if line.endswith((".", "?", "!")) else line + "."


if __name__ == "__main__":
    sys.exit(main())
