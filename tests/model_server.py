"""A model's server on loopback whose every fault can be ordered.

It speaks OpenAI's chat completions and Anthropic's messages.

A script of behaviours may be laid on the requests whose prompt holds a text:
each request takes the next behaviour, and when they are used up, the last.
"""

import asyncio
import gzip
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

HOLD_POLL_SECONDS = 0.05

Behaviour = Callable[[web.Request, dict[str, Any]], Any]


def good_text(prompt: str) -> str:
    """Return a pair that differs from prompt to prompt and passes every rule."""
    digest = hashlib.blake2b(prompt.encode(), digest_size=12).hexdigest()
    words = [digest[at : at + 4] for at in range(0, 24, 4)]
    pair = {
        "input": f"Looking for {words[0]} near {words[1]} harbour",
        "positive_document": f"Our {words[2]} station sells {words[3]} every morning",
    }
    return json.dumps(pair)


def completion(text: str | None, *, finish_reason: str = "stop", **changes: Any) -> dict[str, Any]:
    """Return the body of a chat completion."""
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "answering-model-1",
        "choices": [{"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 200, "completion_tokens": 40, "total_tokens": 240},
    }
    return body | changes


def message(text: str | None, *, stop_reason: str = "end_turn", **changes: Any) -> dict[str, Any]:
    """Return the body of an Anthropic message."""
    body = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "answering-model-1",
        "content": [] if text is None else [{"type": "text", "text": text}],
        "stop_reason": stop_reason,
        "usage": {"input_tokens": 200, "output_tokens": 40},
    }
    return body | changes


def read_prompt(sent: dict[str, Any]) -> str:
    """Return the text of the one user turn, in whichever way it was sent."""
    content = sent["messages"][0]["content"]
    return str(content if isinstance(content, str) else content[0]["text"])


def answer(text: str | None, **changes: Any) -> Behaviour:
    """Answer with this text."""
    return lambda request, body: web.json_response(completion(text, **changes))


def body(status: int, text: str, content_type: str = "application/json", **headers: str) -> Behaviour:
    """Answer with this status and raw body."""
    return lambda request, sent: web.Response(status=status, text=text, content_type=content_type, headers=headers)


def error(status: int, message: str = "it failed", code: str = "", **headers: str) -> Behaviour:
    """Answer with an error as OpenAI writes it."""
    return body(status, json.dumps({"error": {"message": message, "type": code, "code": code}}), **headers)


def good(request: web.Request, sent: dict[str, Any]) -> web.Response:
    """Answer with a pair of the prompt's own."""
    make = message if request.path.endswith("/messages") else completion
    return web.json_response(make(good_text(read_prompt(sent))))


def reset(request: web.Request, sent: dict[str, Any]) -> web.Response:
    """Drop the connection before a byte of the answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def reset_in_body(request: web.Request, sent: dict[str, Any]) -> web.StreamResponse:
    """Drop the connection in the middle of the body."""
    response = web.StreamResponse(headers={"Content-Length": "500", "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"id": "half')
    assert request.transport is not None
    request.transport.abort()
    return response


async def hang(request: web.Request, sent: dict[str, Any]) -> web.Response:
    """Answer never (until the server stops)."""
    await asyncio.sleep(3600)
    return web.Response()


async def drip(request: web.Request, sent: dict[str, Any]) -> web.StreamResponse:
    """Send one byte of the body at a time, for ever."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.05)


@dataclass
class Flood:
    """Answer with 50 MB, packed where asked for; `sent` are the bytes that were taken."""

    packed: bool = False
    sent: int = 0

    async def __call__(self, request: web.Request, sent: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        piece = b" " * 1_000_000
        if self.packed:
            piece = gzip.compress(b" " * 50_000_000)
            response.headers["Content-Encoding"] = "gzip"
        await response.prepare(request)
        with suppress(ConnectionError):
            for _ in range(1 if self.packed else 50):
                await response.write(piece)
                self.sent += len(piece)
        return response


@dataclass
class ModelServer:
    """The server; `prompts` and `times` are those of the requests that reached it, in order.

    `heads` are their paths and headers, names in lower case.

    While it is `held` no request is answered, so that a run cannot end.
    """

    latency_seconds: float = 0.0
    held: bool = False
    prompts: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    heads: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    default: Behaviour = good
    _scripts: dict[str, list[Behaviour]] = field(default_factory=dict)
    _test: int = 0

    def script(self, text: str, behaviours: Iterable[Behaviour]) -> None:
        """Lay `behaviours` on the requests whose prompt holds `text`."""
        self._scripts[text] = list(behaviours)

    def begin_test(self) -> None:
        """Forget the test before, also its requests that are still on their way."""
        self._test += 1
        self.forget()

    def forget(self) -> None:
        """Go back to good answers and no requests seen."""
        self.prompts, self.bodies, self.keys, self.times, self._scripts = [], [], [], [], {}
        self.heads = []
        self.default, self.latency_seconds, self.held, self.most_in_flight = good, 0.0, False, 0

    @property
    def api_base(self) -> str:
        """The address to give as --api-base."""
        return f"http://127.0.0.1:{self._port}/{self._test}/v1"

    def __enter__(self) -> Self:
        """Serve from a thread of its own."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(60)
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop, dropping what is still in flight."""
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        app = web.Application(client_max_size=1 << 28)
        self.add_routes(app.router)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port = self._runner.addresses[0][1]

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Serve what a model's server serves."""
        router.add_post("/{test}/v1/chat/completions", self._handle)
        router.add_post("/{test}/v1/messages", self._handle)

    def choose(self, prompt: str) -> Behaviour:
        """Return what the next request with this prompt is answered by."""
        for text, script in self._scripts.items():
            if text in prompt:
                return script.pop(0) if len(script) > 1 else script[0]
        return self.default

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.match_info["test"] != str(self._test):
            return web.Response(status=410)
        sent = await request.json()
        prompt = read_prompt(sent)
        self.prompts.append(prompt)
        self.times.append(time.monotonic())
        self.bodies.append(sent)
        self.keys.append(request.headers.get("Authorization", ""))
        self.heads.append((request.path, {name.lower(): value for name, value in request.headers.items()}))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            while self.held:
                await asyncio.sleep(HOLD_POLL_SECONDS)
            if self.latency_seconds:
                await asyncio.sleep(self.latency_seconds)
            answered = self.choose(prompt)(request, sent)
            response: web.StreamResponse = await answered if asyncio.iscoroutine(answered) else answered
            return response
        finally:
            self.in_flight -= 1
