"""The stand-in's batch API: files and batches in memory, each line answered as a call is."""

import json
import time
from collections.abc import Callable
from itertools import count
from typing import Any

from aiohttp import web

# How long a batch takes.
BATCH_SECONDS = 3.0
ENDED = ("completed", "cancelled")

# Returns the status and the body of one chat completion.
Answer = Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]


class Batches:
    """Answers what OpenAI's files and batches are asked for."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._files: dict[str, bytes] = {}
        self._batches: dict[str, dict[str, Any]] = {}
        self._numbers = count(1)

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Serve it."""
        router.add_post("/v1/files", self.upload)
        router.add_get("/v1/files/{name}/content", self.content)
        router.add_delete("/v1/files/{name}", self.delete)
        router.add_post("/v1/batches", self.create)
        router.add_get("/v1/batches", self.list)
        router.add_get("/v1/batches/{name}", self.retrieve)
        router.add_post("/v1/batches/{name}/cancel", self.cancel)

    async def upload(self, request: web.Request) -> web.Response:
        """Keep a file."""
        sent = (await request.post())["file"]
        if not isinstance(sent, web.FileField):
            raise web.HTTPBadRequest
        data = sent.file.read()
        told = {"object": "file", "bytes": len(data), "created_at": int(time.time()), "purpose": "batch"}
        return web.json_response(told | {"id": self._keep(data), "filename": sent.filename, "status": "processed"})

    async def content(self, request: web.Request) -> web.Response:
        """Return a file."""
        return web.Response(body=_find(self._files, request))

    async def delete(self, request: web.Request) -> web.Response:
        """Forget a file."""
        _find(self._files, request)
        del self._files[request.match_info["name"]]
        return web.json_response({"id": request.match_info["name"], "object": "file", "deleted": True})

    async def create(self, request: web.Request) -> web.Response:
        """Begin a batch."""
        asked, name = await request.json(), f"batch-{next(self._numbers)}"
        lines = self._files.get(asked["input_file_id"], b"").splitlines()
        batch = {"id": name, "object": "batch", "status": "in_progress", "created_at": int(time.time()), **asked}
        batch["request_counts"] = {"total": len(lines), "completed": 0, "failed": 0}
        batch["ends_at"] = time.monotonic() + BATCH_SECONDS
        self._batches[name] = batch
        return web.json_response(batch)

    async def list(self, _: web.Request) -> web.Response:
        """Return all batches, the newest first."""
        found = [*reversed(self._batches.values())]
        return web.json_response({"object": "list", "data": found, "has_more": False})

    async def retrieve(self, request: web.Request) -> web.Response:
        """Return how far a batch is, and end it in time."""
        batch = _find(self._batches, request)
        if batch["status"] not in ENDED and time.monotonic() >= batch["ends_at"]:
            self._end(batch)
        return web.json_response(batch)

    async def cancel(self, request: web.Request) -> web.Response:
        """End a batch that has answered nothing yet."""
        batch = _find(self._batches, request)
        batch["status"] = batch["status"] if batch["status"] in ENDED else "cancelled"
        return web.json_response(batch)

    def _end(self, batch: dict[str, Any]) -> None:
        results: dict[str, list[str]] = {"output_file_id": [], "error_file_id": []}
        for line in self._files[batch["input_file_id"]].splitlines():
            sent = json.loads(line)
            status, body = self._answer(sent["body"])
            result = {"custom_id": sent["custom_id"], "response": {"status_code": status, "body": body}, "error": None}
            results["output_file_id" if status == 200 else "error_file_id"].append(json.dumps(result))
        batch["status"] = "completed"
        for (file, found), kind in zip(results.items(), ("completed", "failed"), strict=True):
            batch["request_counts"][kind] = len(found)
            if found:
                batch[file] = self._keep("".join(f"{line}\n" for line in found).encode())

    def _keep(self, data: bytes) -> str:
        name = f"file-{next(self._numbers)}"
        self._files[name] = data
        return name


def _find(held: dict[str, Any], request: web.Request) -> Any:
    found = held.get(request.match_info["name"])
    if found is None:
        raise web.HTTPNotFound
    return found
