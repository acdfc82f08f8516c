"""From a flow's parameters to the order that its steps carry out."""

from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect.runtime import flow_run

from flows.allowed import check_allowed, check_api_base
from flows.cluster import check_cluster
from tasks.core.errors import UsageError
from tasks.core.layout import PARTITION_FIELD, check_partition, check_uri
from tasks.core.mix import read_mix
from tasks.core.naming import ALL, resolve_languages
from tasks.core.requests import LanguageMix, Order, Recipe

# The demo's model and bucket; the one is refused without the other.
STAND_IN = "pairmill-stand-in"
DEMO_BUCKET = "pairmill-demo"

# The price that a run is given is the main model's alone.
NO_PRICE = {"input_cost_per_token": 0.0, "output_cost_per_token": 0.0}

NEEDED = ("source", "destination", "model_name")


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
    check_given({"source": source, "destination": destination, "model_name": settings["model_name"]})
    check_cluster(batch=bool(settings.get("batch")))
    recipe = Recipe(**{field.name: settings.pop(field.name) for field in fields(Recipe)})
    model_mix = read_mix(recipe.model_name, settings.pop("model_mix", ()))
    fallback_models = tuple(dict.fromkeys(name.strip() for name in settings.pop("fallback_models", ())))
    if not all(fallback_models):
        raise UsageError("fallback_models holds an empty one. Name each model, or leave fallback_models out.")
    check_api_base(settings["api_base"])
    named = {**dict.fromkeys(fallback_models, "fallback_models"), **dict.fromkeys(model_mix, "model_mix")}
    _check_models(recipe, named | {recipe.model_name: "model_name"}, destination, settings)
    scheduled_start = flow_run.scheduled_start_time or datetime.now(UTC)
    day = check_partition(partition or default_partition(source, scheduled_start))
    source = check_uri(source.replace(PARTITION_FIELD, day), "source")
    destination = check_allowed("destination", check_uri(destination, "destination"))
    if not source.startswith(f"{destination}/"):
        check_allowed("source", source)
    return Order(
        run_id=str(flow_run.id),
        started_at=datetime.now(UTC),
        source=source,
        destination=destination,
        partition=day,
        languages=tuple(resolve_languages(languages if language_mix == "each" else mixed_languages(languages))),
        language_mix=language_mix,
        recipe=recipe,
        model_mix=model_mix,
        fallback_models=fallback_models,
        **settings,
    )


def _check_models(recipe: Recipe, named: Mapping[str, str], destination: str, settings: dict[str, Any]) -> None:
    """Check what can be known of the models before a call, each `named` by its parameter.

    Raises:
        UsageError: One cannot be right.
    """
    for name, parameter in named.items():
        check_model_fits(name, destination, parameter=parameter, alone=len(named) == 1)
        check_price(name, settings if name == recipe.model_name else settings | NO_PRICE)
    if flow_run.id:
        # At the command line, which asks before it starts one, Prefect's server comes up meanwhile.
        from tasks.clients.llm import check_recipe  # noqa: PLC0415  (takes seconds)

        for name in named:
            check_recipe(replace(recipe, model_name=name))
    if settings.get("batch"):
        from tasks.clients.batches import check_batches  # noqa: PLC0415  (not for --help)

        check_batches(recipe.model_name)


def mixed_languages(languages: list[str]) -> list[str]:
    """Return the languages that a mix draws from: all of them.

    Raises:
        UsageError: Some were chosen, which the mix would not heed.
    """
    if languages not in (["English"], [ALL]):
        raise UsageError("language_mix=paper draws from all languages. Leave languages out, or the mix.")
    return [ALL]


def check_given(needed: Mapping[str, str]) -> None:
    """Check that none of the parameters that a flow cannot do without is empty.

    Raises:
        UsageError: Some are; names all of them.
    """
    if missing := [name for name, value in needed.items() if not value.strip()]:
        flags = ", ".join("--" + name.replace("_", "-") for name in missing)
        raise UsageError(f"Missing: {flags}. A run needs {', '.join(needed)}.")


def check_model_fits(model_name: str, destination: str, *, parameter: str = "model_name", alone: bool = True) -> None:
    """Check that a name is one model's, and that the stand-in, which is no model, writes to the demo's bucket only.

    Raises:
        UsageError: It would write elsewhere, or `parameter` is wrong: an address, which some providers' keys would
            go to, several names in one, or, unless `alone`, no provider, by which an address is shared.
    """
    if "://" in model_name:
        raise UsageError(f"{parameter} names {model_name!r}. Give the address as --api-base.")
    if "," in model_name:
        option = "--" + parameter.replace("_", "-")
        raise UsageError(f"{parameter} names {model_name!r}. Give each model an option {option} of its own.")
    if not alone and "/" not in model_name:
        raise UsageError(
            f"{parameter} names {model_name!r}, which says no provider. Where there are several models, write each as "
            "provider/model, for example openai/gpt-4.1-mini."
        )
    if STAND_IN in model_name and not destination.startswith(f"s3://{DEMO_BUCKET}/"):
        raise UsageError(f"{model_name} is no model: it only serves the demo. Name a real one with --model-name.")


def check_price(model_name: str, settings: Mapping[str, Any]) -> None:
    """Check that the price is whole, and that there is one where the cost is limited.

    Raises:
        UsageError: It is half, or unknown.
    """
    own = settings.get("input_cost_per_token", 0), settings.get("output_cost_per_token", 0)
    if any(own) and not all(own):
        raise UsageError("Give both --input-cost-per-token and --output-cost-per-token, or neither.")
    if not settings.get("max_cost_usd") or any(own):
        return
    from tasks.clients.llm import find_price  # noqa: PLC0415  (not for --help)

    if find_price(model_name) is None:
        raise UsageError(
            f"litellm knows no price for {model_name}, so --max-cost-usd cannot be kept. Give --input-cost-per-token "
            "and --output-cost-per-token (of --model-name, US dollars a token: 0.0000004 is $0.40 a million), or leave "
            "it out."
        )


def default_partition(source: str, scheduled_start: datetime) -> str:
    """Return the day that a run publishes when none is named, in UTC.

    The day of the scheduled start; the day before it, the last complete one, where
    the source holds {partition}.
    """
    day = scheduled_start.astimezone(UTC).date()
    return (day - timedelta(days=1) if PARTITION_FIELD in source else day).isoformat()
