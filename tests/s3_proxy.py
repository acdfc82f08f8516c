"""An S3 server on loopback that notes every request, and fails where it is told to.

    python -m tests.s3_proxy PORT ENDPOINT

What it is not told to answer itself goes to the real S3 server at ENDPOINT. It is a
process of its own: deltalake waits for its server without letting other threads run.
"""

import json
import sys
import urllib.request
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

DROPPED = ("connection", "transfer-encoding", "content-encoding", "host", "keep-alive", "date", "server")
# No bucket has such a name.
CONTROL = "/_control"


@dataclass(frozen=True)
class S3Proxy:
    """The running server, as a test sees it."""

    url: str

    def seen(self) -> list[dict[str, Any]]:
        """Return the requests since the last look: method, path and headers, their names in lower case."""
        with urllib.request.urlopen(f"{self.url}{CONTROL}") as answer:
            found: list[dict[str, Any]] = json.load(answer)
            return found

    def forget(self) -> None:
        """Fail nothing any more, and forget the requests."""
        urllib.request.urlopen(urllib.request.Request(f"{self.url}{CONTROL}", method="DELETE")).close()

    def fail(self, text: str, status: int, code: str) -> None:
        """Answer with this error of S3's wherever "METHOD path" holds `text`."""
        sent = urllib.request.Request(f"{self.url}{CONTROL}", json.dumps([text, status, code]).encode())
        urllib.request.urlopen(sent).close()


def make_app(endpoint: str) -> web.Application:
    """Return the server's application."""
    seen: list[dict[str, Any]] = []
    faults: dict[str, tuple[int, str]] = {}

    async def control(request: web.Request) -> web.Response:
        if request.method == "POST":
            text, status, code = await request.json()
            faults[text] = (status, code)
            return web.Response()
        if request.method == "DELETE":
            faults.clear()
        noted, seen[:] = list(seen), []
        return web.json_response(noted)

    async def handle(request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        seen.append({"method": request.method, "path": request.path, "headers": headers})
        for text, (status, code) in faults.items():
            if text in f"{request.method} {request.path}":
                error = f"<Error><Code>{code}</Code><Message>told to fail</Message></Error>"
                return web.Response(status=status, text="" if request.method == "HEAD" else error)
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method,
                URL(f"{endpoint}{request.raw_path}", encoded=True),
                data=await request.read(),
                headers={name: value for name, value in headers.items() if name not in DROPPED},
                skip_auto_headers=("Content-Type", "User-Agent", "Accept", "Accept-Encoding"),
            ) as answer,
        ):
            response = web.Response(status=answer.status, body=await answer.read())
            for name, value in answer.headers.items():
                if name.lower() not in DROPPED:
                    response.headers[name] = value
            return response

    app = web.Application(client_max_size=1 << 28)
    app.router.add_route("*", CONTROL, control)
    app.router.add_route("*", "/{path:.*}", handle)
    return app


if __name__ == "__main__":
    web.run_app(make_app(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
