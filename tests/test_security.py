"""Keys go nowhere but to where they belong, and nothing of a run goes to the network unasked."""

import errno
import json
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from aiohttp import web

from flows.allowed import VARIABLES, check_allowed, check_api_base
from flows.demo import demo_stack
from flows.screen import say_error
from tasks.clients import storage
from tasks.clients.concealment import conceal
from tasks.clients.outcome import CallFault
from tasks.clients.storage_errors import translate_error
from tasks.core.errors import UsageError
from tests.bucket import everything
from tests.model_server import ModelServer, answer, error
from tests.night import Night
from tests.s3_proxy import S3Proxy
from tests.zygote import Run

ALLOWED = {
    "the prefix itself": ("--source", "s3://bucket/tasks", True),
    "below it": ("--source", "s3://bucket/tasks/day", True),
    "beside it": ("--source", "s3://bucket/tasks-of-others", False),
    "above it": ("--source", "s3://bucket", False),
    "another bucket": ("--destination", "s3://other/tasks", False),
    "the second of the list": ("--destination", "s3://second", True),
    "a server": ("--api-base", "http://vllm.internal:8000/v1", True),
    "another port": ("--api-base", "http://vllm.internal:8001/v1", False),
    "another scheme": ("--api-base", "https://vllm.internal:8000/v1", False),
    "a longer host": ("--api-base", "http://vllm.internal:8000.example.com/v1", False),
    "a dot behind the host": ("--api-base", "http://vllm.internal.:8000/v1", False),
    "a user before the host": ("--api-base", "http://user@vllm.internal:8000/v1", False),
    "the host as a user": ("--api-base", "http://vllm.internal:8000@evil.example/v1", False),
    "another path": ("--api-base", "http://vllm.internal:8000/v11", False),
    "a host in other letters": ("--api-base", "http://VLLM.internal:8000/v1/", True),
}


@pytest.mark.parametrize("name", list(ALLOWED))
def test_a_listed_prefix_allows_what_lies_at_or_under_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES.values():
        monkeypatch.setenv(variable, "s3://bucket/tasks/, s3://second http://vllm.internal:8000/v1")
    option, uri, allowed = ALLOWED[name]
    if allowed:
        assert check_allowed(option, uri) == uri
    else:
        with pytest.raises(UsageError, match=VARIABLES[option]):
            check_allowed(option, uri)


