"""The whole flow, on S3 and against a model server."""

import itertools
import json
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest
from aiohttp import web

from flows.run import main
from tasks.clients import access, frames, storage, table
from tasks.core.features import PREPARED
from tests.bucket import as_lines, lines, put, read_table
from tests.model_server import ModelServer, answer, good, good_text

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(bucket: str, model_server: ModelServer, prefect_api: str, capfd: pytest.CaptureFixture[str]) -> Run:
    """Return what runs the command line in this process and reads the report that it prints."""

    def command(*options: str) -> dict[str, Any]:
        given = {"--source": f"{bucket}/tasks", "--destination": f"{bucket}/out", "--model-name": "openai/x"}
        given["--partition"] = "2026-01-01"  # midnight may pass between two runs
        line = [part for pair in given.items() if pair[0] not in options for part in pair]
        code = main([*line, "--api-base", model_server.api_base, "--output", "json", *options])
        out, said = capfd.readouterr()
        assert code == 0, said
        report: dict[str, Any] = json.loads(out)
        assert report["accepted"] + report["rejected"] == report["judged"]
        assert report["cached"] + report["paid"] + report["failed"] == report["judged"]
        return report

    return command


def read(bucket: str, name: str = "pairs") -> pl.DataFrame:
    return read_table(f"{bucket}/out/{name}")


def test_a_thousand_descriptions_become_a_table_and_nothing_is_paid_for_twice(
    run: Run, bucket: str, model_server: ModelServer
) -> None:
    put(bucket, "tasks/a.jsonl", lines(1000))
    first = run()
    assert (first["judged"], first["accepted"], first["paid"], first["published"]) == (1000, 1000, 1000, True)
    assert json.loads(storage.read_bytes(f"{bucket}/out/runs/{first['run_id']}.json")) == first
    pairs = read(bucket)
    assert sorted(pairs["id"]) == list(range(1000))
    assert set(pairs["run_id"]) == {first["run_id"]}
    files = pl.read_parquet(first["files"], storage_options=access.object_store_options())
    assert files.sort("id").equals(pairs.sort("id").select(files.columns))

    second = run()
    assert (second["requests"], second["already_served"], second["published"]) == (0, 1000, False)
    redone = run("--on-published", "redo")
    assert (redone["judged"], redone["cached"], redone["paid"], redone["published"]) == (1000, 1000, 0, True)
    assert len(model_server.prompts) == 1000
    assert read(bucket).sort("id").drop("run_id").equals(pairs.sort("id").drop("run_id"))


def test_a_rejected_row_keeps_its_reasons_and_its_raw_text(run: Run, bucket: str, model_server: ModelServer) -> None:
    put(bucket, "tasks/a.jsonl", lines(30))
    model_server.script("thing 7 ", [answer("no json")])
    report = run("--max-attempts-per-pair", "1")
    assert (report["accepted"], report["rejected"], report["reasons"]) == (29, 1, {"unparsable": 1})
    (rejected,) = read(bucket, "rejected").to_dicts()
    assert (rejected["id"], rejected["reasons"], rejected["text"]) == (7, ["unparsable"], "no json")
    assert sorted(read(bucket)["id"]) == [row for row in range(30) if row != 7]


def test_every_format_is_read_under_one_prefix_and_our_own_folders_are_not(run: Run, bucket: str) -> None:
    put(bucket, "a.jsonl", as_lines([{"task": "match one", "level": 1}, {"task": " match one "}, {"task": "  "}]))
    put(bucket, "b.csv", "task,site\nmatch two,x\n")
    put(bucket, "c.txt", "match three\n\nmatch four\n")
    frames.write_frame(pl.DataFrame({"task": ["match five"], "level": [5]}), f"{bucket}/deep/d.parquet")
    put(bucket, "e.json", "no source")
    report = run("--source", bucket)
    assert (report["descriptions"], report["repeated"], report["blank"], report["judged"]) == (5, 1, 2, 5)
    rows = read(bucket).sort("task").select("task", "level", "site").rows()
    assert rows == [
        ("match five", 5, None),
        ("match four", None, None),
        ("match one", 1, None),
        ("match three", None, None),
        ("match two", None, "x"),
    ]
    assert run("--source", bucket)["requests"] == 0


def test_a_source_column_with_a_name_of_ours_travels_beside_it(run: Run, bucket: str) -> None:
    put(
        bucket,
        "tasks/a.jsonl",
        as_lines([{"task": "match one", "input": "theirs", "language": "English", "Language": 3, "run_id": None}]),
    )
    run()
    (row,) = read(bucket).to_dicts()
    assert (row["input_source"], row["Language_source"], row["language"]) == ("theirs", 3, "English")
    assert row["input"] != "theirs"
    assert row["run_id"] is not None


