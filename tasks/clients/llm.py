"""litellm: one attempt per call, its replies and errors in our words.

litellm is imported when a client is opened, never before: it takes seconds.
"""

import email.utils
import math
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tasks.clients.concealment import conceal
from tasks.core.errors import ModelError, UsageError
from tasks.core.parsing import SURROGATES
from tasks.core.price import Price
from tasks.core.prompts import RESPONSE_SCHEMA
from tasks.core.requests import Recipe

CALL_DEADLINE_SECONDS = 180.0
# A server that counts more is wrong, and its number would not fit a column.
MOST_TOKENS = 1 << 53


@dataclass(frozen=True)
class Reply:
    """One reply that was paid for, good or not; None where the provider said nothing.

    `error` is "no_choices" for a reply without a completion. `headers` are the
    response's, names in lower case: rate limits are read from them.
    """

    text: str | None
    finish_reason: str | None
    model_answered: str | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    error: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, compare=False)


@dataclass
class CallFault(Exception):  # noqa: N818  (a fault may be no error: throttled)
    """One attempt that brought no reply.

    throttled: wait `retry_after` seconds, does not count as an attempt;
    transient: try again; refused: this request will never be answered, for
    `reason`; fatal: no request will be, `message` says what to set. `billed` says
    that the provider may have counted the call although its reply did not arrive.
    """

    kind: Literal["throttled", "transient", "refused", "fatal"]
    message: str
    reason: str = ""
    retry_after: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    billed: bool = False


Call = Callable[[str], Awaitable[Reply]]


def connect(recipe: Recipe, api_base: str) -> Call:
    """Return the function that sends one prompt as one user turn, exactly once.

    Raises:
        UsageError: The model's name has no provider that litellm knows.
        ModelError: The provider's key is not set.
    """
    litellm = import_litellm()
    _check_key(litellm, recipe.model_name, api_base)
    arguments = call_arguments(recipe, api_base)

    async def call(prompt: str) -> Reply:
        try:
            response = await litellm.acompletion(messages=[{"role": "user", "content": prompt}], **arguments)
        except Exception as error:  # litellm raises classes of its own, openai's and aiohttp's
            raise classify(error, recipe.model_name) from error
        return read_response(response, response._hidden_params.get("response_cost"))  # noqa: SLF001  (its only home)

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
            f"model_name is {model_name!r}, but litellm knows no such provider. "
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


_FATAL = {
    401: "the provider refuses the key ({}). Set the right API key and run again.",
    402: "the provider's quota is used up ({}). Add credit and run again.",
    403: "the key may not use this model ({}). Use another key or model.",
    404: "no such model or address ({}). Check --model-name and --api-base.",
}
# What a provider that is not paid says, each with a status that means something else too.
_UNPAID = (
    "insufficient_quota",
    "exceeded your current quota",
    "billing_not_active",
    "billing_hard_limit_reached",
    "credit balance is too low",
)
_UNSUPPORTED = ("unsupported_parameter", "unsupported_value", "unsupported parameter")
# litellm's own classes rest on the wording of the message; the provider's code is surer, and comes first.
_REFUSED = {
    "contextwindowexceedederror": "context_window",
    "context_length_exceeded": "context_window",
    "contentpolicyviolationerror": "content_policy",
    "content_policy_violation": "content_policy",
    "content_filter": "content_policy",
    "result of our safety system": "content_policy",
}


