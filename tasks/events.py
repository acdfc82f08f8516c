"""Tells others through Prefect what was published: automations may start what uses it."""

from uuid import NAMESPACE_URL, uuid5

from prefect.events import emit_event

from tasks.core.report import RunReport

PUBLISHED = "pairmill.pairs.published"
# An event is a message, not a listing; who needs more files reads the report.
MOST_FILES = 1_000


def emit_published(report: RunReport) -> None:
    """Send the event that a partition is published; automations may start what uses it."""
    emit_event(
        event=PUBLISHED,
        # Sent a second time it is the same one.
        id=uuid5(NAMESPACE_URL, f"{report.pairs_uri} {report.run_id} {report.started_at.isoformat()}"),
        resource={"prefect.resource.id": f"pairmill.pairs.{report.pairs_uri}", "prefect.resource.name": "pairs"},
        payload={
            "partition": report.partition,
            "rows": report.accepted,
            "cost_usd": report.cost_usd,
            "model_name": report.model_name,
            "run_id": report.run_id,
            "pairs_uri": report.pairs_uri,
            "files": report.files[:MOST_FILES],
        },
    )
