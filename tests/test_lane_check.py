"""An upgrade of litellm that moves what the fast lane rests on: the stock lane is taken, and says why."""

import tomllib
from collections.abc import Callable
from typing import Any

import litellm
import pytest
from litellm import cost_calculator
from litellm.llms.base_llm.chat.transformation import BaseConfig
from litellm.utils import ProviderConfigManager

from flows.servers import ROOT
from tasks.clients.lane import SETTING, open_lane
from tasks.clients.wire import HEADER_SETTINGS, KNOWN_VERSION, open_wire
from tasks.core.requests import Recipe

MODELS = ["openai/gpt-4o-mini", "openai/no-price", "hosted_vllm/some", "lm_studio/some", "litellm_proxy/some"]
Patch = Callable[[pytest.MonkeyPatch, Any], None]


def another_version(patch: pytest.MonkeyPatch, config: Any) -> None:
    patch.setattr("litellm._version.version", "1.999.0")


def renamed_parameter(patch: pytest.MonkeyPatch, config: Any) -> None:
    was = litellm.exception_type

    def mapped(model: str, error: Exception, provider: str) -> Exception:
        found: Exception = was(model, error, provider)
        return found

    patch.setattr(litellm, "exception_type", mapped)


def mapped_is_returned(patch: pytest.MonkeyPatch, config: Any) -> None:
    patch.setattr(litellm, "exception_type", lambda model, original_exception, custom_llm_provider: original_exception)


def error_class_of_other_parameters(patch: pytest.MonkeyPatch, config: Any) -> None:
    was = config.get_error_class
    patch.setattr(config, "get_error_class", lambda self, message, status: was(self, message, status, {}))


def no_error_class(patch: pytest.MonkeyPatch, config: Any) -> None:
    patch.setattr(config, "get_error_class", BaseConfig.get_error_class)


def every_error_is_a_500(patch: pytest.MonkeyPatch, config: Any) -> None:
    was = config.get_error_class
    patch.setattr(
        config,
        "get_error_class",
        lambda self, error_message, status_code, headers: was(self, error_message, 500, headers),
    )


def cost_with_another_parameter(patch: pytest.MonkeyPatch, config: Any) -> None:
    was = cost_calculator.response_cost_calculator

    def cost(*, tenant: str, **given: Any) -> Any:
        return was(**given)

    patch.setattr(cost_calculator, "response_cost_calculator", cost)


def cost_in_cents(patch: pytest.MonkeyPatch, config: Any) -> None:
    was = cost_calculator.response_cost_calculator
    patch.setattr(cost_calculator, "response_cost_calculator", lambda **given: 100 * was(**given))


def no_key(patch: pytest.MonkeyPatch, config: Any) -> None:
    patch.setattr(config, "validate_environment", lambda self, **given: {})


def one_more_header(patch: pytest.MonkeyPatch, config: Any) -> None:
    was = config.validate_environment
    patch.setattr(config, "validate_environment", lambda self, **given: was(self, **given) | {"X-Signature": "x"})


def another_path(patch: pytest.MonkeyPatch, config: Any) -> None:
    patch.setattr(config, "get_complete_url", lambda self, **given: f"{given['api_base']}/responses")


def another_host(patch: pytest.MonkeyPatch, config: Any) -> None:
    patch.setattr(config, "get_complete_url", lambda self, **given: "https://api.example.com/v1/chat/completions")


def no_hidden_parameters(patch: pytest.MonkeyPatch, config: Any) -> None:
    was = config.transform_response

    def transform(self: Any, **given: Any) -> Any:
        response = was(self, **given)
        response._hidden_params = {}
        return response

    patch.setattr(config, "transform_response", transform)


def errors_are_replies(patch: pytest.MonkeyPatch, config: Any) -> None:
    was = config.transform_response

    def transform(self: Any, **given: Any) -> Any:
        try:
            return was(self, **given)
        except Exception:  # noqa: BLE001  (whatever it raises for this)
            return given["model_response"]

    patch.setattr(config, "transform_response", transform)


UPGRADES: dict[Patch, str] = {
    another_version: "its version is 1.999.0",
    renamed_parameter: "context length",
    mapped_is_returned: "context length",
    error_class_of_other_parameters: "unexpected keyword argument",
    no_error_class: "of 400",
    every_error_is_a_500: "of 400",
    cost_with_another_parameter: "cost",
    cost_in_cents: "cost",
    no_key: "the headers none",
    one_more_header: "X-Signature",
    another_path: "/v1/responses",
    another_host: "api.example.com",
    no_hidden_parameters: "a reply's headers",
    errors_are_replies: "of 200",
}


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_PROXY_API_KEY", "canary-5f2c9d7e1b")
    monkeypatch.setenv("OPENAI_API_KEY", "canary-5f2c9d7e1b")
    for name in (SETTING, *HEADER_SETTINGS):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("upgrade", UPGRADES, ids=lambda upgrade: upgrade.__name__)
@pytest.mark.parametrize("model_name", MODELS)
def test_what_an_upgrade_moves_takes_the_stock_lane(
    monkeypatch: pytest.MonkeyPatch, model_name: str, upgrade: Patch
) -> None:
    provider, _, name = model_name.partition("/")
    config = ProviderConfigManager.get_provider_chat_config(model=name, provider=litellm.LlmProviders(provider))
    upgrade(monkeypatch, type(config))
    lane = open_lane(Recipe(model_name=model_name), "http://127.0.0.1:1/v1")
    assert (lane.name, UPGRADES[upgrade] in lane.why) == ("stock", True), lane.why
    assert "canary" not in lane.why


@pytest.mark.parametrize(("status", "kind"), [(401, "fatal"), (404, "fatal"), (429, "throttled"), (500, "transient")])
def test_a_fault_that_litellm_cannot_map_is_read_by_its_status(
    monkeypatch: pytest.MonkeyPatch, status: int, kind: str
) -> None:
    wire = open_wire(Recipe(model_name=MODELS[0]), "http://127.0.0.1:1/v1")
    renamed_parameter(monkeypatch, None)
    fault = wire.fault(status, {"Retry-After": "7"}, "no")
    assert (fault.kind, fault.retry_after) == (kind, None if kind == "fatal" else 7.0)


@pytest.mark.parametrize("model_name", MODELS)
def test_litellm_as_it_is_takes_the_fast_lane(model_name: str) -> None:
    lane = open_lane(Recipe(model_name=model_name), "http://127.0.0.1:1/v1")
    assert lane.name == "fast", lane.why


def test_the_version_that_is_known_is_the_one_that_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [one for one in project["dependencies"] if one.startswith("litellm")] == [f"litellm=={KNOWN_VERSION}"]