def classify(error: Exception, model_name: str) -> CallFault:
    """Say what one failed attempt means; see the README's table of faults."""
    status = getattr(error, "status_code", None)
    status = status if isinstance(status, int) else 500
    text = conceal(str(error).strip()) or type(error).__name__
    name = type(error).__name__
    said = f"{name}: {text[:300]}"
    clues = f"{name} {getattr(error, 'code', None)} {text}".casefold()
    headers = _error_headers(error)
    if status in (400, 429) and _says(clues, *_UNPAID):
        status = 402
    # What litellm makes of a 200 whose body is an error without a status.
    if _says(clues, "error in response object"):
        status = 500
    # A key that is missing surfaces as litellm's own 500, before any request.
    if name == "AuthenticationError" or _says(clues, "client option must be set", "missing credentials"):
        status = 401
    if status in _FATAL:
        return CallFault("fatal", f"{model_name}: {_FATAL[status].format(said)}")
    if name == "UnsupportedParamsError" or (status == 400 and _says(clues, *_UNSUPPORTED)):
        return CallFault("fatal", f"{model_name} does not take a parameter ({said}). Change it and run again.")
    if status == 429:
        return CallFault("throttled", said, retry_after=parse_retry_after(headers, time.time()), headers=headers)
    if 400 <= status < 500 and status not in (408, 409):
        reasons = (reason for clue, reason in _REFUSED.items() if clue in clues)
        return CallFault("refused", said, reason=next(reasons, "bad_request"))
    # A status of the provider's own comes with headers; else a reply was lost on the way, or is none.
    billed = not headers or status < 400 or name == "APIConnectionError"
    return CallFault("transient", said, retry_after=parse_retry_after(headers, time.time()), billed=billed)


def _error_headers(error: Exception) -> dict[str, str]:
    headers = getattr(error, "litellm_response_headers", None)
    headers = headers or getattr(getattr(error, "response", None), "headers", None) or {}
    return {str(name).lower(): str(value) for name, value in dict(headers).items()}


def parse_retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Read retry-after-ms or Retry-After (seconds or an HTTP date) at the time `now`."""
    readings = (
        (headers.get("retry-after-ms", ""), _read_milliseconds),
        (headers.get("retry-after", ""), float),
        (headers.get("retry-after", ""), lambda date: email.utils.parsedate_to_datetime(date).timestamp() - now),
    )
    for value, read in readings:
        try:
            seconds = read(value)
        except (ValueError, OverflowError):
            continue
        if not math.isnan(seconds):
            # A wait beyond an hour is a quota that a night cannot outlast.
            return min(max(seconds, 0.0), 3600.0)
    return None


def _read_milliseconds(value: str) -> float:
    return float(value) / 1000


def _says(clues: str, *phrases: str) -> bool:
    return any(phrase in clues for phrase in phrases)


def _check_key(litellm: Any, model_name: str, api_base: str) -> None:
    missing = litellm.validate_environment(model_name).get("missing_keys") or []
    if missing and all(name.endswith("_API_KEY") for name in missing):
        hint = " (any text, where your server asks for none)" if api_base else ""
        raise ModelError(
            f"No key for {model_name}: set {' or '.join(missing)}{hint} and run again. Nothing was paid for."
        )


def read_response(response: Any, cost: float | None) -> Reply:
    """Return litellm's response in our words; `cost` in US dollars is what litellm made of its usage."""
    choice = response.choices[0] if response.choices else None
    usage: Any = getattr(response, "usage", None)
    told = usage is not None and bool(usage.total_tokens)
    headers = response._hidden_params.get("additional_headers") or {}  # noqa: SLF001  (their only home)
    return Reply(
        text=_clean(choice.message.content) if choice else None,
        finish_reason=choice.finish_reason if choice else None,
        model_answered=_clean(response.model),
        input_tokens=_count(usage.prompt_tokens) if told else None,
        output_tokens=_count(usage.completion_tokens) if told else None,
        cost_usd=float(cost) if told and cost is not None else None,
        error=None if choice else "no_choices",
        headers={name.removeprefix("llm_provider-"): str(value) for name, value in headers.items()},
    )


def _clean(text: Any) -> str | None:
    """Return `text` as it can be stored: half a surrogate pair has no UTF-8 form."""
    return SURROGATES.sub("\ufffd", text) if isinstance(text, str) else None


def _count(tokens: Any) -> int | None:
    """Return a number of tokens, None for what no completion has."""
    return tokens if isinstance(tokens, int) and 0 <= tokens < MOST_TOKENS else None


def import_litellm() -> Any:
    """Import litellm, which takes seconds, and return it."""
    # The price map comes with the package; without this the import fetches one.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm  # noqa: PLC0415  (2.5 s of CPU)

    litellm.suppress_debug_info = True
    litellm.telemetry = False
    return litellm
