"""litellm's files and batches, over HTTP."""

import gc
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tasks.clients.batch_lines import BatchLines
from tasks.clients.batches import BatchApi
from tasks.clients.outcome import CallFault, Reply
from tasks.core.errors import ModelError, UsageError
from tasks.core.requests import Recipe
from tests.batch_server import PAGE, BatchServer, Fate
from tests.model_server import error, good_text

RECIPE = Recipe(model_name="openai/gpt-4o-mini")


@pytest.fixture
def api(batch_server: BatchServer) -> BatchApi:
    return BatchApi(RECIPE, batch_server.api_base)


def write_file(server: BatchServer, folder: Path, requests: int = 4) -> Path:
    lines = BatchLines(RECIPE, server.api_base)
    path = folder / "pairmill-1.jsonl"
    path.write_bytes(b"".join(lines.write(f"key{number}", f"prompt {number}") for number in range(requests)))
    return path


def test_a_batch_goes_there_and_back(api: BatchApi, batch_server: BatchServer, tmp_path: Path) -> None:
    file = api.upload(write_file(batch_server, tmp_path))
    assert batch_server.files[file][0] == "pairmill-1.jsonl"
    job = api.create(file, "ours")
    assert (job.name, job.status, job.input_file, job.ended) == ("ours", "validating", file, False)
    job = api.retrieve(job.id)
    assert (job.status, job.answered, job.ended) == ("completed", 4, True)
    api.download(job.output_file, tmp_path / "results", 1 << 20)
    results = dict(BatchLines(RECIPE, batch_server.api_base).read(tmp_path / "results"))
    assert list(results) != sorted(results)
    assert sorted(results) == ["key0", "key1", "key2", "key3"]
    reply = results["key3"]
    assert isinstance(reply, Reply)
    assert (reply.text, reply.input_tokens, reply.output_tokens) == (good_text("prompt 3"), 200, 40)
    api.delete(file)
    assert file not in batch_server.files


def test_a_line_asks_for_what_a_live_call_asks_for(api: BatchApi, batch_server: BatchServer, tmp_path: Path) -> None:
    import asyncio

    from tasks.clients import llm

    async def call() -> None:
        await llm.connect(RECIPE, batch_server.api_base)("prompt 0")
        await llm.disconnect()

    asyncio.run(call())
    (live,) = batch_server.bodies
    line = json.loads(write_file(batch_server, tmp_path, 1).read_text())
    assert line == {"custom_id": "key0", "method": "POST", "url": "/v1/chat/completions", "body": live}


def test_hours_of_looking_leave_no_connections_open(api: BatchApi, batch_server: BatchServer, tmp_path: Path) -> None:
    batch_server.fates = [Fate(looks=1000)]
    job = api.create(api.upload(write_file(batch_server, tmp_path, 1)), "slow")
    api.retrieve(job.id)
    gc.disable()
    try:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(8):
            api.retrieve(job.id)
        # The server, which is in this process, closes its ends a little later.
        while len(os.listdir("/proc/self/fd")) >= before + 4:
            time.sleep(0.05)
    finally:
        gc.enable()


def test_a_batch_is_found_by_our_mark_on_whatever_page(
    api: BatchApi, batch_server: BatchServer, tmp_path: Path
) -> None:
    file = api.upload(write_file(batch_server, tmp_path, 1))
    first = api.create(file, "first")
    for number in range(2 * PAGE):
        api.create(file, f"another {number}")
    again = api.create(file, "first")
    assert first.id != again.id
    # The one that was there first is the one whose requests are waited for.
    assert {name: job.id for name, job in api.find({"first", "none"}, 0.0).items()} == {"first": first.id}
    assert batch_server.seen.count("list") == 3
    # Nothing is looked for among batches that are too old to be ours.
    batch_server.seen.clear()
    api.find({"first"}, 1e12)
    assert batch_server.seen.count("list") == 1


def test_a_job_that_is_ended_or_failed_says_so(api: BatchApi, batch_server: BatchServer, tmp_path: Path) -> None:
    batch_server.fates = [Fate(looks=100), Fate("failed", answered=0.0, says_so=False, problem="token_limit_exceeded")]
    file = api.upload(write_file(batch_server, tmp_path))
    slow, failed = api.create(file, "1"), api.create(file, "2")
    api.cancel(slow.id)
    assert [api.retrieve(slow.id).status for _ in range(2)] == ["cancelling", "cancelled"]
    job = api.retrieve(failed.id)
    assert (job.ended, job.too_much, job.output_file, job.error_file) == (True, True, "", "")
    assert job.problem.startswith("token_limit_exceeded: It failed")


