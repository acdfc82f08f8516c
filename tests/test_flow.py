import json
import os
import subprocess
import sys
from typing import Any

import boto3
import polars as pl
import pytest

from flows.servers import ROOT
from tasks.clients import storage, table
from tests.model_server import ModelServer, answer

ROWS = 200


@pytest.fixture
def run(bucket: str, model_server: ModelServer, prefect_api: str) -> Any:
    def command(*options: str, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
        given = ["--source", f"{bucket}/tasks", "--destination", f"{bucket}/out", "--model-name", "openai/x"]
        given += ["--api-base", model_server.api_base, "--output", "json", *options]
        environment = {**os.environ, "PREFECT_API_URL": prefect_api, **(env or {})}
        line = [sys.executable, "-m", "flows.run", *given]
        return subprocess.run(line, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)

    return command


def put(bucket: str, key: str, body: str) -> None:
    boto3.client("s3").put_object(Bucket=bucket.removeprefix("s3://"), Key=key, Body=body.encode())


def lines(rows: int) -> str:
    return "\n".join(json.dumps({"task": f"match thing {row} with its name", "id": row}) for row in range(rows))


def test_a_bucket_becomes_a_table_and_nothing_is_paid_for_twice(
    run: Any, bucket: str, model_server: ModelServer
) -> None:
    put(bucket, "tasks/a.jsonl", lines(ROWS))
    model_server.script("thing 7 ", [answer("no json")])
    first = json.loads(run().stdout)
    assert (first["judged"], first["accepted"], first["rejected"]) == (ROWS + 2, ROWS - 1, 3)
    assert first["reasons"] == {"unparsable": 3}
    pairs = table.scan(table.open_table(f"{bucket}/out/pairs"))
    assert pairs is not None
    rows = pairs.collect()
    assert sorted(rows["id"]) == [row for row in range(ROWS) if row != 7]
    files = pl.read_parquet(first["files"], storage_options=storage.object_store_options())
    assert sorted(files["id"]) == sorted(rows["id"])
    paid = len(model_server.prompts)
    second = json.loads(run().stdout)
    assert (second["requests"], second["already_served"], second["published"]) == (0, ROWS - 1, False)
    redo = json.loads(run("--on-published", "redo").stdout)
    assert (redo["judged"], redo["cached"], redo["paid"]) == (ROWS + 2, ROWS + 2, 0)
    assert len(model_server.prompts) == paid


BAD = {
    "there is no bucket": (["--source", "s3://no-such-bucket/x"], 1, "There is no bucket"),
    "language": (["--languages", "Germn"], 2, "German"),
    "negative": (["--pairs-per-task", "-1"], 2, "greater than or equal to 1"),
    "sub-command": (["backfil"], 2, "neither a sub-command"),
    "provider": (["--model-name", "nope/x"], 2, "provider/model"),
    "missing column": (["--source", "{bucket}/csv"], 1, "'title'"),
    "broken line": (["--source", "{bucket}/broken"], 1, "line 2"),
    "empty": (["--source", "{bucket}/empty"], 1, "No task descriptions"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_input_is_one_clear_line_and_costs_nothing(
    run: Any, bucket: str, model_server: ModelServer, name: str
) -> None:
    put(bucket, "tasks/a.jsonl", lines(3))
    put(bucket, "csv/a.csv", "title\nx\n")
    put(bucket, "broken/a.jsonl", '{"task": "x"}\n{"task": nope}\n')
    options, code, said = BAD[name]
    given = [option.format(bucket=bucket) for option in options]
    named = {option for option in given if option.startswith("--")}
    defaults = {"--source": f"{bucket}/tasks", "--model-name": "openai/x"}
    line = ["--destination", f"{bucket}/out", "--api-base", model_server.api_base, *given]
    line += [part for option, value in defaults.items() if option not in named for part in (option, value)]
    ended = subprocess.run(
        [sys.executable, "-m", "flows.run", *line],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ,
    )
    errors = [text for text in ended.stderr.splitlines() if text.startswith("error: ")]
    assert (ended.returncode, len(errors)) == (code, 1), ended.stderr
    assert said in errors[0]
    assert model_server.prompts == []
