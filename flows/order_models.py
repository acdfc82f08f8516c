"""Whether the models that an order names can be right, as far as that can be known before a call."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prefect.runtime import flow_run

from tasks.core.errors import UsageError
from tasks.core.requests import Recipe

# The demo's model and bucket; the one is refused without the other.
STAND_IN = "pairmill-stand-in"
DEMO_BUCKET = "pairmill-demo"

# The price that a run is given is the main model's alone.
NO_PRICE = {"input_cost_per_token": 0.0, "output_cost_per_token": 0.0}


def check_models(recipe: Recipe, named: Mapping[str, str], destination: str, settings: dict[str, Any]) -> None:
    """Check the models of an order, each `named` by its option; `recipe` is the main one's.

    Raises:
        UsageError: One cannot be right.
    """
    for name, option in named.items():
        check_model_fits(name, destination, option=option, alone=len(named) == 1)
        _check_price(name, settings if name == recipe.model_name else settings | NO_PRICE)
    if flow_run.id:
        # At the command line, which asks before it starts one, Prefect's server comes up meanwhile.
        from tasks.clients.llm import check_recipe  # noqa: PLC0415  (takes seconds)

        for name in named:
            check_recipe(replace(recipe, model_name=name))
    if settings.get("batch"):
        from tasks.clients.batches import check_batches  # noqa: PLC0415  (not for --help)

        check_batches(recipe.model_name)


def check_model_fits(model_name: str, destination: str, *, option: str = "--model-name", alone: bool = True) -> None:
    """Check that a name is one model's, and that the stand-in, which is no model, writes to the demo's bucket only.

    Raises:
        UsageError: It would write elsewhere, or `option` is wrong: an address, which some providers' keys would
            go to, several names in one, or, unless `alone`, no provider, by which an address is shared.
    """
    if "://" in model_name:
        raise UsageError(f"{option} names {model_name!r}. Give the address as --api-base.")
    if "," in model_name:
        raise UsageError(f"{option} names {model_name!r}. Give each model by itself, without commas.")
    if not alone and "/" not in model_name:
        raise UsageError(
            f"{option} names {model_name!r}, which says no provider. Where there are several models, write each as "
            "provider/model, for example openai/gpt-4.1-mini."
        )
    if STAND_IN in model_name and not destination.startswith(f"s3://{DEMO_BUCKET}/"):
        raise UsageError(f"{model_name} is no model: it only serves the demo. Name a real one with --model-name.")


def _check_price(model_name: str, settings: Mapping[str, Any]) -> None:
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
