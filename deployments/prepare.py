"""Prepares a Prefect server: the work pool, its queues, the automations. Run again, it changes what differs.

python -m deployments.prepare --notify slack-webhook/ops
"""

from cyclopts import App
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

from deployments import automations

POOL = "pairmill"
# Runs at once on all workers of the pool; above the limit of `backfill` in prefect.yaml.
POOL_LIMIT = 8
# A queue of a smaller number goes first.
PRIORITIES = {"nightly": 1, "backfill": 2, "partition": 3}


def prepare(*, notify: str = "", then: str = "") -> None:
    """Make the work pool, its queues and the automations on the server that PREFECT_API_URL names.

    Args:
        notify: Block that carries notifications, type/name, for example slack-webhook/ops. Empty: none are sent.
        then: Deployment to start with every published partition, flow/deployment. Empty: none.
    """
    wanted = [automations.mark_crashed()]
    with get_client(sync_client=True) as client:
        _make_pool(client)
        for queue, priority in PRIORITIES.items():
            _make_queue(client, queue, priority)
        if notify:
            block_type, _, name = notify.partition("/")
            block = client.read_block_document_by_name(name, block_type)
            wanted += [automations.tell_failure(block.id), automations.tell_late_night(block.id)]
        if then:
            wanted.append(automations.start_on_published(client.read_deployment_by_name(then).id))
        for automation in wanted:
            apply(client, automation)


def _make_pool(client: SyncPrefectClient) -> None:
    try:
        client.read_work_pool(POOL)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=POOL, type=ProcessWorker.type, base_job_template=template))
    client.update_work_pool(POOL, WorkPoolUpdate(concurrency_limit=POOL_LIMIT))


def _make_queue(client: SyncPrefectClient, name: str, priority: int) -> None:
    try:
        queue = client.read_work_queue_by_name(name, POOL)
    except ObjectNotFound:
        queue = client.create_work_queue(name, work_pool_name=POOL)
    client.update_work_queue(queue.id, priority=priority)


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
    app()
