"""The days of a backfill as runs of a deployment, at a Prefect server where nobody carries them out."""

import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from prefect import flow, get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.runtime import flow_run
from prefect.states import Cancelling, Completed, Failed

from tasks.clients import storage
from tasks.core.layout import Layout
from tasks.core.report import RunReport
from tasks.partitions import _cancel, _day_report, _start, run_on_deployment
from tests.orders import report_figures
from tests.s3_proxy import S3Proxy

DAYS = ["2026-11-01", "2026-11-02", "2026-11-03"]


@flow
def one_day(partition: str, destination: str, max_cost_usd: float) -> None:
    """Stand for the main flow; nobody runs it."""


@pytest.fixture
def deployment(prefect_api: str) -> str:
    name = f"days-{uuid.uuid4().hex[:12]}"
    with get_client(sync_client=True) as client:
        client.create_deployment(client.create_flow(one_day), name, enforce_parameter_schema=False)
    return f"{one_day.name}/{name}"


def find_run(deployment: str, day: str) -> Any:
    """Return the deployment's run of this day, None where it has not begun."""
    with get_client(sync_client=True) as client:
        wanted = client.read_deployment_by_name(deployment).id
        runs = [run for run in client.read_flow_runs() if run.deployment_id == wanted]
        return next((run for run in runs if run.parameters["partition"] == day), None)


def wait_for(look: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 120
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


@pytest.mark.runs
def test_a_day_whose_run_is_deleted_stops_no_other_and_is_named(deployment: str, bucket: str) -> None:
    @flow
    def backfill() -> Any:
        return run_on_deployment(deployment, DAYS, {"destination": f"{bucket}/out", "max_cost_usd": 0.0}, 2)

    def settle() -> None:
        """Delete the first day's run, and complete the others."""
        with get_client(sync_client=True) as client:
            for day in DAYS:
                run = wait_for(partial(find_run, deployment, day))
                if day == DAYS[0]:
                    client.delete_flow_run(run.id)
                else:
                    client.set_flow_run_state(run.id, Completed(), force=True)

    helper = threading.Thread(target=settle)
    helper.start()
    run: Any = backfill
    done = run()
    helper.join()
    states = ("Crashed", "Completed", "Completed")
    assert [(day.partition, day.state) for day in done] == list(zip(DAYS, states, strict=True))
    assert "deleted from Prefect" in done[0].message


def test_a_run_that_cannot_be_cancelled_is_named_and_the_others_are_cancelled(deployment: str) -> None:
    with get_client(sync_client=True) as client:
        wanted = client.read_deployment_by_name(deployment).id
        runs = {day: client.create_flow_run_from_deployment(wanted, parameters={"partition": day}).id for day in DAYS}
        client.delete_flow_run(runs[DAYS[0]])

        @flow
        def end_early() -> UUID:
            _cancel(client, {f"partition-{day}": run_id for day, run_id in runs.items()})
            return UUID(flow_run.id)

        ended: Any = end_early
        ours = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[ended()]))
        said = wait_for(lambda: [line.message for line in client.read_logs(ours)])
        assert [f"partition-{DAYS[0]}" in line for line in said] == [True], said
        states = [client.read_flow_run(runs[day]).state for day in DAYS[1:]]
        assert {state.name for state in states if state} <= {"Cancelling", "Cancelled"}


def test_the_figures_of_a_day_are_found_under_a_destination_with_a_slash_at_its_end(bucket: str) -> None:
    report = RunReport(**report_figures(accepted=8, cost_usd=0.25))
    storage.write_bytes(Layout(f"{bucket}/out").report("run-1"), report.model_dump_json().encode())
    day = _day_report(DAYS[0], "run-1", Completed(), {"destination": f"{bucket}/out/"})
    assert (day.accepted, day.cost_usd) == (8, 0.25)


def test_a_day_whose_report_another_version_wrote_has_ended_as_its_run_has(bucket: str) -> None:
    storage.write_bytes(Layout(f"{bucket}/out").report("run-1"), b'{"accepted": 8}')
    day = _day_report(DAYS[0], "run-1", Completed(), {"destination": f"{bucket}/out"})
    assert (day.done, day.accepted) == (True, None)


def test_a_day_whose_report_cannot_be_read_has_ended_as_its_run_has(
    bucket: str, s3_proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_proxy.url)
    s3_proxy.fail("runs/run-1.json", 403, "AccessDenied")
    day = _day_report(DAYS[0], "run-1", Completed(), {"destination": f"{bucket}/out"})
    assert (day.done, day.accepted) == (True, None)


def test_a_day_that_is_being_cancelled_is_started_anew_by_a_retry(deployment: str) -> None:
    started = []

    @flow(retries=1)
    def backfill() -> None:
        started.append(_start(deployment, DAYS[0], {"destination": "s3://bucket/out", "max_cost_usd": 0.0}).id)
        if len(started) == 1:
            with get_client(sync_client=True) as client:
                # Of a worker whose process nobody ends.
                client.update_flow_run(started[0], infrastructure_pid="gone:1")
                client.set_flow_run_state(started[0], Cancelling(), force=True)
                assert client.read_flow_run(started[0]).state_name == "Cancelling"
            raise RuntimeError

    run: Any = backfill
    run()
    assert started[0] != started[1]


@pytest.mark.runs
def test_a_day_that_an_earlier_retry_has_finished_is_not_started_anew(deployment: str, bucket: str) -> None:
    attempts = []

    @flow(retries=2)
    def backfill() -> list[str]:
        done = run_on_deployment(deployment, DAYS[:1], {"destination": f"{bucket}/out", "max_cost_usd": 0.0}, 1)
        attempts.append([day.run_id for day in done])
        if len(attempts) < 3:
            raise RuntimeError
        return attempts[-1]

    def settle() -> None:
        """Fail the day's first run, and complete every other."""
        seen = set[UUID]()
        while len(attempts) < 3:
            with get_client(sync_client=True) as client:
                wanted = client.read_deployment_by_name(deployment).id
                for run in client.read_flow_runs():
                    if run.deployment_id == wanted and run.id not in seen:
                        client.set_flow_run_state(run.id, Completed() if seen else Failed(), force=True)
                        seen.add(run.id)
            time.sleep(0.5)

    helper = threading.Thread(target=settle)
    helper.start()
    run: Any = backfill
    run()
    helper.join()
    first, second, third = attempts
    assert first != second == third
