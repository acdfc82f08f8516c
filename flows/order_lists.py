"""From the parameters of a brainstorming to what it wants, and to what the pairs that follow it want."""

from dataclasses import asdict, replace
from inspect import signature
from typing import Any

from flows.order import place_order
from flows.short_text_matching import generate_short_text_pairs
from tasks.core.brainstorming import Brainstorm, BrainstormRecipe, Category
from tasks.core.errors import UsageError
from tasks.core.layout import Layout
from tasks.core.requests import Order

# What means something to the pairs alone.
GENERATE_ONLY = (
    *("languages", "language_mix", "pairs_per_task", "model_mix", "fallback_models", "batch", "batch_deadline"),
    "max_attempts_per_pair",
)
# What the main flow takes from a brainstorming when it is run on the descriptions.
HANDED_ON = (
    *("destination", "model_name", "api_base", "model_revision", "temperature", "top_p", "concurrency"),
    *("requests_per_minute", "tokens_per_minute", "max_cost_usd", "input_cost_per_token", "output_cost_per_token"),
    *("seed", *GENERATE_ONLY),
)
# The order's fields that mean nothing to a brainstorming.
UNUSED: dict[str, Any] = {
    "partition": "",
    "languages": ["English"],
    "language_mix": "each",
    "pairs_per_task": 1,
    "max_attempts_per_pair": 1,
    "on_published": "add",
    "structured_output": False,
    "max_rejected_share": 1.0,
    "limit": 0,
}
# A list is longer than a pair.
MAX_TOKENS = 4096


def place_brainstorm(
    *,
    destination: str,
    descriptions: int,
    topics: list[str],
    category: Category,
    then_generate: bool = False,
    **settings: Any,
) -> Brainstorm:
    """Return what this flow run wants; the parameters are the flow's, the pairs' own checked where they are wanted.

    Raises:
        UsageError: A parameter is missing or cannot be right.
    """
    if any(not topic.strip() for topic in topics):
        raise UsageError("--topics holds an empty one. Name each setting, or leave it out.")
    own = {name: value for name, value in settings.items() if name not in GENERATE_ONLY}
    source = Layout(destination.rstrip("/")).tasks
    order = place_order(source=source, destination=destination, max_tokens=MAX_TOKENS, **UNUSED, **own)
    if then_generate:
        # Before the lists are paid for.
        place_pairs(destination=destination, **settings)
    recipe = BrainstormRecipe(**asdict(order.recipe))
    topics_once = tuple(dict.fromkeys(topic.strip() for topic in topics))
    return Brainstorm(order=replace(order, recipe=recipe), wanted=descriptions, topics=topics_once, category=category)


def place_pairs(*, destination: str, **settings: Any) -> Order:
    """Return the order of the pairs that then_generate wants; `settings` are this flow's parameters.

    Raises:
        UsageError: A parameter cannot be right.
    """
    defaults = {name: one.default for name, one in signature(generate_short_text_pairs).parameters.items()}
    source = Layout(destination.rstrip("/")).tasks
    return place_order(**defaults | hand_on({"destination": destination, **settings}, source))


def hand_on(given: dict[str, Any], source: str, spent_usd: float = 0.0) -> dict[str, Any]:
    """Return the main flow's parameters; what the brainstorming has cost, or may have, is off its limit."""
    parameters = {name: given[name] for name in HANDED_ON}
    if given["max_cost_usd"]:
        parameters["max_cost_usd"] = max(given["max_cost_usd"] - spent_usd, 1e-9)
    return parameters | {"source": source}
