"""litellm: one attempt per call, and its replies in our words; `faults` has the errors.

litellm is imported when a client is opened, never before: it takes seconds.
"""

import math
import os
from typing import Any

from tasks.clients.beginning import begin
from tasks.clients.faults import classify
from tasks.clients.outcome import Call, Reply
from tasks.core.columns import NO_CHOICES
from tasks.core.errors import ModelError, UsageError
from tasks.core.parsing import as_unicode
from tasks.core.price import Price
from tasks.core.prompts import RESPONSE_SCHEMA
from tasks.core.requests import Recipe

CALL_DEADLINE_SECONDS = 180.0
# A server that counts more is wrong, and its number would not fit a column.
MOST_TOKENS = 1 << 53
PROXY, PROXY_KEY = "litellm_proxy", "LITELLM_PROXY_API_KEY"
# A gateway's own word on what a call cost; litellm reads it.
COST_HEADER = "x-litellm-response-cost"


def connect(recipe: Recipe, api_base: str) -> Call:
    """Return the function that sends one prompt as one user turn, exactly once.

    Raises:
        UsageError: The model's name has no provider that litellm knows.
        ModelError: The provider's key is not set.
    """
    litellm = import_litellm()
    check_key(litellm, recipe.model_name, api_base)
    arguments = call_arguments(recipe, api_base)
    _, provider = check_model(recipe.model_name)

    async def call(prompt: str) -> Reply:
        begin(recipe.model_name)
        try:
            response = await litellm.acompletion(messages=[{"role": "user", "content": prompt}], **arguments)
        except Exception as error:  # litellm raises classes of its own, openai's and aiohttp's
            raise classify(error, recipe.model_name) from error
        cost = response._hidden_params.get("response_cost")  # noqa: SLF001  (its only home)
        return read_response(response, provider, cost)

    return call


def call_arguments(recipe: Recipe, api_base: str) -> dict[str, Any]:
    """Return what litellm.acompletion is given beside the messages.

    Raises:
        UsageError: The model's name has no provider that litellm knows.
    """
    name, provider = check_model(recipe.model_name)
    takes = import_litellm().get_supported_openai_params(name, provider) or []
    arguments: dict[str, Any] = {
        "model": recipe.model_name,
        "temperature": recipe.temperature,
        "top_p": recipe.top_p,
        "max_tokens": recipe.max_tokens,
        "max_retries": 0,
        "timeout": CALL_DEADLINE_SECONDS,
        "drop_params": False,
    }
    if recipe.structured_output and "response_format" in takes:
        arguments["response_format"] = RESPONSE_SCHEMA
    if api_base:
        arguments["api_base"] = api_base
    return arguments


def check_recipe(recipe: Recipe) -> None:
    """Check what can be known of a model without its key: that its provider is known, and takes the parameters.

    Raises:
        UsageError: One of the two is not so.
    """
    litellm = import_litellm()
    name, provider = check_model(recipe.model_name)
    arguments = call_arguments(recipe, "")
    given = {one: value for one, value in arguments.items() if one not in ("model", "timeout", "max_retries")}
    try:
        litellm.utils.get_optional_params(model=name, custom_llm_provider=provider, **given)
    except litellm.UnsupportedParamsError as error:
        raise UsageError(classify(error, recipe.model_name).message) from error


async def disconnect() -> None:
    """Close litellm's sessions; call it in the loop that made the calls, before it ends."""
    litellm = import_litellm()
    await litellm.close_litellm_async_clients()


def check_model(model_name: str) -> tuple[str, str]:
    """Return the model's own name and its provider.

    Raises:
        UsageError: litellm knows no such provider.
    """
    litellm = import_litellm()
    try:
        name, provider, *_ = litellm.get_llm_provider(model_name)
    except litellm.exceptions.BadRequestError as error:
        raise UsageError(
            f"litellm knows no provider of {model_name!r}. "
            "Write provider/model, for example openai/gpt-4.1-mini or hosted_vllm/my-model."
        ) from error
    return name, provider


