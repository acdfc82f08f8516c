"""Nights that go wrong, on a real server with real workers: pytest -m deployments."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from prefect import flow, get_client
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.events import emit_event

from deployments import automations, prepare
from deployments.definitions import read_deployments
from tasks.events import PUBLISHED
from tests.stack import WORKERS, Stack, ended_run, read_runs, start_partition, wait_for

pytestmark = [pytest.mark.deployments, pytest.mark.timeout(1200)]

# Heartbeats come every 30 seconds; Prefect allows no shorter time.
SILENCE = timedelta(seconds=45)
CALLS_IN_FLIGHT = 8
OUTAGE_SECONDS = 60


@contextmanager
def webhook() -> Iterator[tuple[str, list[str]]]:
    """Receive notifications inside the block: the block's name, and what was told."""
    told: list[str] = []

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(self.rfile.read(int(self.headers["content-length"])).decode())
            self.send_response(200)
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Webhook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings: dict[str, Any] = {
            "url": f"http://127.0.0.1:{server.server_port}",
            "json_data": {"text": "{{subject}}: {{body}}"},
        }
        block: Any = CustomWebhookNotificationBlock(name="ops", **settings)
        block.save("ops", overwrite=True)
        yield "custom-webhook/ops", told
        server.shutdown()


def test_a_night_that_is_late_and_a_run_that_fails_are_told_of(stack: Stack) -> None:
    with webhook() as (block, told), get_client(sync_client=True) as client:
        for _ in range(2):
            prepare.prepare(notify=block)
        assert len({one.name for one in client.read_automations()}) == len(client.read_automations()) == 3
        block_id = client.read_block_document_by_name("ops", "custom-webhook").id
        prepare.apply(client, automations.tell_late_night(block_id, within=timedelta(seconds=10)))
        queue = client.read_work_queue_by_name("nightly", prepare.POOL)
        client.update_work_queue(queue.id, is_paused=True)
        time.sleep(5)  # the server reads its automations anew
        run = start_partition("2026-03-02", "nightly")
        (late,) = wait_for("the late night", lambda: [text for text in told if "not published" in text])
        assert "nightly-2026-03-02 is Late" in late
        client.update_work_queue(queue.id, is_paused=False)
        told_of = wait_for("the failure", lambda: [text for text in told if "nightly-2026-03-02: Failed" in text])
        assert "No task descriptions under" in told_of[0]
        assert f"/runs/flow-run/{run.id}" in told_of[0]
        for automation in (automations.tell_failure(block_id), automations.tell_late_night(block_id)):
            client.delete_automation(client.read_automations_by_name(automation.name)[0].id)


def test_a_published_day_starts_what_uses_it(stack: Stack) -> None:
    @flow(name="consumer")
    def consumer(*, partition: str, files: list[str]) -> None:
        """Stand for what trains on a published partition."""

    deployed: Any = consumer.to_deployment(name="train")
    deployed.apply()
    prepare.prepare(then="consumer/train")
    payload = {"partition": "2026-03-01", "files": ["s3://a/b", "s3://a/c"]}
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("consumer/train")

        def started() -> Any:
            # Again and again: the server reads its automations anew at a moment of its own.
            emit_event(event=PUBLISHED, resource={"prefect.resource.id": "pairmill.pairs.x"}, payload=payload)
            return [run.parameters for run in client.read_flow_runs() if run.deployment_id == deployment.id]

        assert payload in wait_for("the consumer's run", started)


def test_a_night_whose_worker_is_killed_is_marked_as_crashed_and_a_retry_finishes_it(stack: Stack) -> None:
    day, rows = "2026-04-01", 300
    stack.put_day(day, rows)
    with get_client(sync_client=True) as client:
        prepare.apply(client, automations.mark_crashed(silence=SILENCE))
        time.sleep(5)  # the server reads its automations anew
        stack.model.latency_seconds = 0.5
        run = start_partition(day, "nightly", concurrency=CALLS_IN_FLIGHT)
        wait_for("calls of the night", lambda: len(stack.prompts(day)) > 60)
        stack.model.held = True
        ours = int(str(client.read_flow_run(run.id).infrastructure_pid).rpartition(":")[2])
        worker = stack.worker_of(ours)
        stack.kill(worker, ours)
        paid = len(stack.prompts(day))
        ended = ended_run(f"nightly-{day}")
        assert (ended.state.name, ended.state.message) == ("Crashed", "Its heartbeats stopped. Retry finishes it.")
        assert len(stack.prompts(day)) == paid < rows  # nothing of it went on
        stack.model.held, stack.model.latency_seconds = False, 0.0
        stack.do("prefect", "flow-run", "retry", str(run.id))
        wait_for("the retry", lambda: read_runs(f"nightly-{day}")[0].state.name == "Completed")
        prepare.apply(client, automations.mark_crashed())
    stack.start_worker(worker)
    assert stack.published()[day] == rows
    prompts = stack.prompts(day)
    assert len(prompts) - len(set(prompts)) <= CALLS_IN_FLIGHT


def test_prefect_going_away_in_the_middle_of_a_night_loses_no_paid_work(stack: Stack) -> None:
    day, rows = "2026-05-01", 240
    stack.put_day(day, rows)
    stack.model.latency_seconds = 1.0
    run = start_partition(day, concurrency=CALLS_IN_FLIGHT)
    wait_for("calls of the night", lambda: len(stack.prompts(day)) > 20)
    stack.model.held = True
    stack.kill("server")
    gone = time.monotonic()
    stack.model.held = False
    wait_for("the last call", lambda: len(stack.prompts(day)) >= rows)
    stack.model.latency_seconds = 0.0
    time.sleep(max(0.0, OUTAGE_SECONDS - (time.monotonic() - gone)))
    stack.start_server()
    ended = ended_run(f"partition-{day}")
    assert (ended.id, ended.state.name) == (run.id, "Completed")
    assert (stack.published()[day], len(stack.prompts(day))) == (rows, rows)
    assert [stack.programs[worker].poll() for worker in WORKERS] == [None, None]  # they go on, too


def test_one_process_serves_the_same_deployments_without_a_pool(stack: Stack) -> None:
    for worker in WORKERS:
        stack.kill(worker)
    stack.start("serve", "deployments.serve")
    day = "2026-06-01"
    stack.put_day(day, 5)
    wait_for("the deployments", lambda: "are being served" in stack.log("serve").read_text())
    said = stack.log("serve").read_text()
    assert all(f"/{one['name']} " in said for one in read_deployments())
    run = start_partition(day)
    ended = ended_run(f"partition-{day}")
    assert (ended.id, ended.state.name) == (run.id, "Completed")
    assert stack.published()[day] == 5
