"""The options of the command line, made from the flows' own signatures, and what they choose."""

import os
from typing import Annotated, Literal

from cyclopts import App, Group, Parameter

from flows.cluster import SETTING
from flows.commands import CHECK, COMMANDS, DRY_RUN, PUBLISHED, find
from flows.usage import DEMO_USAGE, pays, write_default
from tasks.core.errors import UsageError


def dispatch(given: list[str]) -> int:
    """Carry out what the arguments `given` ask for, and return the exit code.

    Raises:
        CycloptsError: The arguments are none that a flow takes.
        PairmillError: The run is over.
    """
    app = _make_app()
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


def _make_app() -> App:
    """Return the flows with their options, the main one without a name."""
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
    app.default(find(COMMANDS[""].flow))
    for name, command in COMMANDS.items():
        if name:
            app.command(command.flow, name=name, help=command.help)
    return app
