"""From a flow's parameters to the order that its steps carry out."""

from datetime import UTC, datetime, timedelta

from prefect.runtime import flow_run

from tasks.core.errors import UsageError
from tasks.core.languages import resolve_languages
from tasks.core.layout import PARTITION_FIELD, check_partition, check_uri
from tasks.core.requests import OnPublished, Order, Recipe

# The demo's model and bucket; the one is refused without the other.
STAND_IN = "pairmill-stand-in"
DEMO_BUCKET = "pairmill-demo"


def place_order(
    *,
    source: str,
    destination: str,
    model_name: str,
    partition: str,
    languages: list[str],
    pairs_per_task: int,
    on_published: OnPublished,
    api_base: str,
    model_revision: str,
    temperature: float,
    top_p: float,
    max_tokens: int,
    structured_output: bool,
    concurrency: int,
    max_rejected_share: float,
    seed: int,
    limit: int,
) -> Order:
    """Return the order of this flow run: names checked, partition and languages resolved.

    Raises:
        UsageError: A parameter is missing or cannot be right.
    """
    given = {"source": source, "destination": destination, "model_name": model_name}
    if missing := [name for name, value in given.items() if not value.strip()]:
        flags = ", ".join("--" + name.replace("_", "-") for name in missing)
        raise UsageError(f"Missing: {flags}. A run needs a source, a destination and a model_name.")
    if STAND_IN in model_name and not destination.startswith(f"s3://{DEMO_BUCKET}/"):
        raise UsageError(f"{model_name} is no model: it only serves the demo. Name a real one with --model-name.")
    scheduled_start = flow_run.scheduled_start_time or datetime.now(UTC)
    day = check_partition(partition or default_partition(source, scheduled_start))
    return Order(
        run_id=str(flow_run.id),
        started_at=datetime.now(UTC),
        source=check_uri(source.replace(PARTITION_FIELD, day), "source"),
        destination=check_uri(destination, "destination"),
        partition=day,
        languages=tuple(resolve_languages(languages)),
        pairs_per_task=pairs_per_task,
        on_published=on_published,
        recipe=Recipe(
            model_name=model_name,
            model_revision=model_revision,
            temperature=temperature,
            top_p=top_p,
            max_tokens=max_tokens,
            structured=structured_output,
            seed=seed,
        ),
        api_base=api_base,
        concurrency=concurrency,
        max_rejected_share=max_rejected_share,
        limit=limit,
    )


def default_partition(source: str, scheduled_start: datetime) -> str:
    """Return the day that a run publishes when none is named, in UTC.

    The day of the scheduled start; the day before it, the last complete one, where
    the source holds {partition}.
    """
    day = scheduled_start.astimezone(UTC).date()
    return (day - timedelta(days=1) if PARTITION_FIELD in source else day).isoformat()
