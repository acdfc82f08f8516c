import json
from datetime import UTC, datetime
from typing import Any

import boto3
import polars as pl
import pytest

from flows.run import main
from tasks.clients import frames
from tasks.clients.journal import Journal
from tasks.clients.lease import hold_lease
from tasks.clients.leftovers import local_folder
from tasks.core.columns import COMPLETIONS
from tasks.core.layout import Layout
from tasks.core.prompts import build_prompt
from tasks.core.requests import MOST_CHARACTERS, Recipe, hash_descriptions, request_keys
from tests.bucket import as_lines, put
from tests.model_server import ModelServer, error
from tests.s3_proxy import S3Proxy

ROWS = 30
OWN_PRICE = ["--input-cost-per-token", "0.000001", "--output-cost-per-token", "0.00001"]
TASKS = [f"match thing {row} with its name" for row in range(ROWS)]


@pytest.fixture
def given(bucket: str, model_server: ModelServer) -> list[str]:
    """Return a real job's options, over a bucket with descriptions; one is repeated, one blank."""
    put(bucket, "tasks/a.jsonl", as_lines({"task": task} for task in [*TASKS, TASKS[0], " "]))
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


def test_a_dry_run_counts_what_a_fallback_will_take_over(
    given: list[str], bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Recipe(model_name="openai/x")
    prompts = [build_prompt(task, "English", 0) for task in TASKS]
    reply = dict.fromkeys(COMPLETIONS) | {"completed_at": datetime.now(UTC), "attempts": 1, "throttled": 0}
    with Journal(Layout(f"{bucket}/out").journal(recipe.recipe_id), recipe=recipe.canonical) as record:
        for number, key in enumerate(request_keys(recipe, prompts, [0] * ROWS)):
            text = "I'm sorry, I can't help." if number < 4 else '{"input": "a", "positive_document": "b"}'
            record.append(key, reply | {"text": text})
    _, alone = ask(capsys, [*given, "--dry-run"])
    assert (alone["cached"], alone["calls"]) == (ROWS, 0)
    _, found = ask(capsys, [*given, "--fallback-models", "openai/b", "--dry-run"])
    assert (found["cached"], found["calls"], found["model_name"]) == (ROWS - 4, 4, "openai/x, openai/b")


@pytest.mark.parametrize("whose", ["tasks", "other-tasks"])
def test_a_dry_run_says_what_a_run_at_work_is_making_and_what_is_left_to_pay(
    given: list[str], bucket: str, capsys: pytest.CaptureFixture[str], whose: str
) -> None:
    layout = Layout(f"{bucket}/out")
    plan = pl.DataFrame({"description_hash": hash_descriptions(TASKS[:12]), "language": ["English"] * 12})
    frames.write_frame(plan, f"{layout.staging('2026-11-01', 'at-work')}/plan/000000.parquet")
    # Its next renewal is far away, and not waited for.
    with hold_lease(layout.source_lease(f"{bucket}/{whose}"), "at-work", term=1000.0):
        _, found = ask(capsys, [*given, "--dry-run"])
        assert (found["descriptions"], found["claimed"], found["requests"], found["calls"]) == (ROWS, 12, 18, 18)
        assert main([*given, "--dry-run"]) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert "at work 12 descriptions that a run at work is making requests 18" in said
    _, found = ask(capsys, [*given, "--dry-run"])
    assert (found["claimed"], found["calls"]) == (0, ROWS)


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


def test_a_dry_run_counts_the_words_that_later_samples_have_more(
    given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    _, one = ask(capsys, [*given, "--dry-run"])
    _, three = ask(capsys, [*given, "--dry-run", "--pairs-per-task", "3"])
    assert three["input_tokens"][0] > 1.1 * 3 * one["input_tokens"][0]


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


def test_what_a_killed_run_left_on_this_machine_is_not_paid_and_stays_there(
    given: list[str], bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Recipe(model_name="openai/x")
    (key,) = request_keys(recipe, [build_prompt(TASKS[3], "English")], [0])
    left = local_folder() / "dead-000001.jsonl"
    left.parent.mkdir(exist_ok=True)
    row = dict.fromkeys(COMPLETIONS) | {"request_key": key, "completed_at": "2026-01-01T00:00:00+00:00"}
    left.write_text("".join(json.dumps(line) + "\n" for line in (_header(bucket, recipe), row)))
    try:
        _, found = ask(capsys, [*given, "--dry-run"])
        assert (found["cached"], found["calls"]) == (1, ROWS - 1)
        assert (left.exists(), keys_of(bucket)) == (True, {"tasks/a.jsonl"})
    finally:
        left.unlink()


def _header(bucket: str, recipe: Recipe) -> dict[str, str]:
    return {"journal": Layout(f"{bucket}/out").journal(recipe.recipe_id)}


def test_a_check_tries_every_part_and_leaves_nothing_behind(
    given: list[str], bucket: str, model_server: ModelServer, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = ask(capsys, [*given, "--check"])
    assert (code, found["ok"]) == (0, True)
    assert [part["name"] for part in found["parts"]] == ["source", "write", "conditional write", "delete", "model"]
    assert (len(model_server.prompts), keys_of(bucket)) == (1, {"tasks/a.jsonl"})


def test_a_check_tries_every_model_and_a_dry_run_counts_each(
    given: list[str], model_server: ModelServer, capsys: pytest.CaptureFixture[str]
) -> None:
    several = [*given, "--model-mix", "openai/gpt-4o-mini=0.5", "--fallback-models", "openai/z"]
    code, found = ask(capsys, [*several, "--check"])
    names = ["model openai/x", "model openai/gpt-4o-mini", "model openai/z"]
    assert (code, [part["name"] for part in found["parts"]][-3:]) == (0, names)
    assert [sent["model"] for sent in model_server.bodies] == ["x", "gpt-4o-mini", "z"]
    _, half = ask(capsys, [*several, "--dry-run"])
    assert (half["requests"], half["calls"], half["cost_usd"]) == (ROWS, ROWS, None)
    assert half["model_name"] == "openai/x, openai/gpt-4o-mini"
    _, dear = ask(capsys, [*several, "--dry-run", *OWN_PRICE])
    _, all_own = ask(capsys, [*given, "--dry-run", *OWN_PRICE])
    # Half of the calls have litellm's price, which is lower.
    assert all_own["cost_usd"][1] / 4 < dear["cost_usd"][1] < all_own["cost_usd"][1] * 3 / 4


BROKEN = {
    "key": ([], error(401), {"model"}, "refuses the key"),
    "model": ([], error(404), {"model"}, "no such model"),
    "address": (["--api-base", "http://127.0.0.1:9/v1"], None, {"model"}, "Check the network, and --api-base"),
    "source": (["--source", "{bucket}/nothing"], None, {"source"}, "No task descriptions"),
    "bucket": (
        ["--destination", "s3://no-such-bucket/x"],
        None,
        {"write"},
        "There is no bucket",
    ),
    "every bucket": (
        ["--source", "s3://no-such-bucket/tasks", "--destination", "s3://no-such-bucket/x"],
        None,
        {"source"},
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
    code, found = ask(capsys, [*_without(given, changed[::2]), *changed, "--check"])
    assert (code, found["ok"]) == (1, False)
    assert {part["name"] for part in found["parts"] if not part["ok"]} == failed
    assert [said in part["said"] for part in found["parts"]].count(True) == 1


def test_a_check_asks_no_more_of_a_storage_that_does_not_answer(
    given: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    code, found = ask(capsys, [*given, "--check"])
    assert (code, [(part["name"], part["ok"]) for part in found["parts"]]) == (1, [("source", False), ("model", True)])
    assert "Nothing answers at http://127.0.0.1:9" in found["parts"][0]["said"]


@pytest.mark.parametrize("condition", ["If-None-Match", "If-Match"])
def test_a_check_finds_a_storage_that_ignores_a_condition(
    given: list[str],
    s3_proxy: S3Proxy,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    condition: str,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_proxy.url)
    assert ask(capsys, [*given, "--check"])[0] == 0
    s3_proxy.fault("PUT ", "ignore", header=condition.lower())
    code, found = ask(capsys, [*given, "--check"])
    failed = {part["name"]: part["said"] for part in found["parts"] if not part["ok"]}
    assert (code, list(failed)) == (1, ["conditional write"])
    assert f"ignores {condition}," in failed["conditional write"]


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


def test_only_what_pays_is_rehearsed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["maintain", "--dry-run"]) == 2
    assert "are for what pays" in capsys.readouterr().err


def test_a_check_and_a_dry_run_at_once_are_refused(
    given: list[str], model_server: ModelServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*given, "--check", "--dry-run"]) == 2
    assert "Give one of them" in capsys.readouterr().err
    assert model_server.prompts == []


DAYS = ["--start-date", "2026-01-01", "--end-date", "2026-01-03"]


def test_a_dry_run_of_a_backfill_adds_its_days_up(
    given: list[str], bucket: str, model_server: ModelServer, capsys: pytest.CaptureFixture[str]
) -> None:
    for day, rows in (("2026-01-01", 3), ("2026-01-02", 4)):
        tasks = [f"match what came on {day}, number {row}" for row in range(rows)]
        put(bucket, f"days/{day}/a.jsonl", as_lines({"task": task} for task in tasks))
    daily = [f"{bucket}/days/{{partition}}" if one.endswith("/tasks") else one for one in given]
    before = keys_of(bucket)
    code, found = ask(capsys, ["backfill", *daily, *DAYS, *OWN_PRICE, "--dry-run"])
    assert (code, found["requests"], found["calls"], found["calls_most"]) == (1, 7, 7, 21)
    assert found["cost_usd"] == [sum(day["cost_usd"][end] for day in found["days"]) for end in (0, 1)]
    assert list(found["problems"]) == ["2026-01-03"], "a day without a source cannot run"
    assert (model_server.prompts, keys_of(bucket)) == ([], before)


def test_a_dry_run_of_a_backfill_over_one_source_pays_for_it_once(
    given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = ask(capsys, ["backfill", *given, *DAYS, "--dry-run"])
    assert (code, found["calls"], found["cost_usd"]) == (0, ROWS, None)
    assert main(["backfill", *given, *DAYS, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert f"{ROWS} calls to pay" in told
    assert "each of the 3 days reads the same" in " ".join(told.split())
    assert (found["days_alike"], len(found["days"])) == (3, 1)


def test_a_dry_run_of_a_brainstorming_counts_its_lists(
    given: list[str], bucket: str, model_server: ModelServer, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["brainstorm", *given[2:], "--descriptions", "90", *OWN_PRICE, "--dry-run"]
    code, found = ask(capsys, [one.replace("/out", "") for one in options])
    assert (code, found["wanted"], found["before"], found["lists"]) == (0, 90, ROWS, [3, 15])
    assert found["calls"] == [3, 15]
    assert 0 < found["cost_usd"][0] < found["cost_usd"][1] < 15 * (1000 * 1e-6 + 4096 * 1e-5)
    assert (model_server.prompts, keys_of(bucket)) == ([], {"tasks/a.jsonl"})


@pytest.mark.parametrize(("command", "parts"), [("backfill", 5), ("brainstorm", 4)])
def test_what_else_pays_is_checked_part_by_part(
    given: list[str], model_server: ModelServer, capsys: pytest.CaptureFixture[str], command: str, parts: int
) -> None:
    options = [*given, *DAYS] if command == "backfill" else given[2:]
    code, found = ask(capsys, [command, *options, "--check"])
    assert (code, found["ok"], len(found["parts"]), len(model_server.prompts)) == (0, True, parts, 1)


def test_a_check_of_lists_and_their_pairs_tries_every_model_of_both(
    given: list[str], model_server: ModelServer, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        "brainstorm",
        *given[2:],
        "--then-generate",
        "--model-mix",
        "openai/y=0.5",
        "--fallback-models",
        "openai/z",
    ]
    code, found = ask(capsys, [*options, "--check"])
    assert (code, found["ok"]) == (0, True)
    assert [sent["model"] for sent in model_server.bodies] == ["x", "y", "z"]


def test_a_brainstorming_that_has_enough_costs_nothing_whatever_the_price(
    given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["brainstorm", *given[2:], "--descriptions", str(ROWS), "--dry-run"]
    _, found = ask(capsys, [one.replace("/out", "") for one in options])
    assert (found["calls"], found["cost_usd"]) == ([0, 0], [0.0, 0.0])


def test_a_dry_run_says_how_many_descriptions_are_too_long(
    given: list[str], bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(bucket, "tasks/b.jsonl", as_lines([{"task": "a" * (MOST_CHARACTERS + 1)}]))
    found = ask(capsys, [*given, "--dry-run"])[1]
    assert (found["descriptions"], found["too_long"], found["blank"]) == (ROWS, 1, 1)
    assert main([*given, "--dry-run"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "1 too long" in said
    assert "more than 10,000 characters: 1." in said


def test_a_dry_run_names_the_languages_that_it_does_not_know(
    given: list[str], bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(bucket, "tasks/b.jsonl", as_lines({"task": f"b{row}", "language": ["de", "Klingon"][row]} for row in range(2)))
    assert ask(capsys, [*given, "--dry-run"])[1]["unknown_languages"] == {"Klingon": 1}
    assert main([*given, "--dry-run"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "1 in unknown languages" in said
    assert "not known: 'Klingon' (1)." in said
