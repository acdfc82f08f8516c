"""litellm's insides: what it would send for a recipe, and how it reads what comes back.

Beside `bounds` the only module that reaches below litellm's documented functions. What raises in
`open_wire` sends a run to the stock lane instead.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from tasks.clients.faults import classify
from tasks.clients.llm import call_arguments, check_model, import_litellm, read_response
from tasks.clients.outcome import CallFault, Reply
from tasks.core.requests import Recipe

# Providers whose server is OpenAI-compatible at api_base; litellm puts its own name of some before the model's.
PLAIN, PREFIXED = ("openai", "hosted_vllm"), ("lm_studio", "litellm_proxy")
# The version that pyproject.toml pins: of no other is it known what lies inside.
KNOWN_VERSION = "1.106.2"
# Each has the openai package send headers of its own; it carries the calls of all providers but hosted_vllm.
HEADER_SETTINGS = ("OPENAI_ORGANIZATION", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_CUSTOM_HEADERS")
# What a call is given for litellm itself, or has a place of its own in the request.
_NOT_SENT = ("model", "max_retries", "timeout", "api_base")


@dataclass(frozen=True)
class Wire:
    """One recipe at one server: a request's parts, the prompt as JSON goes between `before` and `after`."""

    model_name: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    before: bytes
    after: bytes
    ssl: Any
    _config: Any
    _name: str
    _provider: str
    _asked: str | None

    def read(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Read a reply with status 200 as litellm does.

        Raises:
            CallFault: It is no reply.
        """
        litellm = import_litellm()
        try:
            response = self._config.transform_response(
                model=self._name,
                raw_response=_response(body, headers),
                model_response=litellm.ModelResponse(model=self._asked),
                logging_obj=SimpleNamespace(post_call=lambda **_: None),
                request_data={},
                messages=[],
                optional_params={},
                litellm_params={},
                encoding=None,
            )
        except Exception as error:
            raise classify(self._translate(error), self.model_name) from error
        return read_response(response, self._provider, self._cost(response))

    def fault(self, status: int, headers: Mapping[str, str], text: str) -> CallFault:
        """Say what a reply with any other status means."""
        error = self._config.get_error_class(error_message=text, status_code=status, headers=dict(headers))
        mapped = self._translate(error)
        mapped.litellm_response_headers = dict(headers)  # type: ignore[attr-defined]
        return classify(mapped, self.model_name)

    def _cost(self, response: Any) -> float | None:
        from litellm.cost_calculator import response_cost_calculator  # noqa: PLC0415

        try:
            cost = response_cost_calculator(
                response_object=response,
                model=self._name,
                custom_llm_provider=self._provider,
                call_type="acompletion",
                optional_params={},
            )
        except Exception:  # noqa: BLE001  (it raises a bare Exception for a model without a price)
            return None
        return float(cost) if cost is not None else None

    def _translate(self, error: Exception) -> Exception:
        """Return litellm's own exception for what a provider said."""
        litellm = import_litellm()
        try:
            litellm.exception_type(model=self._name, original_exception=error, custom_llm_provider=self._provider)
        except Exception as raised:  # noqa: BLE001  (raising it is how litellm returns it)
            # Any other is a fault of its own, and the status of the provider's says more.
            return raised if isinstance(raised, tuple(litellm.LITELLM_EXCEPTION_TYPES)) else error
        return error


def open_wire(recipe: Recipe, api_base: str) -> Wire:
    """Return the wire of `recipe` at the server `api_base`.

    Raises:
        LookupError: Its provider's requests are not of the shape that this module knows.
    """
    litellm = import_litellm()
    from litellm._version import version  # noqa: PLC0415
    from litellm.litellm_core_utils.get_llm_provider_logic import get_llm_provider  # noqa: PLC0415
    from litellm.llms.custom_httpx.http_handler import get_ssl_configuration  # noqa: PLC0415

    if version != KNOWN_VERSION:
        raise LookupError(f"its version is {version}, and only that of {KNOWN_VERSION} is known inside")
    name, provider = check_model(recipe.model_name)
    _check_provider(provider)
    config = _find_config(name, provider, api_base)
    key = get_llm_provider(recipe.model_name, api_base=api_base)[2] or litellm.utils.get_secret("OPENAI_API_KEY")
    optional = _map_parameters(name, provider, call_arguments(recipe, api_base))

    def build(prompt: str) -> bytes:
        message = {"role": "user", "content": prompt}
        sent = config.transform_request(
            model=name,
            messages=[message],
            optional_params=json.loads(json.dumps(optional)),
            litellm_params={"custom_llm_provider": provider, "api_base": api_base},
            headers={},
        )
        return json.dumps(sent).encode()

    before, after = _part(build)
    given: dict[str, Any] = {
        "model": name,
        "optional_params": dict(optional),
        "litellm_params": {},
        "api_key": key,
        "api_base": api_base,
    }
    url = config.get_complete_url(**given)
    if not (url.startswith(api_base.rstrip("/")) and url.endswith("/chat/completions")):
        raise LookupError(f"it would send to {url}")
    headers = config.validate_environment(headers={}, messages=[], **given)
    if headers != {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}:
        raise LookupError(f"it would send the headers {', '.join(headers) or 'none'}, not the key and the type of JSON")
    return Wire(
        model_name=recipe.model_name,
        url=url,
        headers=headers,
        before=before,
        after=after,
        ssl=get_ssl_configuration(),
        _config=config,
        _name=name,
        _provider=provider,
        _asked=f"{provider}/{name}" if provider in PREFIXED else None,
    )


def _check_provider(provider: str) -> None:
    if provider not in PLAIN + PREFIXED:
        raise LookupError(f"{provider} is not of the shape that it knows")
    for setting in HEADER_SETTINGS:
        if provider != "hosted_vllm" and os.environ.get(setting):
            raise LookupError(f"{setting} asks for headers of its own")


def _find_config(name: str, provider: str, api_base: str) -> Any:
    """Return what litellm makes requests with for this model, and reads replies."""
    litellm = import_litellm()
    from litellm.main import responses_api_bridge_check  # noqa: PLC0415
    from litellm.utils import ProviderConfigManager  # noqa: PLC0415

    config = ProviderConfigManager.get_provider_chat_config(model=name, provider=litellm.LlmProviders(provider))
    found, _ = responses_api_bridge_check(model=name, custom_llm_provider=provider, api_base=api_base)
    if config is None or found.get("mode") not in (None, "chat"):
        raise LookupError(f"{name} is not asked for chat completions")
    return config


def _map_parameters(name: str, provider: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a call as this provider is sent them."""
    from litellm.utils import get_optional_params  # noqa: PLC0415

    given = {key: value for key, value in arguments.items() if key not in _NOT_SENT}
    optional: dict[str, Any] = get_optional_params(model=name, custom_llm_provider=provider, **given)
    for local in ("max_retries", "stream"):
        optional.pop(local, None)
    extra: dict[str, Any] = optional.pop("extra_body", {})
    return optional | extra


def _part(build: Callable[[str], bytes]) -> tuple[bytes, bytes]:
    """Return what stands before and after the prompt in the request that `build` makes of it."""
    marks = ["a prompt", 'another "prompt"\nwith a \\, an ü and 漢字']
    before, found, after = build(marks[0]).partition(json.dumps(marks[0]).encode())
    if not found or build(marks[1]) != before + json.dumps(marks[1]).encode() + after:
        raise LookupError("the request does not hold the prompt as it is")
    return before, after


def _response(body: bytes, headers: Mapping[str, str]) -> Any:
    import httpx  # noqa: PLC0415  (litellm's own, and only where litellm reads)

    unpacked = ("content-encoding", "content-length")
    kept = [(name, value) for name, value in headers.items() if name.lower() not in unpacked]
    return httpx.Response(200, content=body, headers=kept)
