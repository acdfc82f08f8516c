"""What each kind of provider says for the same fault: one small adapter each."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests import model_server as server
from tests.model_server import Behaviour, ModelServer


@dataclass(frozen=True)
class Dialect:
    """OpenAI's API, as OpenAI itself speaks it.

    `words` are (status, code, message) of the faults that a provider has words of
    its own for; `unsupported` is a recipe that litellm knows a model of it does not take,
    where there is one.
    """

    model_name: str = "openai/gpt-4o-mini"
    key: str = "OPENAI_API_KEY"
    path: str = "/v1"
    needs_key: bool = True
    unsupported: Mapping[str, Any] = field(default_factory=lambda: {"model_name": "openai/o3-mini", "temperature": 0.5})
    words: Mapping[str, tuple[int, str, str]] = field(
        default_factory=lambda: {
            "quota": (429, "insufficient_quota", "You exceeded your current quota, please check your plan"),
            "context": (400, "context_length_exceeded", "This model's maximum context length is 8192 tokens."),
            "policy": (400, "content_policy_violation", "Your request was rejected by our safety system."),
            "parameter": (400, "unsupported_parameter", "Unsupported parameter: 'top_p' is not supported."),
        }
    )

    def api_base(self, models: ModelServer) -> str:
        """Return the server's address as this provider's client takes it."""
        return models.api_base.removesuffix("/v1") + self.path

    def error(self, status: int, message: str = "it failed", code: str = "", **headers: str) -> Behaviour:
        """Answer with an error."""
        return server.error(status, message, code, **headers)

    def says(self, fault: str) -> Behaviour:
        """Answer with an error in the provider's own words."""
        status, code, message = self.words[fault]
        return self.error(status, message, code)

    def answer(self, text: str | None, finish: str = "stop") -> Behaviour:
        """Answer with this text, or none."""
        return server.answer(text, finish_reason=finish)

    def no_choices(self) -> Behaviour:
        """Answer without a completion."""
        return server.answer("x", choices=[])

    def refusal(self) -> Behaviour:
        """Answer that the model refuses."""
        said = {"role": "assistant", "content": None, "refusal": "I can't help with that."}
        return server.answer(None, choices=[{"index": 0, "finish_reason": "stop", "message": said}])


@dataclass(frozen=True)
class Vllm(Dialect):
    """OpenAI's API, as vLLM speaks it: errors lie flat, and codes are numbers."""

    model_name: str = "hosted_vllm/some-model"
    key: str = "HOSTED_VLLM_API_KEY"
    needs_key: bool = False
    unsupported: Mapping[str, Any] = field(default_factory=dict)
    words: Mapping[str, tuple[int, str, str]] = field(
        default_factory=lambda: {
            "quota": (429, "insufficient_quota", "You exceeded your current quota"),
            "context": (400, "BadRequestError", "This model's maximum context length is 8192 tokens. However, you"),
            "policy": (400, "content_filter", "The prompt was filtered"),
            "parameter": (400, "BadRequestError", "Unsupported parameter: top_p"),
        }
    )

    def error(self, status: int, message: str = "it failed", code: str = "", **headers: str) -> Behaviour:
        """Answer with an error as vLLM writes it."""
        said = {"object": "error", "message": message, "type": code or "Error", "param": None, "code": status}
        return server.body(status, json.dumps(said), **headers)


@dataclass(frozen=True)
class Anthropic(Dialect):
    """Anthropic's messages."""

    model_name: str = "anthropic/claude-3-5-haiku-20241022"
    key: str = "ANTHROPIC_API_KEY"
    path: str = ""
    unsupported: Mapping[str, Any] = field(default_factory=dict)
    words: Mapping[str, tuple[int, str, str]] = field(
        default_factory=lambda: {
            "quota": (400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
            "context": (400, "invalid_request_error", "prompt is too long: 250000 tokens > 200000 maximum"),
            "policy": (400, "invalid_request_error", "Output blocked by content filtering policy"),
            "parameter": (400, "invalid_request_error", "Unsupported parameter: top_p"),
        }
    )

    def error(self, status: int, message: str = "it failed", code: str = "", **headers: str) -> Behaviour:
        """Answer with an error as Anthropic writes it."""
        said = {"type": "error", "error": {"type": code or "api_error", "message": message}}
        return server.body(status, json.dumps(said), **headers)

    def answer(self, text: str | None, finish: str = "stop") -> Behaviour:
        """Answer with this text, or none."""
        reasons = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}
        body = server.message(text, stop_reason=reasons[finish])
        return server.body(200, json.dumps(body))

    def no_choices(self) -> Behaviour:
        """Answer without a completion: an Anthropic message always is one, and may be empty."""
        return server.body(200, json.dumps(server.message(None)))

    def refusal(self) -> Behaviour:
        """Answer that the model refuses."""
        return server.body(200, json.dumps(server.message(None, stop_reason="refusal")))


DIALECTS: dict[str, Dialect] = {"openai": Dialect(), "hosted_vllm": Vllm(), "anthropic": Anthropic()}
