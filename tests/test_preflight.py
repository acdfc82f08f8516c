import json
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest

from flows.run import main
from tasks.clients.journal import Journal
from tasks.core.columns import COMPLETIONS
from tasks.core.layout import Layout
from tasks.core.prompts import build_prompt
from tasks.core.requests import Recipe, request_keys
from tests.model_server import ModelServer, error

ROWS = 30
OWN_PRICE = ["--input-cost-per-token", "0.000001", "--output-cost-per-token", "0.00001"]
TASKS = [f"match thing {row} with its name" for row in range(ROWS)]


@pytest.fixture
def given(bucket: str, model_server: ModelServer) -> list[str]:
    """Return a real job's options, over a bucket with descriptions; one is repeated, one blank."""
    lines = "\n".join(json.dumps({"task": task}) for task in [*TASKS, TASKS[0], " "])
    boto3.client("s3").put_object(Bucket=bucket.removeprefix("s3://"), Key="tasks/a.jsonl", Body=lines.encode())
    return [
        *("--source", f"{bucket}/tasks", "--destination", f"{bucket}/out"),
        *("--model-name", "openai/x", "--api-base", model_server.api_base),
    ]


def keys_of(bucket: str) -> set[str]:
    found = boto3.client("s3").list_objects_v2(Bucket=bucket.removeprefix("s3://"))
    return {item["Key"] for item in found.get("Contents", [])}


def ask(capsys: pytest.CaptureFixture[str], options: list[str]) -> tuple[int, dict[str, Any]]:
    """Run the command line and return its exit code and report."""
    capsys.readouterr()
    code = main([*options, "--output", "json"])
    said = capsys.readouterr().out
    return code, json.loads(said) if said else {}


def test_a_dry_run_counts_all_and_neither_pays_nor_writes(
    given: list[str], bucket: str, model_server: ModelServer, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = ask(capsys, [*given, "--dry-run", *OWN_PRICE, "--max-tokens", "100"])
    assert (code, model_server.prompts, keys_of(bucket)) == (0, [], {"tasks/a.jsonl"})
    assert (found["descriptions"], found["repeated"], found["blank"]) == (ROWS, 1, 1)
    assert (found["requests"], found["cached"], found["calls"], found["calls_most"]) == (ROWS, 0, ROWS, 3 * ROWS)
    low, high = found["input_tokens"]
    assert 100 * ROWS < low < high < 300 * ROWS
    assert found["output_tokens"] == [20 * ROWS, 100 * ROWS]
    expected = [given * 1e-6 + made * 1e-5 for given, made in ((low, 20 * ROWS), (high, 100 * ROWS))]
    assert found["cost_usd"] == pytest.approx(expected)
    assert found["would_publish"]


def test_an_unknown_price_is_no_cost(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(capsys, [*given, "--dry-run"])[1]["cost_usd"] is None
    priced = [option.replace("openai/x", "openai/gpt-4o-mini") for option in given]
    low, high = ask(capsys, [*priced, "--dry-run"])[1]["cost_usd"]
    assert 0 < low < high
    assert ask(capsys, [*priced, "--dry-run", "--batch"])[1]["cost_usd"] == pytest.approx([low / 2, high / 2])
    assert main([*given, "--dry-run"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "price unknown" in said
    assert "--input-cost-per-token and --output-cost-per-token" in said


def test_what_the_journal_holds_is_not_paid_and_tells_the_tokens_of_the_rest(
    given: list[str], bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Recipe(model_name="openai/x")
    blank = dict.fromkeys(COMPLETIONS)
    completion = blank | {"input_tokens": 200, "output_tokens": 40, "completed_at": datetime.now(UTC)}
    with Journal(Layout(f"{bucket}/out").journal(recipe.recipe_id)) as record:
        prompts = [build_prompt(task, "English") for task in TASKS[:10]]
        for key in request_keys(recipe, prompts, [0] * 10):
            record.append(key, completion)
    _, found = ask(capsys, [*given, "--dry-run", *OWN_PRICE])
    assert (found["cached"], found["calls"]) == (10, ROWS - 10)
    assert (found["input_tokens"], found["output_tokens"]) == ([200 * 20] * 2, [40 * 20] * 2)
    assert found["cost_usd"] == pytest.approx([20 * (200 * 1e-6 + 40 * 1e-5)] * 2)
    assert "10 completions of this model in the journal" in found["tokens_from"]


def test_a_check_tries_every_part_and_leaves_nothing_behind(
    given: list[str], bucket: str, model_server: ModelServer, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = ask(capsys, [*given, "--check"])
    assert (code, found["ok"]) == (0, True)
    assert [part["name"] for part in found["parts"]] == ["source", "write", "conditional write", "delete", "model"]
    assert (len(model_server.prompts), keys_of(bucket)) == (1, {"tasks/a.jsonl"})


BROKEN = {
    "key": ([], error(401), {"model"}, "refuses the key"),
    "model": ([], error(404), {"model"}, "no such model"),
    "source": (["--source", "{bucket}/nothing"], None, {"source"}, "No task descriptions"),
    "bucket": (
        ["--destination", "s3://no-such-bucket/x"],
        None,
        {"write", "conditional write", "delete"},
        "There is no bucket",
    ),
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_a_check_names_the_part_that_does_not_work(
    given: list[str], bucket: str, model_server: ModelServer, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    options, fault, failed, said = BROKEN[name]
    model_server.default = fault or model_server.default
    changed = [option.format(bucket=bucket) for option in options]
    code, found = ask(capsys, [*_without(given, changed[:1]), *changed, "--check"])
    assert (code, found["ok"]) == (1, False)
    assert {part["name"] for part in found["parts"] if not part["ok"]} == failed
    assert any(said in part["said"] for part in found["parts"])


def _without(given: list[str], named: list[str]) -> list[str]:
    at = [given.index(name) for name in named]
    return [option for index, option in enumerate(given) if index not in at and index - 1 not in at]


WRONG = {
    "a limit without a price": (["--max-cost-usd", "1"], "litellm knows no price for openai/x"),
    "half a price": (["--input-cost-per-token", "0.1"], "Give both"),
    "a negative price": (
        ["--input-cost-per-token", "-1", "--output-cost-per-token", "1"],
        "greater than or equal to 0",
    ),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_a_price_that_cannot_be_right_is_refused(
    given: list[str], model_server: ModelServer, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    options, said = WRONG[name]
    assert main([*given, *options]) == 2
    assert said in capsys.readouterr().err
    assert model_server.prompts == []


def test_only_the_main_command_is_rehearsed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backfill", "--dry-run", "--start-date", "2026-01-01", "--end-date", "2026-01-02"]) == 2
    assert "are for the main command" in capsys.readouterr().err
