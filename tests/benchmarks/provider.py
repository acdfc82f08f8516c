"""A cheap OpenAI-compatible server: python -m tests.benchmarks.provider PORT.

The first part of the path is the latency in milliseconds, so an api_base is
http://127.0.0.1:PORT/100/v1. GET /take answers with the calls since the last GET
/take and the monotonic times of their first request and last reply. It parses no
JSON: it must never be what a measurement waits for.
"""

import asyncio
import gc
import hashlib
import json
import sys
import time

_TEXT = "Looking for {} near {} harbour", "Our {} station sells {} every morning"
_REPLY = json.dumps(
    {
        "id": "chatcmpl-0123456789abcdef0123456789abcdef",
        "object": "chat.completion",
        "created": 1_795_478_400,
        "model": "benchmark",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "TEXT", "refusal": None, "tool_calls": []},
                "logprobs": None,
                "finish_reason": "stop",
                "stop_reason": None,
            }
        ],
        "usage": {"prompt_tokens": 200, "total_tokens": 240, "completion_tokens": 40, "prompt_tokens_details": None},
        "prompt_logprobs": None,
    }
)
_BEFORE, _, _AFTER = _REPLY.partition('"TEXT"')


class Count:
    """Calls answered since the last look, and when the first came and the last was answered."""

    def __init__(self) -> None:
        self.calls, self.first, self.last = 0, 0.0, 0.0

    def take(self) -> bytes:
        """Return the figures as JSON and start anew."""
        figures = {"calls": self.calls, "first": self.first, "last": self.last}
        self.calls = 0
        return json.dumps(figures).encode()


class Connection(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, count: Count) -> None:
        self.count = count
        self.rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every whole request, each after its latency."""
        self.rest += data
        while (end := self.rest.find(b"\r\n\r\n")) >= 0:
            head = self.rest[:end].lower()
            at = head.find(b"content-length:")
            size = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.rest) < end + 4 + size:
                return
            body, self.rest = self.rest[end + 4 : end + 4 + size], self.rest[end + 4 + size :]
            if head.startswith(b"get"):
                self.write(self.count.take())
                continue
            self.count.calls += 1
            if self.count.calls == 1:
                self.count.first = time.monotonic()
            latency = int(head.split(b"/", 2)[1])
            if latency:
                asyncio.get_running_loop().call_later(latency / 1000, self.answer, body)
            else:
                self.answer(body)

    def answer(self, body: bytes) -> None:
        """Send a pair of the request's own."""
        word = hashlib.blake2b(body, digest_size=16).hexdigest()
        pair = dict(
            zip(
                ("input", "positive_document"),
                (_TEXT[0].format(word[:8], word[8:16]), _TEXT[1].format(word[16:24], word[24:])),
                strict=True,
            )
        )
        self.write(f"{_BEFORE}{json.dumps(json.dumps(pair))}{_AFTER}".encode())
        self.count.last = time.monotonic()

    def write(self, body: bytes) -> None:
        """Send a reply."""
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )


async def serve(port: int) -> None:
    """Serve until the process ends."""
    count = Count()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(count), "127.0.0.1", port, backlog=4096)
    gc.disable()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
