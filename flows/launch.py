"""Carries out one flow from the command line, or what --check and --dry-run do in its place.

For the real job, or, where nothing is named, for the demo on this machine.
"""

import inspect
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from flows.commands import FAILED, PUBLISHED, Command, Rehearsal, find
from flows.demo import PARAMETERS, alone, demo_stack, localise, localise_text
from flows.screen import say, say_error, show_progress
from flows.servers import Server, start_prefect_api
from flows.telling import call
from tasks.core.errors import PairmillError, UsageError
from tasks.core.showing import as_option

DEMO_LINE = (
    "No --source, --destination or --model-name: running the demo, with a stand-in instead of a model "
    "and an S3 server on this machine."
)

# What a real run names; a flow that is given none of them runs as the demo.
NEEDED = ("source", "destination", "model_name")


def carry_out(
    command: Command, flow: Callable[..., Any], given: dict[str, Any], output: str, rehearsal: Rehearsal | None
) -> int:
    """Carry out `flow` with the parameters that were `given`, show what came of it, and return the exit code.

    Raises:
        UsageError: A parameter is missing or cannot be right.
    """
    if rehearsal and not command.rehearsal:
        raise UsageError("--check and --dry-run are for what pays: the main command, brainstorm and backfill.")
    signature = inspect.signature(flow)
    is_real = _names_all(signature, given)
    if not is_real:
        given = given | {name: value for name, value in PARAMETERS.items() if name in signature.parameters}
    bound = signature.bind(**given)
    bound.apply_defaults()
    find(command.check)(**bound.arguments)
    if not is_real:
        say(DEMO_LINE)
    if rehearsal:
        act = find(f"{command.rehearsal}:{rehearsal.act}")
        show, step = f"{command.rehearsal}:{rehearsal.show}", rehearsal.step
    else:
        act, show, step = partial(call, flow), command.show, "start"
    run = _run if is_real else _run_demo
    report = run(act, bound.arguments, step, needs_api=rehearsal is None)
    if output == "json":
        sys.stdout.write(report.model_dump_json() + "\n")
    else:
        find(show)(report)
    if rehearsal:
        return PUBLISHED if report.ok else FAILED
    problem: str = getattr(report, "problem", "")
    if problem:
        say_error(problem)
    return FAILED if problem else PUBLISHED


def _names_all(signature: inspect.Signature, given: dict[str, Any]) -> bool:
    """Whether a real run is asked for, and not the demo.

    Raises:
        UsageError: Only a part of what it needs is named.
    """
    needed = [name for name in NEEDED if name in signature.parameters]
    missing = [as_option(name) for name in needed if not given.get(name)]
    if missing and len(missing) < len(needed):
        raise UsageError(
            f"Missing: {', '.join(missing)}. Name all that is needed for a real run, or nothing for the demo."
        )
    return not missing


def _run(act: Callable[..., Any], parameters: dict[str, Any], step: str, *, needs_api: bool) -> Any:
    with show_progress(step):
        return _start(act, parameters, start_prefect_api() if needs_api else None)


def _run_demo(act: Callable[..., Any], parameters: dict[str, Any], step: str, *, needs_api: bool) -> Any:
    with alone(), show_progress(step):
        server = start_prefect_api() if needs_api else None
        with demo_stack() as api_base:
            ours = {"api_base": api_base} if "api_base" in parameters else {}
            try:
                report = _start(act, parameters | ours, server)
            except PairmillError as error:
                raise type(error)(localise_text(str(error))) from error
    return localise(report)


def _start(act: Callable[..., Any], parameters: dict[str, Any], server: Server | None) -> Any:
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
