from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import pytest

from tasks.clients import lane
from tasks.clients.lane import open_lane
from tasks.clients.outcome import Reply
from tasks.clients.wire import Wire, open_wire
from tasks.core.errors import UsageError
from tasks.core.requests import Recipe
from tests.lanes import MODELS

pytestmark = pytest.mark.usefixtures("lane_as_it_is")


CHOICES = {
    "OpenAI-compatible": ("openai/some", "http://127.0.0.1:1/v1", "", "fast"),
    "no api_base": ("openai/some", "", "", "stock"),
    "another provider": ("deepseek/deepseek-chat", "http://127.0.0.1:1/v1", "", "stock"),
    "an endpoint and parameters of its own": ("openai/o1-pro", "http://127.0.0.1:1/v1", "", "stock"),
    "a bridge to the Responses API": ("openai/responses/x", "http://127.0.0.1:1/v1", "", "stock"),
    "the same of vLLM": ("hosted_vllm/responses/x", "http://127.0.0.1:1/v1", "", "stock"),
    "the same of a gateway": ("litellm_proxy/responses/x", "http://127.0.0.1:1/v1", "", "stock"),
    "forced": ("openai/some", "http://127.0.0.1:1/v1", "stock", "stock"),
    "as it is by itself": ("openai/some", "http://127.0.0.1:1/v1", "fast", "fast"),
}


@pytest.mark.parametrize("name", CHOICES)
def test_the_lane_is_chosen_by_model_and_address(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    model_name, api_base, setting, expected = CHOICES[name]
    monkeypatch.setenv("DEEPSEEK_API_KEY", "a-key")
    monkeypatch.setenv(lane.SETTING, setting)
    assert open_lane(Recipe(model_name=model_name), api_base).name == expected


def test_an_unknown_lane_is_a_wrong_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(lane.SETTING, "slow")
    with pytest.raises(UsageError, match=lane.SETTING):
        open_lane(Recipe(model_name=MODELS[0]), "http://127.0.0.1:1/v1")


@dataclass(frozen=True)
class Upgraded(Wire):
    """The wire of a litellm that reads a reply otherwise."""

    def read(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        return replace(super().read(body, headers), finish_reason="end")


def moved(recipe: Recipe, api_base: str) -> Wire:
    raise ImportError("cannot import name 'get_optional_params'")


def reads_otherwise(recipe: Recipe, api_base: str) -> Wire:
    return Upgraded(**vars(open_wire(recipe, api_base)))


@pytest.mark.parametrize("upgrade", [moved, reads_otherwise])
def test_the_stock_lane_is_taken_where_litellm_is_not_as_it_was(upgrade: Callable[[Recipe, str], Wire]) -> None:
    assert open_lane(Recipe(model_name=MODELS[0]), "http://127.0.0.1:1/v1", upgrade).name == "stock"
