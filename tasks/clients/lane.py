"""Which lane a run's calls take, decided once.

Fast: see `fast_call`. For OpenAI-compatible servers named with api_base, where
this process's CPU is the limit and not a quota. Stock: litellm.acompletion, for
all else.
"""

import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from tasks.clients import bounds, lane_check, llm, wire
from tasks.clients.fast_call import FastCall
from tasks.clients.outcome import Call
from tasks.clients.plain_replies import REPLY_BYTES
from tasks.core.errors import UsageError
from tasks.core.requests import Recipe

SETTING = "PAIRMILL_LANE"


@dataclass(frozen=True)
class Lane:
    """The lane that was taken and why; `close` ends its sessions, in the loop that called."""

    name: str
    why: str
    call: Call
    close: Callable[[], Coroutine[Any, Any, None]]


def open_lane(recipe: Recipe, api_base: str, open_wire: Callable[[Recipe, str], wire.Wire] = wire.open_wire) -> Lane:
    """Decide the lane and open it.

    PAIRMILL_LANE=stock forces the stock lane. It is also taken where litellm is not
    as `wire` knows it, or reads a sample otherwise than we do.

    Raises:
        UsageError, ModelError: As `llm.connect`.
    """
    bounds.bound_replies(REPLY_BYTES)
    stock = llm.connect(recipe, api_base)
    wanted = os.environ.get(SETTING) or "fast"
    if wanted not in ("fast", "stock"):
        raise UsageError(f"{SETTING} is {wanted!r}. Set it to fast or stock, or leave it out.")
    if wanted == "stock":
        return Lane("stock", f"{SETTING} asks for it", stock, llm.disconnect)
    if not api_base:
        return Lane("stock", "no api_base is given", stock, llm.disconnect)
    try:
        line = open_wire(recipe, api_base)
        lane_check.check(line)
        fast = FastCall(line)
    except Exception as error:  # noqa: BLE001  (whatever an upgrade of litellm has changed, the stock lane works)
        return Lane("stock", f"litellm's own is needed: {error}", stock, llm.disconnect)
    return Lane("fast", f"{recipe.model_name} is OpenAI-compatible at {api_base}", fast, fast.close)
