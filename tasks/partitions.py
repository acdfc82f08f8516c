"""Runs the main flow for many days: each as a run of a deployment, or in this process."""

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast
from uuid import UUID

import httpx
from prefect import Flow, State, get_client, get_run_logger
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.runtime import flow_run as this_run
from prefect.states import Cancelling, Crashed
from pydantic import ValidationError

from tasks.clients import storage
from tasks.core.backfill import DayReport, Purse
from tasks.core.errors import StorageError
from tasks.core.layout import Layout, check_uri
from tasks.core.report import RunReport
from tasks.core.showing import shown
from tasks.progress import progress

POLL_SECONDS = 3.0
# What a day's report takes from its run's.
_FIGURES = ("accepted", "rejected", "paid", "cached", "cost_usd")

Parameters = dict[str, Any]


def deployment_exists(name: str) -> bool:
    """Whether the server knows a deployment of this name, flow/deployment."""
    with get_client(sync_client=True) as client:
        try:
            client.read_deployment_by_name(name)
        except ObjectNotFound:
            return False
        return True


def run_in_process(flow: "Flow[..., Any]", days: Sequence[str], parameters: Parameters) -> list[DayReport]:
    """Run `flow` for one day after the other; a day that fails does not stop the next."""
    run: Any = flow
    purse = Purse(parameters["max_cost_usd"], len(days))
    done = []
    for day in days:
        state: State[Any] = run(**parameters | {"partition": day, "max_cost_usd": purse.deal(day)}, return_state=True)
        report = _day_report(day, str(state.state_details.flow_run_id or ""), state, parameters)
        purse.settle(day, report.cost_usd)
        done.append(report)
    return done


def run_on_deployment(name: str, days: Sequence[str], parameters: Parameters, most: int) -> list[DayReport]:
    """Start one run of the deployment per day, `most` of them at a time, and wait for all.

    Whatever ends this early cancels the runs that are still going on. A retry of the
    calling run takes up the runs that it started before and starts those that failed anew.
    """
    waiting, running = deque(days), dict[str, UUID]()
    ended: dict[str, DayReport] = {}
    purse = Purse(parameters["max_cost_usd"], len(days))
    progress.begin("backfill", len(days))
    with get_client(sync_client=True) as client:
        try:
            while waiting or running:
                while waiting and len(running) < most:
                    day = waiting.popleft()
                    running[day] = _start(name, day, parameters | {"max_cost_usd": purse.deal(day)}).id
                time.sleep(POLL_SECONDS)
                for day, state in _ended(client, running):
                    ended[day] = _day_report(day, str(running.pop(day)), state, parameters)
                    purse.settle(day, ended[day].cost_usd)
                    progress.cached = len(ended)
        finally:
            _cancel(client, {_run_name(name, day): run_id for day, run_id in running.items()})
    return [ended[day] for day in days]


def _start(name: str, day: str, parameters: Parameters) -> FlowRun:
    """Start the day's run, or return that of an earlier attempt of this run, unless it has come to nothing."""
    key = f"{this_run.id}/{day}"
    run = _create(name, day, parameters, key)
    for attempt in range(2, this_run.run_count + 1):
        if not _comes_to_nothing(run.state):
            break
        run = _create(name, day, parameters, f"{key}/{attempt}")
    return run


def _comes_to_nothing(state: "State[Any] | None") -> bool:
    """Whether a run has failed, or is being cancelled, which lasts for as long as nobody carries it out."""
    return state is not None and (state.is_cancelling() or (state.is_final() and not state.is_completed()))


def _create(name: str, day: str, parameters: Parameters, key: str) -> FlowRun:
    run = run_deployment(
        name,
        parameters={**parameters, "partition": day},
        flow_run_name=_run_name(name, day),
        timeout=0,
        idempotency_key=key,
        tags=["backfill"],
    )
    return cast("FlowRun", run)


def _run_name(name: str, day: str) -> str:
    return f"{name.rpartition('/')[2]}-{day}"


def _ended(client: SyncPrefectClient, running: Mapping[str, UUID]) -> Iterator[tuple[str, "State[Any]"]]:
    """Yield the days whose runs have ended, and how; none while the server cannot be reached."""
    for day, run_id in list(running.items()):
        try:
            state = client.read_flow_run(run_id).state
        except ObjectNotFound:
            yield day, Crashed(message="This run was deleted from Prefect")
        except httpx.HTTPError:
            return
        else:
            if state is not None and state.is_final():
                yield day, state


def _cancel(client: SyncPrefectClient, running: Mapping[str, UUID]) -> None:
    """Cancel each of these runs, by its name; those that cannot be are named in the log, and in the terminal."""
    for name, run_id in running.items():
        try:
            client.set_flow_run_state(run_id, Cancelling(message="The backfill that started this run has ended"))
        except (PrefectException, httpx.HTTPError) as error:
            why = "Prefect knows no such run any more" if isinstance(error, ObjectNotFound) else shown(str(error))
            # Critical is what the command line shows, too.
            get_run_logger().critical("%s (%s) could not be cancelled and may go on: %s", name, run_id, why)


def _day_report(day: str, run_id: str, state: "State[Any]", parameters: Parameters) -> DayReport:
    report = DayReport(partition=day, run_id=run_id, state=state.name or "", message=state.message or "")
    layout = Layout(check_uri(parameters["destination"], "--destination"))
    # How it ended is known without its figures, and other days may be at work.
    with suppress(StorageError, ValidationError):
        if found := storage.find_bytes(layout.report(run_id)):
            figures = RunReport.model_validate_json(found[0])
            return report.model_copy(update={name: getattr(figures, name) for name in _FIGURES})
    return report
