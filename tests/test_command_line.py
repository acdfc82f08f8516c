"""The command line as its user meets it: one clear line for whatever is wrong."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import polars as pl
import pytest

from flows.demo import DESTINATION, alone
from flows.order_models import STAND_IN
from flows.run import main
from flows.servers import ROOT, serve
from tasks.clients import storage, table
from tests import model_server as models
from tests.model_server import ModelServer
from tests.s3_proxy import S3Proxy


@dataclass
class Bench:
    """A bucket with sources of every kind, and a model."""

    bucket: str
    model: ModelServer
    proxy: S3Proxy
    monkeypatch: pytest.MonkeyPatch
    endpoint: str

    def objects(self) -> set[str]:
        """Return what the bucket holds, whatever the environment says of its address."""
        found = boto3.client("s3", endpoint_url=self.endpoint).list_objects_v2(Bucket=self.bucket.removeprefix("s3://"))
        return {item["Key"] for item in found["Contents"]}

    def options(self, changes: dict[str, str | None]) -> list[str]:
        given = {
            "--source": "{bucket}/tasks",
            "--destination": "{bucket}/out",
            "--model-name": "openai/x",
            "--api-base": self.model.api_base,
        } | changes
        pairs = [(name, value) for name, value in given.items() if value is not None]
        return [part.format(bucket=self.bucket) for pair in pairs for part in pair]


SOURCES = {
    "tasks/a.jsonl": b'{"task": "match a question with its answer", "id": 1}\n',
    "texts/a.jsonl": b'{"task": "match a question with its answer", "id": "one"}\n',
    "csv/a.csv": b"title,id\nx,1\n",
    "broken/a.jsonl": b'{"task": "x"}\n{"task": nope}\n',
    "other/a.json": b"{}",
}


@pytest.fixture(scope="module")
def _proxy(s3_endpoint: str) -> Iterator[S3Proxy]:
    with serve("tests.s3_proxy", "{port}", s3_endpoint) as server:
        server.wait()
        yield S3Proxy(server.url)


@pytest.fixture
def bench(
    bucket: str,
    model_server: ModelServer,
    prefect_api: str,
    _proxy: S3Proxy,
    monkeypatch: pytest.MonkeyPatch,
    s3_endpoint: str,
) -> Bench:
    _proxy.forget()
    for key, body in SOURCES.items():
        storage.write_bytes(f"{bucket}/{key}", body)
    return Bench(bucket, model_server, _proxy, monkeypatch, s3_endpoint)


def refuse_access(bench: Bench) -> None:
    bench.monkeypatch.setenv("AWS_ENDPOINT_URL", bench.proxy.url)
    bench.proxy.fail(" ", 403, "InvalidAccessKeyId")


def refuse_key(bench: Bench) -> None:
    bench.model.default = models.error(401, "Incorrect API key provided", "invalid_api_key")


def forget_key(bench: Bench) -> None:
    bench.monkeypatch.delenv("OPENAI_API_KEY")


def know_no_model(bench: Bench) -> None:
    bench.model.default = models.error(404, "The model `x` does not exist", "model_not_found")


def publish_other_types(bench: Bench) -> None:
    row = {"partition": ["2026-01-01"], "task": ["x"], "language": ["English"], "description_hash": ["0" * 32]}
    rows = pl.DataFrame({**row, "request_key": ["0"], "id": ["text"]})
    table.ensure_table(f"{bench.bucket}/out/pairs", rows)


def nothing(_: Bench) -> None:
    """Change nothing."""


@dataclass(frozen=True)
class Bad:
    """What is wrong, the exit code, and what the one line says."""

    code: int
    said: tuple[str, ...]
    options: dict[str, str | None] = field(default_factory=dict)
    world: Callable[[Bench], None] = nothing
    calls: int = 0


BAD = {
    "no source bucket": Bad(1, ("There is no bucket 'no-such-bucket'",), {"--source": "s3://no-such-bucket/x"}),
    "no destination bucket": Bad(1, ("no bucket 'no-such-bucket'",), {"--destination": "s3://no-such-bucket/x"}),
    "empty prefix": Bad(
        1, ("No task descriptions under", "nothing lies there. Check --source"), {"--source": "{bucket}/empty"}
    ),
    "no known format": Bad(1, ("none of 1 object there ends in", ".jsonl"), {"--source": "{bucket}/other"}),
    "wrong credentials": Bad(1, ("refuses access to s3://", "Check the credentials"), world=refuse_access),
    "no column": Bad(1, ("csv/a.csv", "no column 'task'", "'title', 'id'"), {"--source": "{bucket}/csv"}),
    "broken line": Bad(1, ("broken/a.jsonl, line 2", "not valid JSON"), {"--source": "{bucket}/broken"}),
    "language": Bad(2, ("'Germn'", "Nearest: German"), {"--languages": "Germn"}),
    "pairs below one": Bad(2, ("--pairs-per-task", "greater than or equal to 1"), {"--pairs-per-task": "-1"}),
    "limit no number": Bad(2, ('"x" for --limit', "Give a whole number"), {"--limit": "x"}),
    "limit below zero": Bad(2, ("--limit", "greater than or equal to 0"), {"--limit": "-5"}),
    "no number": Bad(2, ("--seed", "many"), {"--seed": "many"}),
    "share above one": Bad(2, ("less than or equal to 1",), {"--max-rejected-share": "1.5"}),
    "no such choice": Bad(2, ('"replace"', "redo"), {"--on-published": "replace"}),
    "no such day": Bad(2, ("2026-02-30", "YYYY-MM-DD"), {"--partition": "2026-02-30"}),
    "no day": Bad(2, ("--partition. Write a day as YYYY-MM-DD.",), {"--partition": "../x"}),
    "wrong key": Bad(1, ("refuses the key", "Set the right API key"), world=refuse_key, calls=1),
    "wrong model": Bad(1, ("openai/x", "no such model or address", "--model-name"), world=know_no_model, calls=1),
    "no key": Bad(1, ("set OPENAI_API_KEY",), world=forget_key),
    "unknown scheme": Bad(
        2, ("error: --source is 'gs://bucket/x'", "s3://bucket/prefix"), {"--source": "gs://bucket/x"}
    ),
    "a path": Bad(2, ("error: --destination is '/data/out'",), {"--destination": "/data/out"}),
    "no model": Bad(2, ("Missing: --model-name",), {"--model-name": None}),
    "only a destination": Bad(2, ("Missing: --source, --model-name",), {"--model-name": None, "--source": None}),
    "unknown provider": Bad(2, ("'nope/x'", "provider/model"), {"--model-name": "nope/x"}),
    "the stand-in": Bad(2, ("is no model",), {"--model-name": f"openai/{STAND_IN}"}),
    "type clash": Bad(1, ("'id' is Int64", "holds it as String"), world=publish_other_types),
    "unknown option": Bad(2, ("--sorce",), {"--sorce": "x"}),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_input_is_one_clear_line_and_leaves_nothing(
    bench: Bench, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    bad = BAD[name]
    given = bench.options(bad.options)
    bad.world(bench)
    before = bench.objects()
    code = main([*given, "--output", "json"])
    out, said = capfd.readouterr()
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert (code, out, len(errors)) == (bad.code, "", 1), said
    assert said.splitlines()[-1] == errors[0]
    assert all(part in errors[0] for part in bad.said), errors[0]
    assert "Traceback" not in said
    assert len(bench.model.prompts) == bad.calls
    left = {"/".join(key.split("/")[:2]) for key in bench.objects() - before}
    assert left == ({"out/journal"} if bad.calls else set())


@pytest.mark.runs
def test_an_endpoint_where_nothing_answers_is_one_clear_line(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    bench.monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert main(bench.options({})) == 1
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert [("Nothing answers at http://127.0.0.1:9" in line, "AWS_ENDPOINT_URL" in line) for line in errors] == [
        (True, True)
    ]


@pytest.mark.parametrize("command", ["export", "maintain"])
def test_a_storage_is_asked_for_the_bucket_before_anything_is_tried_again_and_again(bench: Bench, command: str) -> None:
    bench.monkeypatch.setenv("AWS_ENDPOINT_URL", bench.proxy.url)
    bench.proxy.forget()
    bench.proxy.fail(" ", 403, "AccessDenied")
    assert main([command, "--destination", f"{bench.bucket}/out"]) == 1
    (asked,) = bench.proxy.seen()
    bench.proxy.forget()
    assert (asked["method"], asked["path"].strip("/")) == ("GET", bench.bucket.removeprefix("s3://"))


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", "flows.run", *arguments]
    return subprocess.run(line, check=False, cwd=ROOT, env=os.environ, capture_output=True, text=True)


def test_a_mistyped_sub_command_starts_nothing(s3_endpoint: str) -> None:
    ended = run("backfil", "--destination", "s3://bucket/out")
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: 'backfil' is neither a sub-command nor an option. Did you mean backfill?")


LACKING = {
    ("backfill",): "Missing: --start-date, --end-date. See python -m flows.run backfill --help.",
    ("backfill", "--start-date=2026-11-01"): "Missing: --end-date. See python -m flows.run backfill --help.",
    ("--output", "json", "brainstorm", "--descriptions"): (
        "--descriptions needs a value. See python -m flows.run brainstorm --help."
    ),
    ("--source",): "--source needs a value. See python -m flows.run --help.",
}


@pytest.mark.parametrize("given", list(LACKING))
def test_what_is_missing_is_named_with_the_help_that_explains_it(
    given: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(given) == 2
    assert capsys.readouterr().err == f"error: {LACKING[given]}\n"


def test_tracebacks_change_neither_the_exit_code_nor_the_last_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    options = ["--source", "gs://bucket/tasks", "--destination", "s3://bucket/out", "--model-name", "openai/x"]
    assert main(options) == 2
    alone = capsys.readouterr().err
    assert main([*options, "--debug"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert said.endswith(alone)


@pytest.mark.runs
def test_of_two_first_runs_at_once_the_second_waits_until_the_database_of_the_first_is_made(tmp_path: Path) -> None:
    starts = "from flows.servers import start_prefect_api\nserver = start_prefect_api()\nprint('begun', flush=True)\n"
    waits = "input()\nserver.wait()\nprint('up', flush=True)\ninput()\nserver.child.kill()"
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    environment |= {"PREFECT_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", starts + waits]
    with (
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first,
        (tmp_path / "pairmill.lock").open("wb") as second,
    ):
        assert first.stdin
        assert first.stdout
        assert first.stdout.readline() == "begun\n"
        with pytest.raises(BlockingIOError):
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        first.stdin.write("\n")
        first.stdin.flush()
        assert first.stdout.readline() == "up\n"
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert (tmp_path / "pairmill.db").exists()
        first.stdin.write("\n")
        first.stdin.flush()
        assert first.wait() == 0


def test_a_second_demo_says_at_once_that_one_is_running(capsys: pytest.CaptureFixture[str]) -> None:
    with alone():
        assert main([]) == 1
    _, refused = capsys.readouterr().err.splitlines()  # the demo's line, and nothing that starts
    assert refused == "error: The demo is running already. Wait for it, or end it, and run again."


def test_the_command_line_prints_the_report_alone_on_standard_output(
    bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*bench.options({}), "--output", "json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert (report["judged"], report["destination"]) == (1, f"{bench.bucket}/out")
    assert DESTINATION not in json.dumps(report)


def test_the_summary_says_what_a_person_wants_to_know(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    bench.model.script("question", [models.answer("[red]no json[/red]")])
    assert main(bench.options({"--max-rejected-share": "1"})) == 0
    out = capfd.readouterr().out
    for part in (
        "published",
        "3 rejected",
        "unparsable",
        "100.0%",
        "unknown",
        f"{bench.bucket}/out/pairs",
        "import polars",
    ):
        assert part in out, out
