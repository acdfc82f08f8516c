import asyncio
import json
from typing import Any

import polars as pl
import pytest
from aiohttp import FormData
from aiohttp.test_utils import TestClient, TestServer

from flows import stand_in, stand_in_batches
from flows.order_models import STAND_IN
from flows.stand_in import SPOILED, load_samples, make_app
from tasks.core.languages import LANGUAGES
from tasks.core.parsing import parse_pair
from tasks.core.prompts import build_prompt
from tasks.core.rules import judge

SAMPLES = load_samples()
DESCRIPTION = next(iter(SAMPLES))


def ask(count: int, description: str = DESCRIPTION, language: str = "English") -> list[tuple[int, dict[str, Any]]]:
    """Ask a fresh stand-in and return each status and body."""

    async def all_of_them() -> list[tuple[int, dict[str, Any]]]:
        body = {"model": STAND_IN, "messages": [{"role": "user", "content": build_prompt(description, language)}]}
        async with TestClient(TestServer(make_app())) as client:
            answers = [await client.post("/v1/chat/completions", json=body) for _ in range(count)]
            return [(answer.status, await answer.json()) for answer in answers]

    return asyncio.run(all_of_them())


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stand_in, "LATENCY_SECONDS", 0.0)
    monkeypatch.setattr(stand_in_batches, "BATCH_SECONDS", 0.0)


def text_of(body: dict[str, Any]) -> str:
    return str(body["choices"][0]["message"]["content"])


def test_the_samples_are_sixty_distinct_descriptions_of_known_languages() -> None:
    lines = stand_in.SAMPLES.read_text(encoding="utf-8").splitlines()
    assert len(SAMPLES) == len(lines) == 60
    assert {name for pairs in SAMPLES.values() for name in pairs} <= set(LANGUAGES)
    assert all(len(pairs["English"]) >= 3 for pairs in SAMPLES.values())


def test_every_sample_pair_passes_every_rule() -> None:
    rows = [
        {"task": task, "language": language, "input": one, "positive_document": other}
        for task, languages in SAMPLES.items()
        for language, pairs in languages.items()
        for one, other in pairs
    ]
    nothing = dict.fromkeys(("finish_reason", "error", "problem"), pl.String)
    frame = pl.DataFrame(rows).with_columns(
        text=pl.lit("{}"), **{name: pl.lit(None, dtype) for name, dtype in nothing.items()}
    )
    judged = judge(frame.lazy(), ()).collect()
    assert judged.filter(pl.col("reasons").list.len() > 0).select("input", "reasons").rows() == []
    assert judged.height > 300
    assert frame.select("input", "positive_document").is_duplicated().sum() == 0


def test_each_request_for_a_sample_gets_its_next_pair_then_numbers_that_are_no_words() -> None:
    ours = SAMPLES[DESCRIPTION]["German"]
    replies = [text_of(body) for status, body in ask(len(ours) + 5, language="German") if status == 200]
    found = [[parsed.input, parsed.positive_document] for parsed in map(parse_pair, replies[: len(ours)])]
    assert found == ours
    last = parse_pair(replies[-1])
    assert not any(sign.isalpha() for sign in f"{last.input}{last.positive_document}")
    assert len(set(replies)) == len(replies)


def test_what_it_does_not_know_gets_a_generic_pair() -> None:
    (_, body) = ask(1, "a description of nobody's")[0]
    assert "stand-in words" in text_of(body)
    assert "nothing here was written by a model" in text_of(body)


def test_what_it_does_not_know_passes_every_rule_in_every_language() -> None:
    known = stand_in.StandIn(SAMPLES)
    rows = []
    for name in LANGUAGES:
        for number in range(5):
            task = f"match a thing with thing {number}"
            one, other = known._answer(build_prompt(task, name))
            rows.append({"task": task, "language": name, "input": one, "positive_document": other})
    nothing = dict.fromkeys(("finish_reason", "error", "problem"), pl.String)
    frame = pl.DataFrame(rows).with_columns(
        text=pl.lit("{}"), **{name: pl.lit(None, dtype) for name, dtype in nothing.items()}
    )
    judged = judge(frame.lazy(), ()).collect()
    assert judged.filter(pl.col("reasons").list.len() > 0).select("language", "input", "reasons").rows() == []
    assert judged.filter(pl.col("flags").list.len() > 0).height == 0
    assert frame.select("input", "positive_document").is_duplicated().sum() == 0


def test_it_says_what_it_is_and_counts_tokens() -> None:
    (_, body) = ask(1)[0]
    assert body["model"] == STAND_IN
    assert "stand-in" in STAND_IN
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"] > 0


def test_a_few_replies_are_spoiled_by_their_order_of_arrival() -> None:
    replies = ask(max(SPOILED))
    kinds: dict[str, list[str | None]] = {}
    for arrival, (status, body) in enumerate(replies, start=1):
        if status != 200:
            kinds.setdefault(SPOILED.get(arrival, "good"), []).append(str(status))
        else:
            stage = parse_pair(text_of(body)).problem or body["choices"][0]["finish_reason"]
            kinds.setdefault(SPOILED.get(arrival, "good"), []).append(stage)
    assert kinds == {
        "good": ["stop"] * (max(SPOILED) - len(SPOILED)),
        "overloaded": ["503"],
        "prose": ["stop"],
        "cut_off": ["unparsable"],
        "broken": ["unparsable", "unparsable"],
        "throttled": ["429"],
        "refusal": ["unparsable"],
        "overlap": ["stop"],
    }


def test_a_batch_answers_each_line_as_a_call_and_is_gone_when_its_files_are() -> None:
    body = {"model": STAND_IN, "messages": [{"role": "user", "content": build_prompt(DESCRIPTION, "English")}]}
    lines = [json.dumps({"custom_id": str(number), "body": body}) for number in range(5)]

    async def batch() -> tuple[dict[str, Any], list[str]]:
        async with TestClient(TestServer(make_app())) as client:
            form = FormData({"purpose": "batch"})
            form.add_field("file", "\n".join(lines).encode(), filename="x.jsonl")
            file = (await (await client.post("/v1/files", data=form)).json())["id"]
            begun = await (
                await client.post("/v1/batches", json={"input_file_id": file, "metadata": {"a": "b"}})
            ).json()
            (listed,) = (await (await client.get("/v1/batches")).json())["data"]
            assert (listed["id"], listed["metadata"]) == (begun["id"], {"a": "b"})
            ended = await (await client.get(f"/v1/batches/{begun['id']}")).json()
            results = [
                await (await client.get(f"/v1/files/{ended[kind]}/content")).text()
                for kind in ("output_file_id", "error_file_id")
            ]
            await client.delete(f"/v1/files/{file}")
            assert (await client.get(f"/v1/files/{file}/content")).status == 404
            return ended, results

    ended, (good, bad) = asyncio.run(batch())
    assert (ended["status"], ended["request_counts"]) == ("completed", {"total": 5, "completed": 4, "failed": 1})
    answered = [json.loads(line) for line in (good + bad).splitlines()]
    assert sorted(one["custom_id"] for one in answered) == ["0", "1", "2", "3", "4"]
    assert {one["response"]["status_code"] for one in answered} == {200, 503}
    assert parse_pair(text_of(answered[0]["response"]["body"])).input