def answer_with(status: int, text: str) -> Any:
    return lambda operation, moment, request: web.Response(status=status, text=text) if moment == "before" else None


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (404, ("fatal", "its provider has no batch API")),
        (405, ("fatal", "its provider has no batch API")),
        (401, ("fatal", "refuses the key")),
        (429, ("throttled", "")),
        (500, ("transient", "")),
        (200, ("transient", "")),
    ],
)
def test_what_the_batch_api_answers_is_said_in_our_words(
    status: int, meaning: tuple[str, str], api: BatchApi, batch_server: BatchServer, tmp_path: Path
) -> None:
    kind, said = meaning
    batch_server.hook = answer_with(status, "<html>no</html>")
    with pytest.raises(CallFault) as caught:
        api.upload(write_file(batch_server, tmp_path))
    assert (caught.value.kind, said in caught.value.message) == (kind, True)
    # One attempt is one request: ours is the only loop.
    assert batch_server.seen == ["upload"]


def test_a_name_that_would_be_another_address_is_never_asked_for(api: BatchApi, batch_server: BatchServer) -> None:
    for name in ("../batches", "a/b", "", "arn:aws:bedrock:x:1:model-invocation-job/1", "a?b", "." * 3, "a" * 600):
        with pytest.raises(CallFault, match="no name"):
            api.retrieve(name)
    assert batch_server.seen == []


def test_results_are_read_up_to_a_size_only(api: BatchApi, batch_server: BatchServer, tmp_path: Path) -> None:
    batch_server.files["large"] = ("x", b"x" * 3_000_000)
    with pytest.raises(CallFault, match="larger than"):
        api.download("large", tmp_path / "results", 1_000_000)
    assert (tmp_path / "results").stat().st_size <= 1_000_000
    with pytest.raises(CallFault) as caught:
        api.download("none", tmp_path / "results", 1_000_000)
    assert caught.value.kind == "fatal"


def test_a_provider_without_batches_is_refused_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "x")
    with pytest.raises(UsageError, match="claude-3-5-haiku-20241022 is of anthropic"):
        BatchApi(Recipe(model_name="anthropic/claude-3-5-haiku-20241022"), "")
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ModelError, match="OPENAI_API_KEY"):
        BatchApi(RECIPE, "")


RESULT = {"custom_id": "k", "response": {"status_code": 200, "body": {}}, "error": None}


@pytest.mark.parametrize(
    ("line", "kinds"),
    [
        (b"no json", []),
        (b"[]", []),
        (b'{"custom_id": 3}', []),
        (b'{"custom_id": "k"}', ["transient"]),
        (b'{"custom_id": "k", "response": {"status_code": "x", "body": 1}}', ["transient"]),
        (b'{"custom_id": "k", "response": {"status_code": 200, "body": "nonsense"}}', ["transient"]),
        (json.dumps(RESULT | {"response": None, "error": {"code": "batch_expired"}}).encode(), ["transient"]),
        (b"[" * 100_000, []),
    ],
)
def test_a_line_that_is_no_result_is_left_out(
    line: bytes, kinds: list[str], batch_server: BatchServer, tmp_path: Path
) -> None:
    (tmp_path / "results").write_bytes(line + b"\n")
    read = list(BatchLines(RECIPE, batch_server.api_base).read(tmp_path / "results"))
    assert [outcome.kind for _, outcome in read if isinstance(outcome, CallFault)] == kinds
    assert len(read) == len(kinds)


@pytest.mark.parametrize(
    ("behaviour", "meaning"),
    [
        (error(400, "too long", "context_length_exceeded"), ("refused", "context_window")),
        (error(400, "no", "content_policy_violation"), ("refused", "content_policy")),
        (error(500), ("transient", "")),
        (error(429), ("throttled", "")),
        (error(401), ("fatal", "")),
    ],
)
def test_a_line_that_failed_means_what_a_live_call_would(
    behaviour: Any, meaning: tuple[str, str], api: BatchApi, batch_server: BatchServer, tmp_path: Path
) -> None:
    batch_server.default = behaviour
    job = api.retrieve(api.create(api.upload(write_file(batch_server, tmp_path, 1)), "x").id)
    assert job.output_file == ""
    api.download(job.error_file, tmp_path / "results", 1 << 20)
    ((key, fault),) = BatchLines(RECIPE, batch_server.api_base).read(tmp_path / "results")
    assert isinstance(fault, CallFault)
    assert (key, (fault.kind, fault.reason)) == ("key0", meaning)


def test_a_line_beyond_the_size_of_a_reply_is_skipped(batch_server: BatchServer, tmp_path: Path) -> None:
    from tasks.clients.batch_lines import LINE_BYTES

    with (tmp_path / "results").open("wb") as file:
        file.write(b'{"custom_id": "a", "x": "' + b"x" * (2 * LINE_BYTES + 100) + b'"}\n')
        file.write(json.dumps(RESULT).encode())
    read = list(BatchLines(RECIPE, batch_server.api_base).read(tmp_path / "results"))
    assert [key for key, _ in read] == ["k"]
