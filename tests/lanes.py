"""Calls in a lane, for tests of what both have in common and of what each does alone."""

import asyncio
from collections.abc import Awaitable, Callable

from tasks.clients.lane import open_lane
from tasks.clients.outcome import CallFault, Reply
from tasks.core.requests import Recipe
from tests.model_server import ModelServer

MODELS = ["openai/gpt-4o-mini", "openai/no-price", "hosted_vllm/some/model", "lm_studio/some", "litellm_proxy/some"]


async def outcome(call: Callable[[str], Awaitable[Reply]], prompt: str) -> Reply | CallFault:
    try:
        return await call(prompt)
    except CallFault as fault:
        return fault


def call(models: ModelServer, model_name: str = MODELS[0]) -> Reply | CallFault:
    """Send one prompt in the lane that is chosen."""

    async def ask() -> Reply | CallFault:
        opened = open_lane(Recipe(model_name=model_name), models.api_base)
        try:
            return await outcome(opened.call, "a prompt")
        finally:
            await opened.close()

    return asyncio.run(ask())
