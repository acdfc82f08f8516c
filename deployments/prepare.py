"""Prepares a Prefect server: the work pool, its queues, the automations. Run again, it changes what differs.

python -m deployments.prepare --notify slack-webhook/ops
"""

import sys
import time

from cyclopts import App
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.workers.process import ProcessWorker

from deployments import automations
from flows.screen import say, say_error
from tasks.core.errors import PairmillError, UsageError

POOL = "pairmill"
# Of each queue, the first one first, how many run at once. Backfills that wait for their days leave room for these.
QUEUES = {"nightly": 1, "backfill": 3, "partition": 5}
# Runs at once on all workers of the pool.
POOL_LIMIT = sum(QUEUES.values())
# A server that was started a moment ago does not answer yet.
START_SECONDS = 180.0


def prepare(*, notify: str = "", then: str = "") -> None:
    """Make the work pool, its queues and the automations on the server that PREFECT_API_URL names.

    Args:
        notify: Block that carries notifications, type/name, for example slack-webhook/ops. Empty: none are sent.
        then: Deployment to start with every published partition, flow/deployment. Empty: none.

    Raises:
        UsageError: No server is named, or it knows no such block or deployment.
        PairmillError: The server does not answer.
    """
    if not PREFECT_API_URL.value():
        # The client would start a server of its own, that ends with this command.
        raise UsageError("Set PREFECT_API_URL to the Prefect server, for example http://127.0.0.1:4200/api.")
    wanted = [automations.mark_crashed()]
    with get_client(sync_client=True) as client:
        wait_for_server(client)
        _make_pool(client)
        for priority, (queue, limit) in enumerate(QUEUES.items(), start=1):
            _make_queue(client, queue, priority, limit)
        if notify:
            block_type, _, name = notify.partition("/")
            try:
                block = client.read_block_document_by_name(name, block_type)
            except ObjectNotFound as error:
                raise UsageError(f"There is no block {notify!r}. Make it in the UI, under Blocks.") from error
            wanted += [automations.tell_failure(block.id), automations.tell_late_night(block.id)]
        if then:
            try:
                deployment = client.read_deployment_by_name(then)
            except (ObjectNotFound, ValueError) as error:  # ValueError: not of the form flow/deployment
                raise UsageError(f"There is no deployment {then!r}. Deploy it first, flow/deployment.") from error
            wanted.append(automations.start_on_published(deployment.id))
        for automation in wanted:
            apply(client, automation)


def wait_for_server(client: SyncPrefectClient, seconds: float = START_SECONDS) -> None:
    """Wait until the Prefect server answers.

    Raises:
        PairmillError: It does not answer for as long.
    """
    address = PREFECT_API_URL.value()
    deadline, waiting = time.monotonic() + seconds, False
    while client.api_healthcheck() is not None:
        if time.monotonic() > deadline:
            raise PairmillError(f"No Prefect server answers at {address}. Start it: prefect server start")
        if not waiting:
            say(f"Waiting for the Prefect server at {address}")
        waiting = True
        time.sleep(1)


def _make_pool(client: SyncPrefectClient) -> None:
    try:
        client.read_work_pool(POOL)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=POOL, type=ProcessWorker.type, base_job_template=template))
    client.update_work_pool(POOL, WorkPoolUpdate(concurrency_limit=POOL_LIMIT))


def _make_queue(client: SyncPrefectClient, name: str, priority: int, limit: int) -> None:
    try:
        queue = client.read_work_queue_by_name(name, POOL)
    except ObjectNotFound:
        queue = client.create_work_queue(name, work_pool_name=POOL)
    client.update_work_queue(queue.id, priority=priority, concurrency_limit=limit)


def apply(client: SyncPrefectClient, automation: AutomationCore) -> None:
    """Make an automation, or bring the one of its name to it."""
    found = client.read_automations_by_name(automation.name)
    if found:
        # The client sends only what was set, and the server wants all of it.
        whole = AutomationCore.model_validate(automation.model_dump(mode="json", exclude={"owner_resource"}))
        client.update_automation(found[0].id, whole)
    else:
        client.create_automation(automation)


if __name__ == "__main__":
    app = App(name="python -m deployments.prepare", version_flags=[])
    app.default(prepare)
    try:
        app()
    except PairmillError as error:
        say_error(str(error))
        sys.exit(error.exit_code)