def test_a_source_column_may_have_any_name_that_a_step_gives_one_of_its_own(
    run: Run, bucket: str, model_server: ModelServer
) -> None:
    named = {name for step in PREPARED for name in step}
    named |= {"number", "missing", "pairs", "spent", "planned", "reason", "asked", "found", "first", "judged_key"}
    own = dict.fromkeys(named | {"problem", "row", "shard", "split", "source.row"}, 3)
    put(bucket, "tasks/a.jsonl", as_lines({"task": f"match thing {row} with its name", **own} for row in range(2)))
    model_server.script("thing 1 ", [answer("no json"), answer("no json"), good])
    options = ("--fallback-models", "openai/y", "--max-attempts-per-pair")
    first = run(*options, "2")
    assert (first["accepted"], first["rejected"], first["shortfall"]) == (1, 2, 1)
    second = run(*options, "3")
    assert (second["requests"], second["accepted"], second["already_rejected"]) == (1, 1, 2)
    assert read(bucket).select(*own).rows() == [tuple(own.values())] * 2
    assert read(bucket, "rejected").select(*own).rows() == [tuple(own.values())] * 2


@pytest.mark.parametrize("body", ["task,id\n", ""])
def test_a_source_without_a_row_is_nothing_to_do(run: Run, bucket: str, body: str) -> None:
    put(bucket, "tasks/a.csv", body)
    report = run()
    assert (report["descriptions"], report["requests"], report["published"]) == (0, 0, False)


def test_odd_names_of_columns_and_of_a_destination_survive(run: Run, bucket: str) -> None:
    odd = {"my column": 1, "a,b;c": 2, "größe": 3, "a.b": 4, "x=y": {"z z": 5}}
    put(bucket, "tasks/a.jsonl", as_lines([{"task": "match one", **odd}]))
    report = run("--destination", f"{bucket}/out ü+b")
    pairs = pl.read_parquet(report["files"], storage_options=access.object_store_options())
    assert pairs.select(*odd).to_dicts() == [odd]


@pytest.mark.runs
def test_another_seed_asks_for_fresh_completions_of_what_is_missing(
    run: Run, bucket: str, model_server: ModelServer
) -> None:
    put(bucket, "tasks/a.jsonl", lines(3))
    model_server.script("thing 1 ", [answer("no json")])
    assert run("--max-attempts-per-pair", "1")["shortfall"] == 1
    model_server.forget()
    again = run("--max-attempts-per-pair", "1")
    assert (again["requests"], again["shortfall"]) == (0, 1)
    fresh = run("--max-attempts-per-pair", "1", "--seed", "43")
    assert (fresh["requests"], fresh["paid"], fresh["accepted"], fresh["shortfall"]) == (1, 1, 1, 0)
    assert sorted(read(bucket)["id"]) == [0, 1, 2]


def test_a_preview_shows_its_rows_and_publishes_nothing(run: Run, bucket: str, model_server: ModelServer) -> None:
    put(bucket, "tasks/a.jsonl", lines(50))
    preview = run("--limit", "4")
    assert (preview["descriptions"], preview["judged"], preview["published"], preview["files"]) == (4, 4, False, [])
    assert [pair["task"] for pair in preview["samples"]] == [f"match thing {row} with its name" for row in range(4)]
    assert table.open_table(f"{bucket}/out/pairs") is None
    whole = run()
    assert (whole["judged"], whole["cached"], whole["paid"]) == (50, 4, 46)
    assert len(model_server.prompts) == 50
    new = [f"match what came later, the {row}th" for row in range(3)]
    put(bucket, "tasks/b.jsonl", as_lines([{"task": task} for task in new]))
    preview = run("--limit", "2")
    assert (preview["descriptions"], preview["judged"]) == (2, 2)
    assert [pair["task"] for pair in preview["samples"]] == new[:2], "the first that are not served"
    assert preview["already_served"] == 50, "and those that it passes over are counted"


@pytest.mark.runs
def test_a_day_reads_its_own_source_and_says_when_that_has_changed(run: Run, bucket: str) -> None:
    source = ("--source", f"{bucket}/days/{{partition}}")
    for day in ("2026-01-01", "2026-01-02"):
        put(bucket, f"days/{day}/a.jsonl", as_lines([{"task": f"match what happened on {day}"}]))
        report = run(*source, "--partition", day)
        assert (report["partition"], report["judged"], report["source_changes"]) == (day, 1, [])
    put(bucket, "days/2026-01-01/a.jsonl", as_lines([{"task": "match something else"}]))
    put(bucket, "days/2026-01-01/b.jsonl", as_lines([{"task": "match a late one"}]))
    changed = run(*source, "--partition", "2026-01-01", "--on-published", "redo")
    assert changed["source_changes"] == [
        f"new: {bucket}/days/2026-01-01/b.jsonl",
        f"changed: {bucket}/days/2026-01-01/a.jsonl",
    ]
    days = read(bucket).group_by("partition").agg("task").sort("partition")
    assert [sorted(tasks) for tasks in days["task"]] == [
        ["match a late one", "match something else"],
        ["match what happened on 2026-01-02"],
    ]
    storage.delete_prefix(f"{bucket}/days/2026-01-01/b.jsonl")
    gone = run(*source, "--partition", "2026-01-01")
    assert gone["source_changes"] == [f"gone: {bucket}/days/2026-01-01/b.jsonl"]


