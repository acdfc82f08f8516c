"""A stand-in for a model, behind an OpenAI-compatible server on loopback. It is no model.

    python -m flows.stand_in 8123

It knows the sample descriptions and answers each with pairs that people wrote,
anything else with a generic pair that says what it is, or, in other languages than
English, with mere numbers, which are words of none. A few replies are spoiled on
purpose, counted by the order in which requests arrive.
"""

import asyncio
import hashlib
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from aiohttp import web

from flows.order_models import STAND_IN
from flows.stand_in_batches import Batches
from tasks.core.brainstorming import TEMPLATE as LIST_TEMPLATE
from tasks.core.languages import LANGUAGES
from tasks.core.prompts import TEMPLATE

SAMPLES = Path(__file__).with_name("samples.jsonl")
LATENCY_SECONDS = 0.05

_PROMPT = re.compile(
    re.escape(TEMPLATE).replace(r"\{task\}", "(?P<task>.*?)").replace(r"\{language\}", "(?P<language>.*?)")
    # Later samples say more.
    + r"(?:\n\nFor this one example.*)?",
    re.DOTALL,
)
_LIST_PROMPT = re.compile(re.escape(LIST_TEMPLATE.partition("{count}")[0]) + r"(?P<count>\d+)")
_NAMES = {language.prompt_name: language.name for language in LANGUAGES.values()}
# Which arrivals are spoiled, and how; see _spoil.
SPOILED = {
    4: "overloaded",
    9: "prose",
    14: "cut_off",
    21: "broken",
    26: "throttled",
    33: "refusal",
    40: "overlap",
    47: "broken",
}

Pairs = dict[str, dict[str, list[list[str]]]]


def load_samples() -> Pairs:
    """Return the pairs of each sample description and language."""
    rows = (json.loads(line) for line in SAMPLES.read_text(encoding="utf-8").splitlines())
    return {row["task"]: row["pairs"] for row in rows}


class StandIn:
    """Answers chat completions; `arrivals` counts the requests so far."""

    def __init__(self, samples: Pairs) -> None:
        self.arrivals = 0
        self._samples = samples
        self._asked: Counter[str] = Counter()

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one chat completion as OpenAI's API would."""
        sent = await request.json()
        status, body = self.answer(sent)
        await asyncio.sleep(LATENCY_SECONDS)
        return web.json_response(body, status=status, headers={"Retry-After": "1"} if status == 429 else {})

    def answer(self, sent: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return the status and the body of one chat completion."""
        prompt = str(sent["messages"][0]["content"])
        self.arrivals += 1
        spoiled = SPOILED.get(self.arrivals, "")
        if spoiled == "overloaded":
            return 503, {"error": {"message": "the stand-in is overloaded on purpose"}}
        if spoiled == "throttled":
            return 429, {"error": {"message": "the stand-in is throttled on purpose"}}
        return 200, self._completion(prompt, spoiled)

    def _completion(self, prompt: str, spoiled: str) -> dict[str, Any]:
        wanted = _LIST_PROMPT.match(prompt)
        if wanted:
            text, finish_reason = _spoil_text(json.dumps(self._list(prompt, int(wanted["count"])), indent=1), spoiled)
        else:
            text, finish_reason = _spoil(self._answer(prompt), spoiled)
        tokens = len(prompt) // 4, len(text) // 4
        return {
            "id": f"stand-in-{self.arrivals}",
            "object": "chat.completion",
            "created": 0,
            "model": STAND_IN,
            "choices": [
                {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": text}}
            ],
            "usage": {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)},
        }

    def _list(self, prompt: str, count: int) -> list[str]:
        """Return some of the sample descriptions, as others would number and spoil them."""
        tasks = sorted(self._samples, key=lambda task: hashlib.blake2b(f"{prompt}{task}".encode()).digest())
        return [f"1. {tasks[0]}", *tasks[1 : count - 1], "Given a whole news article, write its summary."]

    def _answer(self, prompt: str) -> tuple[str, str]:
        """Return the next pair for the prompt: ours, or a generic one when they are used up."""
        nth, self._asked[prompt] = self._asked[prompt], self._asked[prompt] + 1
        asked = _PROMPT.fullmatch(prompt)
        language = _NAMES.get(asked["language"], "") if asked else ""
        if asked:
            ours = self._samples.get(asked["task"], {}).get(language, [])
            if nth < len(ours):
                return ours[nth][0], ours[nth][1]
        mark = hashlib.blake2b(f"{prompt}{nth}".encode(), digest_size=6).hexdigest()
        if language not in ("", "English"):
            first, other = (str(int(half, 16) + 10**8) for half in (mark[:6], mark[6:]))
            return f"{first[:3]} · {first[3:6]} · {first[6:]}", f"{other[:5]} / {other[5:]}"
        return f"stand-in words, reference {mark[:6]}", f"nothing here was written by a model, number {mark[6:]}"


def _spoil(pair: tuple[str, str], kind: str) -> tuple[str, str]:
    """Return the reply's text and finish reason, spoiled in one of the ways that models do."""
    if kind == "overlap":
        return json.dumps({"input": pair[1], "positive_document": f"{pair[1]} again"}, ensure_ascii=False), "stop"
    return _spoil_text(json.dumps({"input": pair[0], "positive_document": pair[1]}, ensure_ascii=False), kind)


def _spoil_text(text: str, kind: str) -> tuple[str, str]:
    match kind:
        case "prose":
            return f"Here is what you asked for:\n{text}\nTell me if you need more.", "stop"
        case "cut_off":
            return text[: len(text) * 2 // 3], "length"
        case "broken":
            return text.replace(":", "", 1), "stop"
        case "refusal":
            return "I'm sorry, but the stand-in refuses this one on purpose.", "stop"
    return text, "stop"


def make_app() -> web.Application:
    """Return the server's application."""
    app, stand_in = web.Application(client_max_size=1 << 28), StandIn(load_samples())
    app.router.add_post("/v1/chat/completions", stand_in.handle)
    Batches(stand_in.answer).add_routes(app.router)
    return app


if __name__ == "__main__":
    web.run_app(make_app(), host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
