"""What the server does on its own when something happens, or does not."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, RunDeployment, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

from tasks.events import PUBLISHED

# Eight heartbeats (PREFECT_FLOWS_HEARTBEAT_FREQUENCY in prefect.yaml): those of a run that lives are lost while
# the server is away, too.
SILENCE = timedelta(minutes=4)
# The nightly run is due at 02:00.
PUBLISHED_WITHIN = timedelta(hours=4)
RUN = "prefect.flow-run"
ENDED = {f"{RUN}.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
OURS: Any = {"prefect.resource.role": "tag", "prefect.resource.id": "prefect.tag.pairmill"}
NIGHTLY: Any = {"prefect.resource.role": "deployment", "prefect.resource.name": "nightly"}


def mark_crashed(silence: timedelta = SILENCE) -> AutomationCore:
    """Mark a run as crashed when its heartbeats stop for as long: its process or machine is gone."""
    return AutomationCore(
        name="pairmill: a run whose heartbeats stop has crashed",
        description="Run it again with Retry: what it paid for is kept.",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            after={f"{RUN}.heartbeat"},
            expect={f"{RUN}.heartbeat", *ENDED},
            match={"prefect.resource.id": f"{RUN}.*"},
            match_related=OURS,
            for_each={"prefect.resource.id"},
            within=silence,
        ),
        actions=[
            ChangeFlowRunState(
                name=None, state=StateType.CRASHED, message="Its heartbeats stopped. Retry finishes it.", force=False
            )
        ],
    )


def tell_failure(block_id: UUID) -> AutomationCore:
    """Tell people when a run fails or crashes."""
    return AutomationCore(
        name="pairmill: tell when a run fails",
        description="Of every deployment of pairmill, the days of a backfill among them.",
        trigger=EventTrigger(
            expect={f"{RUN}.Failed", f"{RUN}.Crashed"},
            match={"prefect.resource.id": f"{RUN}.*"},
            match_related=OURS,
        ),
        actions=[
            SendNotification(
                block_document_id=block_id,
                subject="{{ flow_run.name }}: {{ flow_run.state.name }}",
                body="{{ flow_run.state.message }}\n{{ flow_run|ui_url }}",
            )
        ],
    )


def tell_late_night(block_id: UUID, within: timedelta = PUBLISHED_WITHIN) -> AutomationCore:
    """Tell people when the nightly run has not completed so long after it was due, begun or not."""
    return AutomationCore(
        name="pairmill: tell when the night is not published by 06:00",
        description="Whatever keeps a nightly run from completing: it failed, waits, goes on, or no worker began it.",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            after={f"{RUN}.Late", f"{RUN}.Pending"},
            expect={f"{RUN}.Completed"},
            match={"prefect.resource.id": f"{RUN}.*"},
            match_related=NIGHTLY,
            for_each={"prefect.resource.id"},
            within=within,
        ),
        actions=[
            SendNotification(
                block_document_id=block_id,
                subject="The nightly pairs are not published",
                body="{{ flow_run.name }} is {{ flow_run.state.name }}: {{ flow_run.state.message }}",
            )
        ],
    )


def start_on_published(deployment_id: UUID) -> AutomationCore:
    """Start a deployment of somebody else's with every partition that is published."""
    return AutomationCore(
        name="pairmill: start what uses a published partition",
        description="With each partition that is published, once it is readable. The deployment takes the parameters "
        "partition (YYYY-MM-DD) and files (URIs of Parquet).",
        trigger=EventTrigger(expect={PUBLISHED}),
        actions=[
            RunDeployment(
                source="selected",
                deployment_id=deployment_id,
                parameters={
                    "partition": {"__prefect_kind": "jinja", "template": "{{ event.payload.partition }}"},
                    "files": {
                        "__prefect_kind": "json",
                        "value": {"__prefect_kind": "jinja", "template": "{{ event.payload.files|tojson }}"},
                    },
                },
                job_variables=None,
            )
        ],
    )
