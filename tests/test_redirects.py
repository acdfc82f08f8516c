"""No key and no prompt goes where a server sends them."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tasks.clients import lane
from tasks.clients.batches import BatchApi
from tasks.clients.outcome import CallFault
from tasks.core.requests import Recipe

KEYS = ("OPENAI_API_KEY", "HOSTED_VLLM_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "AZURE_API_KEY")
MODELS = {
    "fast": ("openai/gpt-4o-mini", "/v1", "fast"),
    "stock": ("openai/gpt-4o-mini", "/v1", "stock"),
    "a server of one's own": ("hosted_vllm/some", "/v1", "stock"),
    "anthropic": ("anthropic/claude-3-5-haiku-20241022", "", "stock"),
    "gemini": ("gemini/gemini-2.0-flash", "", "stock"),
    "azure": ("azure/some", "", "stock"),
}


@contextmanager
def serve(status: int, location: str = "") -> Iterator[tuple[str, list[str]]]:
    """Answer everything with this status; yields the address and the requests that came."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            seen.append(f"{self.command} {self.path}\n{self.headers}")
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            if location:
                self.send_header("Location", f"{location}{self.path}")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_GET = do_POST = do_DELETE = answer  # noqa: N815  (the names that http.server asks for)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()
        thread.join()


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """Run the server that must see nothing."""
    with serve(200) as server:
        yield server


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("name", MODELS)
def test_a_call_follows_no_redirect(
    name: str, status: int, elsewhere: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in KEYS:
        monkeypatch.setenv(key, "canary-5f2c9d7e1b")
    monkeypatch.setenv("AZURE_API_VERSION", "2024-06-01")
    model_name, path, setting = MODELS[name]
    monkeypatch.setenv(lane.SETTING, setting)

    async def call(api_base: str) -> None:
        opened = lane.open_lane(Recipe(model_name=model_name), api_base)
        assert opened.name == setting, opened.why
        try:
            await opened.call("a prompt")
        finally:
            await opened.close()

    with serve(status, elsewhere[0]) as (address, seen), pytest.raises(CallFault) as caught:
        asyncio.run(call(address + path))
    assert elsewhere[1] == [], "the key or the prompt went elsewhere"
    assert (len(seen), "canary-5f2c9d7e1b" in seen[0]) == (1, True)
    assert (caught.value.kind, f"redirects to {elsewhere[0]}" in caught.value.message) == ("fatal", True)
    assert "canary" not in caught.value.message


OPERATIONS: dict[str, Callable[[BatchApi, Path], Any]] = {
    "upload": lambda api, folder: api.upload(folder / "file.jsonl"),
    "create": lambda api, folder: api.create("file-1", "ours"),
    "retrieve": lambda api, folder: api.retrieve("batch-1"),
    "find": lambda api, folder: api.find({"ours"}, 0.0),
    "cancel": lambda api, folder: api.cancel("batch-1"),
    "download": lambda api, folder: api.download("file-1", folder / "results", 1 << 20),
    "delete": lambda api, folder: api.delete("file-1"),
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("status", [302, 307])
def test_the_batch_api_follows_no_redirect(
    name: str, status: int, elsewhere: tuple[str, list[str]], tmp_path: Path
) -> None:
    (tmp_path / "file.jsonl").write_text("{}\n")
    with serve(status, elsewhere[0]) as (address, seen), pytest.raises(CallFault) as caught:
        OPERATIONS[name](BatchApi(Recipe(model_name="openai/gpt-4o-mini"), f"{address}/v1"), tmp_path)
    assert elsewhere[1] == [], "the key or the file went elsewhere"
    assert len(seen) == 1
    assert (caught.value.kind, f"redirects to {elsewhere[0]}" in caught.value.message) == ("fatal", True)
