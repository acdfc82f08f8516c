"""The model server with OpenAI's files and batches, each batch with a fate of its own."""

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.model_server import ModelServer, read_prompt

PAGE = 3
ENDED = ("completed", "failed", "expired", "cancelled")


@dataclass
class Fate:
    """How a batch ends: at which look at it, as what, with which share of its lines answered.

    Lines without an answer are in the error file where `says_so`, and nowhere otherwise.
    `problem` is the code of an error of the whole batch.
    """

    status: str = "completed"
    looks: int = 1
    answered: float = 1.0
    says_so: bool = True
    problem: str = ""


NEVER = Fate("cancelled", looks=1_000_000, answered=0.5)

# Called with the operation, before or after it; what it returns is sent instead of the answer.
Hook = Callable[[str, str, web.Request], web.StreamResponse | None]


@dataclass
class Job:
    """One batch."""

    body: dict[str, Any]
    ids: list[str]
    fate: Fate
    looks: int = 0


@dataclass
class BatchServer(ModelServer):
    """The server; `fates` are those of the next batches, then they are all good.

    `sent` counts the lines of all batches by custom_id, `answered` those that a batch
    has answered (and is paid for), `doubled` those sent while another batch has answered
    them or still may; `seen` are the operations.
    """

    fates: list[Fate] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=dict)
    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    sent: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    doubled: Counter[str] = field(default_factory=Counter)
    seen: list[str] = field(default_factory=list)
    strange_lines: list[bytes] = field(default_factory=list)
    refused_key: str = ""
    hook: Hook = lambda operation, moment, request: None
    _names: int = 0

    def forget(self) -> None:
        """Go back to good fates, and nothing sent."""
        super().forget()
        self.fates, self.jobs, self.files, self.seen, self.strange_lines = [], {}, {}, [], []
        self.sent, self.answered, self.doubled, self.refused_key = Counter(), Counter(), Counter(), ""
        self.hook = lambda operation, moment, request: None

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Serve files and batches, too."""
        super().add_routes(router)
        for method, path, operation in (
            ("POST", "/files", self._upload),
            ("GET", "/files/{id}/content", self._content),
            ("DELETE", "/files/{id}", self._delete),
            ("POST", "/batches", self._create),
            ("GET", "/batches", self._list),
            ("GET", "/batches/{id}", self._retrieve),
            ("POST", "/batches/{id}/cancel", self._cancel),
        ):
            router.add_route(method, "/{test}/v1" + path, self._serve(operation))

    def _serve(self, operation: Callable[[web.Request], Any]) -> Callable[[web.Request], Any]:
        name = operation.__name__.removeprefix("_")

        async def serve(request: web.Request) -> web.StreamResponse:
            if request.match_info["test"] != str(self._test):
                return web.Response(status=410)
            if self.refused_key and request.headers.get("Authorization") == f"Bearer {self.refused_key}":
                return _error(401, "Incorrect API key provided")
            self.seen.append(name)
            early = self.hook(name, "before", request)
            if early is not None:
                return early
            response: web.StreamResponse = await operation(request)
            if name in ("list", "delete"):  # litellm hands no headers on with these
                response.force_close()
            return self.hook(name, "after", request) or response

        return serve

    def _name(self, kind: str) -> str:
        self._names += 1
        return f"{kind}-{self._names:06}"

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        sent = form["file"]
        assert isinstance(sent, web.FileField)
        assert form["purpose"] == "batch"
        name = self._name("file")
        self.files[name] = (sent.filename, sent.file.read())
        return web.json_response(self._file(name))

    def _file(self, name: str) -> dict[str, Any]:
        filename, content = self.files[name]
        told = {"id": name, "object": "file", "bytes": len(content), "created_at": 1, "filename": filename}
        return told | {"purpose": "batch", "status": "processed"}

    async def _content(self, request: web.Request) -> web.Response:
        found = self.files.get(request.match_info["id"])
        return web.Response(body=found[1]) if found else _error(404, "No such File object")

    async def _delete(self, request: web.Request) -> web.Response:
        found = self.files.pop(request.match_info["id"], None)
        if found is None:
            return _error(404, "No such File object")
        return web.json_response({"id": request.match_info["id"], "object": "file", "deleted": True})

    async def _create(self, request: web.Request) -> web.Response:
        asked = await request.json()
        assert (asked["endpoint"], asked["completion_window"]) == ("/v1/chat/completions", "24h")
        lines = self.lines(asked["input_file_id"])
        ids = [line["custom_id"] for line in lines]
        assert len(ids) == len(set(ids))
        assert {(line["method"], line["url"]) for line in lines} == {("POST", "/v1/chat/completions")}
        waiting = {one for job in self.jobs.values() if job.body["status"] not in ENDED for one in job.ids}
        self.doubled.update(one for one in ids if one in waiting or self.answered[one])
        name = self._name("batch")
        body = {"id": name, "object": "batch", "status": "validating", "created_at": int(time.time())} | asked
        body["request_counts"] = {"total": len(lines), "completed": 0, "failed": 0}
        self.jobs[name] = Job(body, ids, self.fates.pop(0) if self.fates else Fate())
        self.sent.update(ids)
        return web.json_response(body)

    def lines(self, file: str) -> list[dict[str, Any]]:
        """Return the requests of a file."""
        return [json.loads(line) for line in self.files[file][1].splitlines()]

    async def _list(self, request: web.Request) -> web.Response:
        bodies = [job.body for job in reversed(self.jobs.values())]
        after = request.query.get("after")
        if after:
            bodies = bodies[[body["id"] for body in bodies].index(after) + 1 :]
        limit = min(PAGE, int(request.query.get("limit", PAGE)))
        page = {"object": "list", "data": bodies[:limit], "has_more": len(bodies) > limit}
        return web.json_response(page)

    async def _retrieve(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["id"])
        if job is None:
            return _error(404, "No batch found with this id")
        if job.body["status"] not in ENDED:
            job.looks += 1
            job.body["status"] = "cancelling" if job.body["status"] == "cancelling" else "in_progress"
            total = job.body["request_counts"]["total"]
            job.body["request_counts"]["completed"] = int(total * min(1.0, job.looks / job.fate.looks))
            if job.looks >= job.fate.looks:
                await self._end(request, job)
        return web.json_response(job.body)

    async def _cancel(self, request: web.Request) -> web.Response:
        job = self.jobs[request.match_info["id"]]
        if job.body["status"] in ENDED:
            return _error(409, "Cannot cancel a batch that has ended")
        job.body["status"] = "cancelling"
        job.looks, job.fate = 0, Fate("cancelled", 2, job.fate.answered)
        return web.json_response(job.body)

    async def _end(self, request: web.Request, job: Job) -> None:
        fate, lines = job.fate, self.lines(job.body["input_file_id"])
        good: list[bytes] = list(self.strange_lines)
        bad: list[bytes] = []
        for line in lines[: round(len(lines) * fate.answered)]:
            answered = self.choose(read_prompt(line["body"]))(request, line["body"])
            body = json.loads(answered.body) if _is_json(answered) else answered.text
            result = {"id": "batch_req_1", "custom_id": line["custom_id"], "error": None}
            result["response"] = {"status_code": answered.status, "request_id": "1", "body": body}
            (good if answered.status == 200 else bad).append(json.dumps(result).encode())
            self.answered[line["custom_id"]] += answered.status == 200
        if fate.says_so:
            error: dict[str, Any] = {"code": f"batch_{fate.status}", "message": "This request could not be executed."}
            bad += [
                json.dumps({"custom_id": line["custom_id"], "response": None, "error": error}).encode()
                for line in lines[round(len(lines) * fate.answered) :]
            ]
        job.body["status"] = fate.status
        for kind, results in (("output_file_id", good), ("error_file_id", bad)):
            if results:
                name = job.body[kind] = self._name("file")
                # In an order of its own.
                mixed = sorted(results, key=lambda result: result[::-1])
                self.files[name] = ("results.jsonl", b"\n".join(mixed) + b"\n")
        if fate.problem:
            error = {"code": fate.problem, "message": f"It failed: {fate.problem}", "line": None, "param": None}
            job.body["errors"] = {"object": "list", "data": [error]}


def _is_json(response: web.Response) -> bool:
    return bool(re.match(r"\s*[\[{]", response.text or ""))


def _error(status: int, message: str) -> web.Response:
    return web.json_response(
        {"error": {"message": message, "type": "invalid_request_error", "code": None}}, status=status
    )
