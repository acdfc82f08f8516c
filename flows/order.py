"""From a flow's parameters to the order that its steps carry out."""

from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect.runtime import flow_run

from flows.allowed import check_allowed, check_api_base
from flows.cluster import check_cluster
from flows.order_models import check_models
from tasks.core.errors import UsageError
from tasks.core.layout import PARTITION_FIELD, check_partition, check_uri
from tasks.core.mix import read_mix
from tasks.core.naming import ALL, resolve_languages
from tasks.core.requests import LanguageMix, Order, Recipe


def place_order(
    *, source: str, destination: str, partition: str, languages: list[str], language_mix: LanguageMix, **settings: Any
) -> Order:
    """Return the order of this flow run: names checked, partition and languages resolved.

    Args:
        source: As the flow's.
        destination: As the flow's.
        partition: As the flow's.
        languages: As the flow's.
        language_mix: As the flow's.
        **settings: The flow's other parameters: fields of Recipe and of Order.

    Raises:
        UsageError: A parameter is missing or cannot be right.
    """
    check_given({"--source": source, "--destination": destination, "--model-name": settings["model_name"]})
    check_cluster(batch=bool(settings.get("batch")))
    recipe = Recipe(**{field.name: settings.pop(field.name) for field in fields(Recipe)})
    model_mix = read_mix(recipe.model_name, settings.pop("model_mix", ()))
    fallback_models = tuple(dict.fromkeys(name.strip() for name in settings.pop("fallback_models", ())))
    if not all(fallback_models):
        raise UsageError("--fallback-models holds an empty one. Name each model, or leave it out.")
    check_api_base(settings["api_base"])
    named = {**dict.fromkeys(fallback_models, "--fallback-models"), **dict.fromkeys(model_mix, "--model-mix")}
    check_models(recipe, named | {recipe.model_name: "--model-name"}, destination, settings)
    scheduled_start = flow_run.scheduled_start_time or datetime.now(UTC)
    day = check_partition(partition or default_partition(source, scheduled_start))
    source = check_uri(source.replace(PARTITION_FIELD, day), "--source")
    destination = check_allowed("--destination", check_uri(destination, "--destination"))
    if not source.startswith(f"{destination}/"):
        check_allowed("--source", source)
    return Order(
        run_id=str(flow_run.id),
        started_at=datetime.now(UTC),
        source=source,
        destination=destination,
        partition=day,
        languages=tuple(resolve_languages(languages if language_mix == "each" else _mixed_languages(languages))),
        language_mix=language_mix,
        recipe=recipe,
        model_mix=model_mix,
        fallback_models=fallback_models,
        **settings,
    )


def _mixed_languages(languages: list[str]) -> list[str]:
    """Return the languages that a mix draws from: all of them.

    Raises:
        UsageError: Some were chosen, which the mix would not heed.
    """
    if languages not in (["English"], [ALL]):
        raise UsageError("--language-mix paper draws from all languages. Leave --languages out, or the mix.")
    return [ALL]


def check_given(needed: Mapping[str, str]) -> None:
    """Check that none of the options that a flow cannot do without is empty.

    Raises:
        UsageError: Some are; names all of them.
    """
    if missing := [name for name, value in needed.items() if not value.strip()]:
        raise UsageError(f"Missing: {', '.join(missing)}. A run needs {', '.join(needed)}.")


def default_partition(source: str, scheduled_start: datetime) -> str:
    """Return the day that a run publishes when none is named, in UTC.

    The day of the scheduled start; the day before it, the last complete one, where
    the source holds {partition}.
    """
    day = scheduled_start.astimezone(UTC).date()
    return (day - timedelta(days=1) if PARTITION_FIELD in source else day).isoformat()