def find_price(model_name: str) -> Price | None:
    """Return the price that litellm knows for the model, None where it knows none."""
    name, provider = check_model(model_name)
    for key in (model_name, f"{provider}/{name}", name):
        told = import_litellm().model_cost.get(key)
        if told and str(told.get("litellm_provider", "")).startswith(provider):
            output = (told.get("output_cost_per_token"), told.get("output_cost_per_reasoning_token"))
            known = [float(cost) for cost in output if cost is not None]
            if told.get("input_cost_per_token") is not None and known:
                return Price(float(told["input_cost_per_token"]), max(known))
    return None


def count_tokens(model_name: str, texts: list[str]) -> list[int]:
    """Return the tokens of each text: the model's own for OpenAI's, near to them for others."""
    litellm = import_litellm()
    return [litellm.token_counter(model=model_name, text=text) for text in texts]


def check_key(litellm: Any, model_name: str, api_base: str) -> None:
    """Check that the key of the model's provider is set, and can be sent.

    Raises:
        ModelError: It is not, or cannot.
        UsageError: litellm knows no such provider.
    """
    _, provider = check_model(model_name)
    own = f"{provider.upper()}_API_KEY"
    if (key := os.environ.get(own, "")) != key.strip():
        raise ModelError(f"{own} has a space or a line break around the key. Set it without, and run again.")
    missing = litellm.validate_environment(model_name).get("missing_keys") or []
    # litellm does not miss it, and would send a gateway OpenAI's key.
    if provider == PROXY and not os.environ.get(PROXY_KEY):
        missing = [PROXY_KEY]
    if missing and all(name.endswith("_API_KEY") for name in missing):
        hint = " (any text, where your server asks for none)" if api_base else ""
        raise ModelError(
            f"No key for {model_name}: set {' or '.join(missing)}{hint} and run again. Nothing was paid for."
        )


def read_response(response: Any, provider: str, cost: float | None) -> Reply:
    """Return litellm's response in our words; `cost` in US dollars is what litellm made of its usage."""
    choice = response.choices[0] if response.choices else None
    usage: Any = getattr(response, "usage", None)
    told = usage is not None and bool(usage.total_tokens)
    told_headers = response._hidden_params.get("additional_headers") or {}  # noqa: SLF001  (their only home)
    headers = {name.removeprefix("llm_provider-"): str(value) for name, value in told_headers.items()}
    # What a gateway has in the place of a model, it alone knows: litellm finds a price by the name, or says 0.
    priced = told and (provider != PROXY or COST_HEADER in headers)
    return Reply(
        text=_clean(choice.message.content) if choice else None,
        finish_reason=choice.finish_reason if choice else None,
        model_answered=_clean(response.model),
        input_tokens=_count(usage.prompt_tokens) if told else None,
        output_tokens=_count(usage.completion_tokens) if told else None,
        cost_usd=_amount(cost) if priced else None,
        error=None if choice else NO_CHOICES,
        headers=headers,
    )


def _clean(text: Any) -> str | None:
    """Return `text` as it can be stored: half a surrogate pair has no UTF-8 form."""
    return as_unicode(text) if isinstance(text, str) else None


def _count(tokens: Any) -> int | None:
    """Return a number of tokens, None for what no completion has."""
    return tokens if isinstance(tokens, int) and 0 <= tokens < MOST_TOKENS else None


def _amount(cost: float | None) -> float | None:
    """Return a cost, None for what none can be: less than nothing would lift the limit of a run."""
    return float(cost) if cost is not None and 0 <= cost < math.inf else None


def import_litellm() -> Any:
    """Import litellm, which takes seconds, and return it."""
    # The price map comes with the package; without this the import fetches one.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm  # noqa: PLC0415  (2.5 s of CPU)

    litellm.suppress_debug_info = True
    litellm.telemetry = False
    return litellm