@pytest.mark.parametrize("option", list(VARIABLES))
def test_an_empty_list_allows_nothing_and_none_allows_all(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_allowed(option, "s3://any/thing") == "s3://any/thing"
    monkeypatch.setenv(VARIABLES[option], "")
    with pytest.raises(UsageError):
        check_allowed(option, "s3://any/thing")


@pytest.mark.parametrize("api_base", ["", "http://127.0.0.1:8000/v1", "https://gateway.example/openai/v1/"])
def test_a_plain_address_is_taken(api_base: str) -> None:
    assert check_api_base(api_base) == api_base


@pytest.mark.parametrize(
    "api_base",
    [
        "http://user:password@host/v1",
        "http://host@evil.example/v1",
        "https://host/v1?key=k",
        "https://host/v1#x",
        "https://host/v1/../../x",
        "https://ho st/v1",
        "https://host\\@evil.example",
        "https://host/%2e%2e",
        "ftp://host/v1",
        "host/v1",
        "http://",
        "http://host:99999/",
    ],
)
def test_an_address_with_a_key_or_a_trick_in_it_is_refused(api_base: str) -> None:
    with pytest.raises(UsageError, match="--api-base must be"):
        check_api_base(api_base)


def test_the_values_of_secret_variables_are_concealed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-0123456789")
    monkeypatch.setenv("SHORT_TOKEN", "openai")
    assert conceal("openai refuses sk-0123456789, yes sk-0123456789") == (
        "openai refuses [SOME_API_KEY], yes [SOME_API_KEY]"
    )


def test_whatever_ends_a_run_is_shown_on_one_line_without_keys(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-0123456789")
    say_error("it failed:\n  Authorization: Bearer sk-0123456789\r\n  ^")
    assert capsys.readouterr().err == "error: it failed: Authorization: Bearer [SOME_API_KEY] ^\n"
    full = OSError(errno.ENOSPC, "No space left on device", "/tmp/sk-0123456789")
    assert "sk-0123456789" not in str(translate_error(full, "s3://bucket/x"))
    assert CallFault("transient", "said\nsk-0123456789").message == "said [SOME_API_KEY]"


# Their names are what libraries read; each value is found nowhere else.
CANARIES = {
    name: f"canary-{number}-5f2c9d7e1b"
    for number, name in enumerate(
        ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN")
    )
}


def echo_key(request: web.Request, body: dict[str, object]) -> web.Response:
    """Refuse the key as some gateways do: by saying it."""
    answered: web.Response = error(401, f"the key {request.headers['Authorization']} is not known")(request, body)
    return answered


def prefects_database() -> bytes:
    database = Path(os.environ["PREFECT_HOME"]) / "pairmill.db"
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        dumped = "\n".join(connection.iterdump()).encode()
    connection.close()
    return dumped


def find_leaks(
    night: Night, runs: Sequence[Run], more: Mapping[str, bytes] | None = None, *, expected: str
) -> set[tuple[str, str]]:
    """Return which key is where in what the runs have written, and `more`; what is `expected` is found for sure."""
    written = {**everything(night.bucket), **(more or {})}
    for run in runs:
        written[str(run.out)] = run.out.read_bytes() + run.said.encode()
    for folder in (night.state, Path(os.environ["PREFECT_HOME"])):
        for path in folder.rglob("*"):
            with suppress(IsADirectoryError, FileNotFoundError):  # some come and go
                written[str(path)] = path.read_bytes()
    written["the database"] = prefects_database()
    assert night.destination.encode() in written["the database"], "a search that finds nothing proves nothing"
    assert any(expected in where or expected.encode() in data for where, data in written.items())
    return {(name, where) for where, data in written.items() for name, key in CANARIES.items() if key.encode() in data}


@pytest.mark.faults
@pytest.mark.parametrize("shown", ["1", "0"])
def test_texts_are_in_prefects_database_only_where_they_may_be(
    nights: Callable[[str], Night], prefect_api: str, shown: str
) -> None:
    night, canary = nights("out"), f"canary{shown}"
    texts = [f"match the {canary} description {row} with its name" for row in range(20)]
    storage.write_bytes(f"{night.source}/a.jsonl", "\n".join(json.dumps({"task": text}) for text in texts).encode())
    night.serve(0.0)
    # One description is rejected for good, and so among what is missing.
    night.model_server.script("description 7", [answer(f"{canary} is no json")])
    pair = {"input": f"the {canary} input of the harbour", "positive_document": "our station sells tickets every day"}
    night.model_server.script("description 8", [answer(json.dumps(pair))])
    run = night.start(environment={"PAIRMILL_SHOW_TEXTS": shown})
    assert run.wait() == 0, run.said
    assert (run.report["accepted"], run.report["shortfalls"][0]["task"]) == (19, texts[7])
    database = prefects_database()
    assert run.report["run_id"].encode() in database, "a search that finds nothing proves nothing"
    assert (canary.encode() in database) == (shown == "1")


@pytest.mark.faults
def test_no_key_is_in_anything_that_a_run_writes(
    nights: Callable[[str], Night], prefect_api: str, tmp_path: Path
) -> None:
    night = nights("out")
    night.put(0, 30)
    night.serve(0.0)
    runs = [night.start(environment=CANARIES)]
    assert runs[0].wait() == 0, runs[0].said
    assert night.model_server.keys[0] == f"Bearer {CANARIES['OPENAI_API_KEY']}"
    for options in ([], ["--debug"]):
        night.model_server.default = echo_key
        night.model_server.script("spoiled", [echo_key])
        runs.append(night.start("--seed", "7", "--on-published", "redo", *options, environment=CANARIES))
        assert runs[-1].wait() == 1
        assert "[OPENAI_API_KEY]" in runs[-1].said
    night.serve(0.0)
    night.proxy.fail("/pairs/", 403, "SignatureDoesNotMatch")
    runs.append(night.start("--seed", "8", "--on-published", "redo", environment=CANARIES))
    assert runs[-1].wait() == 1
    night.proxy.forget()

    assert find_leaks(night, runs, expected=night.destination) == set()


@pytest.mark.faults
def test_no_key_leaves_for_an_address_that_is_not_allowed(nights: Callable[[str], Night]) -> None:
    night = nights("out")
    night.put(0, 3)
    night.serve(0.0)
    refused = night.start(environment={"PAIRMILL_ALLOWED_API_BASES": "https://gateway.example/v1"})
    assert refused.wait() == 2
    assert "PAIRMILL_ALLOWED_API_BASES" in refused.said
    elsewhere = night.start(environment={"PAIRMILL_ALLOWED_DESTINATIONS": "s3://elsewhere/x"})
    assert elsewhere.wait() == 2
    source = night.start(environment={"PAIRMILL_ALLOWED_SOURCES": "s3://elsewhere/x"})
    assert source.wait() == 2
    assert "PAIRMILL_ALLOWED_SOURCES" in source.said
    for like in ("127.0.0.1.", "user@127.0.0.1"):
        listed = night.model_server.api_base.replace("127.0.0.1", like)
        assert night.start(environment={"PAIRMILL_ALLOWED_API_BASES": listed}).wait() == 2
    assert night.model_server.keys == []
    assert not [name for name in everything(night.bucket) if not name.startswith("tasks-")]
    allowed = night.start(environment={"PAIRMILL_ALLOWED_API_BASES": night.model_server.api_base})
    assert allowed.wait() == 0, allowed.said


def our_listeners() -> dict[int, str]:
    """Return the host of each port that this process or one it started listens on, as the kernel writes it."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    ours, found = {os.getpid()}, 0
    while found < len(ours):
        found = len(ours)
        ours |= {pid for pid, parent in parents.items() if parent in ours}
    sockets = set()
    for pid in ours:
        with suppress(OSError):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    sockets.add(os.readlink(link))
    listening = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            address, state, inode = (line.split()[at] for at in (1, 3, 9))
            if state == "0A" and f"socket:[{inode}]" in sockets:
                host, port = address.split(":")
                listening[int(port, 16)] = host
    return listening


@pytest.mark.faults
def test_servers_of_ours_listen_on_loopback_only(
    s3_endpoint: str, prefect_api: str, model_server: ModelServer, s3_proxy: S3Proxy, tmp_path: Path
) -> None:
    with demo_stack(tmp_path / "bucket") as stand_in:
        urls = [s3_endpoint, prefect_api, model_server.api_base, s3_proxy.url]
        urls += [os.environ["AWS_ENDPOINT_URL"], stand_in]
        listening = our_listeners()
    assert {int(url.split(":")[2].split("/")[0]) for url in urls} <= set(listening)
    assert set(listening.values()) == {"0100007F"}
