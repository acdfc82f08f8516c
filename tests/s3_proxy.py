"""An S3 server on loopback that notes every request, and fails where it is told to.

    python -m tests.s3_proxy PORT ENDPOINT

What it is not told to answer itself goes to the real S3 server at ENDPOINT. It is a
process of its own: deltalake waits for its server without letting other threads run.
"""

import asyncio
import json
import os
import random
import signal
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp
from aiohttp import web
from yarl import URL

DROPPED = (
    "connection",
    "transfer-encoding",
    "content-encoding",
    "content-length",
    "host",
    "keep-alive",
    "date",
    "server",
)
# No bucket has such a name.
CONTROL = "/_control"

# error: S3's own, with `status` and `code`; with status 200 of the object x among those to be removed. reset: dropped
# before the storage sees it. lose: carried out, but the reply is dropped. ignore: carried out as if the request's
# `header` were not there. truncate: dropped in the middle of the reply. stall: late by `seconds`. kill and kill after:
# the process group `pid` is killed before or after the storage has carried it out.
Action = Literal["error", "reset", "lose", "ignore", "truncate", "stall", "kill", "kill after"]


@dataclass
class Fault:
    """What befalls the requests whose "METHOD path" holds `text`: the one after `skip` others, and `times` in all.

    A `share` below 1 draws which of them.
    """

    text: str
    action: Action
    skip: int = 0
    times: int = 1 << 60
    share: float = 1.0
    status: int = 500
    code: str = "InternalError"
    seconds: float = 0.0
    pid: int = 0
    header: str = ""

    def meets(self, line: str) -> bool:
        """Count one request; whether it is this fault's."""
        if self.text not in line or self.times == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.share < 1 and random.random() >= self.share:
            return False
        self.times -= 1
        return True


@dataclass(frozen=True)
class S3Proxy:
    """The running server, as a test sees it."""

    url: str

    def seen(self) -> list[dict[str, Any]]:
        """Return the requests since the last look.

        Each has method, path, headers (names in lower case), time (monotonic seconds) and fault ("" for none).
        """
        with urllib.request.urlopen(f"{self.url}{CONTROL}") as answer:
            found: list[dict[str, Any]] = json.load(answer)
            return found

    def creates(self, uri: str) -> bool:
        """Whether somebody has tried to create this object since the last look."""
        path = uri.removeprefix("s3:/")
        return any(seen["path"] == path and "if-none-match" in seen["headers"] for seen in self.seen())

    def forget(self) -> None:
        """Fail nothing any more, and forget the requests."""
        urllib.request.urlopen(urllib.request.Request(f"{self.url}{CONTROL}", method="DELETE")).close()

    def fail(self, text: str, status: int, code: str) -> None:
        """Answer with this error of S3's wherever "METHOD path" holds `text`."""
        self.fault(text, "error", status=status, code=code)

    def fault(self, text: str, action: Action, **how: Any) -> None:
        """Lay a fault on the requests whose "METHOD path" holds `text`; see Fault."""
        sent = urllib.request.Request(
            f"{self.url}{CONTROL}", json.dumps({"text": text, "action": action, **how}).encode()
        )
        urllib.request.urlopen(sent).close()


def make_app(endpoint: str) -> web.Application:
    """Return the server's application."""
    seen: list[dict[str, Any]] = []
    faults: list[Fault] = []
    sessions: list[aiohttp.ClientSession] = []

    async def hold_session(_: web.Application) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            sessions.append(session)
            yield

    async def control(request: web.Request) -> web.Response:
        if request.method == "POST":
            faults.append(Fault(**await request.json()))
            return web.Response()
        if request.method == "DELETE":
            faults.clear()
        noted, seen[:] = list(seen), []
        return web.json_response(noted)

    async def handle(request: web.Request) -> web.StreamResponse:
        line = f"{request.method} {request.path}"
        fault = next((fault for fault in faults if fault.meets(line)), None)
        action = fault.action if fault else ""
        headers = {name.lower(): value for name, value in request.headers.items()}
        noted = {"method": request.method, "path": request.path, "headers": headers}
        seen.append(noted | {"time": time.monotonic(), "fault": action})
        if fault and action == "error":
            error = f"<Error><Key>x</Key><Code>{fault.code}</Code><Message>told to fail</Message></Error>"
            if fault.status == 200:
                error = f"<DeleteResult>{error}</DeleteResult>"
            return web.Response(status=fault.status, text="" if request.method == "HEAD" else error)
        if fault and action == "stall":
            await asyncio.sleep(fault.seconds)
        if fault and action == "kill":
            _kill(fault.pid)
        if action in ("kill", "reset"):
            return _drop(request)
        ignored = fault.header if fault and action == "ignore" else ""
        answer = await forward(request, {name: value for name, value in headers.items() if name != ignored})
        if fault and action == "kill after":
            _kill(fault.pid)
        if action in ("kill after", "lose"):
            return _drop(request)
        if action == "truncate":
            return await _send_half(request, answer)
        return answer

    async def forward(request: web.Request, headers: dict[str, str]) -> web.Response:
        async with sessions[0].request(
            request.method,
            URL(f"{endpoint}{request.raw_path}", encoded=True),
            data=await request.read(),
            headers={name: value for name, value in headers.items() if name not in DROPPED},
            skip_auto_headers=("Content-Type", "User-Agent", "Accept", "Accept-Encoding"),
        ) as answer:
            response = web.Response(status=answer.status, body=await answer.read())
            for name, value in answer.headers.items():
                if name.lower() not in DROPPED or (name.lower() == "content-length" and request.method == "HEAD"):
                    response.headers[name] = value
            return response

    app = web.Application(client_max_size=1 << 28)
    app.cleanup_ctx.append(hold_session)
    app.router.add_route("*", CONTROL, control)
    app.router.add_route("*", "/{path:.*}", handle)
    return app


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _drop(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def _send_half(request: web.Request, answer: web.Response) -> web.StreamResponse:
    body = bytes(answer.body) if isinstance(answer.body, bytes) else b""
    response = web.StreamResponse(status=answer.status, headers={**answer.headers, "Content-Length": str(len(body))})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    _drop(request)
    return response


if __name__ == "__main__":
    web.run_app(make_app(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