@pytest.mark.runs
def test_a_redo_of_a_day_that_other_days_serve_leaves_no_rows_of_it(run: Run, bucket: str) -> None:
    first, second = (("--source", f"{bucket}/{day}", "--partition", day) for day in ("2026-01-01", "2026-01-02"))
    put(bucket, "2026-01-01/a.jsonl", lines(3))
    put(bucket, "2026-01-02/a.jsonl", lines(4, "other "))
    run(*first)
    run(*second)
    put(bucket, "2026-01-02/a.jsonl", lines(3))
    report = run(*second, "--on-published", "redo", "--limit", "3")
    assert (report["published"], read(bucket).height) == (False, 7)
    report = run(*second, "--on-published", "redo")
    assert (report["published"], report["already_served"], report["accepted"]) == (True, 3, 0)
    assert pl.read_parquet(report["files"], storage_options=access.object_store_options()).height == 0
    assert set(read(bucket)["partition"]) == {"2026-01-01"}
    assert run(*second, "--on-published", "redo")["published"] is False


@pytest.mark.runs
def test_pairs_and_languages_multiply_and_later_ones_are_added(
    run: Run, bucket: str, model_server: ModelServer
) -> None:
    put(bucket, "tasks/a.jsonl", lines(2))
    numbers = itertools.count(1000)

    def answer_anew(request: web.Request, sent: dict[str, Any]) -> Any:
        number = next(numbers)
        if "German" not in sent["messages"][0]["content"]:
            return answer(good_text(str(number)))(request, sent)
        pair = {
            "input": f"Wo gibt es am Bahnhof die Zeitung Nummer {number}?",
            "positive_document": f"Der Laden am Hafen verkauft jeden Morgen Ausgabe {number + 9000} und frisches Brot.",
        }
        return answer(json.dumps(pair))(request, sent)

    model_server.default = answer_anew
    run()
    more = run("--languages", "English", "German", "--pairs-per-task", "2")
    assert (more["requests"], more["already_served"], more["accepted"]) == (6, 0, 6)
    counts = read(bucket).group_by("id", "language").len().sort("id", "language").rows()
    assert counts == [(0, "English", 2), (0, "German", 2), (1, "English", 2), (1, "German", 2)]


@pytest.mark.runs
@pytest.mark.parametrize("sizes", [(3, 9), (20, 20)], ids=["three asked thrice", "twenty"])
def test_too_many_rejected_rows_publish_nothing_and_say_why(
    run: Run, bucket: str, model_server: ModelServer, capfd: pytest.CaptureFixture[str], sizes: tuple[int, int]
) -> None:
    rows, judged = sizes
    put(bucket, "tasks/a.jsonl", lines(rows))
    model_server.default = answer("no json")
    given = ["--source", f"{bucket}/tasks", "--destination", f"{bucket}/out", "--model-name", "openai/x"]
    assert main([*given, "--api-base", model_server.api_base]) == 1
    said = capfd.readouterr().err.splitlines()[-1]
    assert said.startswith(f"error: 100% of {judged} rows were rejected, above the allowed 50% (unparsable {judged}).")
    assert table.open_table(f"{bucket}/out/pairs") is None
    assert run("--max-rejected-share", "1")["cached"] == judged


@pytest.mark.runs
def test_a_column_in_another_case_of_letters_goes_on_under_the_published_name(run: Run, bucket: str) -> None:
    put(bucket, "tasks/a.jsonl", as_lines([{"task": "match a day with its name", "Input": "x", "note": "one"}]))
    run()
    put(bucket, "tasks/a.jsonl", as_lines([{"task": "match a week with its name", "INPUT": "y", "Note": "two"}]))
    run()
    rows = read(bucket).select("task", "note", "Input_source").sort("note").rows()
    assert rows == [("match a day with its name", "one", "x"), ("match a week with its name", "two", "y")]


def test_one_column_in_two_spellings_is_refused_before_anything_is_paid_for(
    bucket: str, model_server: ModelServer, prefect_api: str, capfd: pytest.CaptureFixture[str]
) -> None:
    put(bucket, "tasks/a.jsonl", as_lines([{"task": "match a day with its name", "note": "one"}]))
    put(bucket, "tasks/b.jsonl", as_lines([{"task": "match a week with its name", "Note": "two"}]))
    given = ["--source", f"{bucket}/tasks", "--destination", f"{bucket}/out", "--model-name", "openai/x"]
    assert main([*given, "--api-base", model_server.api_base]) == 1
    assert "the columns 'note' and 'Note'" in capfd.readouterr().err
    assert model_server.prompts == []
