"""What Prefect shows of a flow run: its name, and how it ended in one sentence."""

import re
from collections.abc import Callable, Container
from datetime import UTC, datetime
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec, TypeVar, cast

from prefect import get_run_logger
from prefect.context import FlowRunContext
from prefect.runtime import deployment, flow_run
from prefect.states import Completed, Failed

from flows.order import default_partition
from tasks.core.errors import AGAIN, PairmillError
from tasks.core.showing import shown

P = ParamSpec("P")
Report = TypeVar("Report")


# What asks for another environment, and where a deployment's run has its own from.
_VARIABLE = re.compile(r"\b(?:[Ss]et|Check) (?:[A-Z]+_[A-Z_]+|the right API key)")
OF_WORKER = "Variables and keys are those of the worker's environment: set them there, and start the worker again."

# What the flow runs of this process came to, until `call` takes it.
_ended: dict[str, Any] = {}


def call(flow: Callable[..., Any], **parameters: Any) -> Any:
    """Run a flow here and return its report, or raise the error of ours that ended it.

    A state's own result comes back through Prefect's API, and is lost where the
    API's reply is.
    """
    state = flow(**parameters, return_state=True)
    ended = _ended.pop(str(state.state_details.flow_run_id), None)
    if isinstance(ended, PairmillError):
        raise ended
    return state.result() if ended is None else ended


def name_run() -> str:
    """Return the name of this flow run: its deployment and the days it is about, like nightly-2026-11-23."""
    given = flow_run.parameters
    if "start_date" in given:
        days = f"{given['start_date']}-to-{given['end_date']}"
    else:
        scheduled_start = flow_run.scheduled_start_time or datetime.now(UTC)
        days = given.get("partition") or default_partition(given.get("source", ""), scheduled_start)
    return f"{deployment.name or flow_run.flow_name}-{days}"


def _is_deployed() -> bool:
    """Whether this flow run is a deployment's, so that it was Prefect's form or schedule that gave its parameters."""
    context = FlowRunContext.get()
    return bool(context and context.flow_run and context.flow_run.deployment_id)


def _as_form(said: str, fields: Container[str]) -> str:
    """Return `said` in words of Prefect's UI: fields of its form, its button Retry, and whose environment is meant."""

    def name(found: re.Match[str]) -> str:
        field = found[1].replace("-", "_")
        return field if field in fields else found[0]

    said = re.sub(r"--([a-z][a-z-]*)", name, said)
    said = said.replace(AGAIN, "press Retry").replace(AGAIN.capitalize(), "Press Retry")
    return f"{said} {OF_WORKER}" if _VARIABLE.search(said) and OF_WORKER not in said else said


def tell(headline: Callable[[Report], str]) -> Callable[[Callable[P, Report]], Callable[P, Report]]:
    """Make the headline of a flow's report, or our own error, the message of its final state.

    A deployment's run is told of as its form: there an error names fields, not options.

    No error, whosever it is, brings a key into Prefect. A report with a `problem` fails
    the run with it. Prefect takes a returned state as the run's own. Callers in this
    process use `call`.
    """

    def decorate(flow: Callable[P, Report]) -> Callable[P, Report]:
        @wraps(flow)
        def run(*args: P.args, **kwargs: P.kwargs) -> Report:
            from tasks.clients.concealment import conceal, keys_concealed  # noqa: PLC0415  (not for --help)
            from tasks.clients.storage_errors import storage_errors  # noqa: PLC0415
            from tasks.publicise import show_progress  # noqa: PLC0415

            state: Any
            ended: Any
            failure: PairmillError | None
            try:
                with keys_concealed(), show_progress(), storage_errors(str(kwargs.get("destination", ""))):
                    ended = flow(*args, **kwargs)
            except PairmillError as error:
                ended = failure = error
            else:
                problem = getattr(ended, "problem", "")
                failure = PairmillError(problem) if problem else None
            if failure is not None:
                said = shown(conceal(str(failure)))
                if _is_deployed():
                    said = _as_form(said, signature(flow).parameters)
                get_run_logger().error("%s", said)
                state = Failed(message=said, data=failure)
            else:
                state = Completed(message=headline(ended), data=ended)
            _ended[str(flow_run.id)] = ended
            return cast("Report", state)

        return run

    return decorate
