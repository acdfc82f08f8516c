"""Erasing one description beside runs, previews and compactions: each waits for the other."""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks.clients import compaction, storage
from tasks.clients import lease as lease_module
from tasks.clients.lease import hold_lease
from tasks.core.errors import StorageError
from tasks.core.layout import Layout
from tasks.forget import forget_description
from tests.bucket import everything
from tests.night import Night
from tests.s3_proxy import S3Proxy
from tests.segments import find_texts, write_segment
from tests.zygote import LEASE_SECONDS, Run

SECRET = "match a secret with its keeper"


@pytest.mark.faults
@pytest.mark.parametrize("kept", ["plan_lease", "lease"])
def test_a_run_that_begins_while_a_description_is_being_forgotten_leaves_nothing_of_it(
    nights: Callable[[str], Night], kept: str
) -> None:
    night = nights("out")
    night.serve(0.0)
    layout = Layout(night.destination)
    lines = [json.dumps({"task": text}) for text in (SECRET, "match a lock with its key")]
    source = f"{layout.destination}/tasks"
    storage.write_bytes(f"{source}/a.jsonl", "\n".join(lines).encode())

    def wait_for(*wanted: str) -> None:
        """Wait until these requests were made, one after the other."""
        left = list(wanted)
        while left:
            for seen in night.proxy.seen():
                left = left[1:] if left and left[0] in f"{seen['method']} {seen['path']}" else left
            time.sleep(0.05)

    # Held up before it lists the sources, and when it has: before it erases.
    with hold_lease(getattr(layout, kept), "test"):
        forgetting = night.start_upkeep("--forget", SECRET)
        wait_for(f"PUT {getattr(layout, kept).removeprefix('s3:/')}")
        given = ["--source", source, "--destination", layout.destination, "--model-name", "openai/x"]
        run = night.zygote.start([*given, "--api-base", night.model_server.api_base], night.environment)
        wait_for(f"GET {source.removeprefix('s3:/')}/a.jsonl", f"PUT {layout.plan_lease.removeprefix('s3:/')}")
    assert [forgetting.wait(), run.wait()] == [0, 0], forgetting.said + run.said
    assert [name for name, data in everything(night.bucket).items() if b"secret" in data] == []
    assert not list(night.state.rglob("*.jsonl"))


@pytest.fixture
def previewed(nights: Callable[[str], Night]) -> Night:
    """Return a night whose source, a part of its destination, holds a description to forget."""
    night = nights("out")
    night.serve(0.0)
    lines = [json.dumps({"task": text}) for text in (SECRET, "match a lock with its key")]
    storage.write_bytes(f"{night.destination}/tasks/a.jsonl", "\n".join(lines).encode())
    return night


def preview(night: Night) -> Run:
    given = ["--source", f"{night.destination}/tasks", "--destination", night.destination, "--model-name", "openai/x"]
    given += ["--api-base", night.model_server.api_base, "--limit", "5"]
    return night.zygote.start(given, night.environment)


def leases_of_previews(night: Night) -> list[str]:
    staged = [item.uri for item in storage.list_objects(f"{night.destination}/staging")]
    return [uri for uri in staged if uri.startswith(Layout(night.destination).run_leases[1])]


def check_forgotten(night: Night, *runs: Run) -> None:
    assert [run.wait() for run in runs] == [0] * len(runs), [run.said for run in runs]
    assert [name for name, data in everything(night.bucket).items() if b"secret" in data] == []
    assert not list(night.state.rglob("*.jsonl"))


@pytest.mark.faults
def test_a_description_is_forgotten_after_a_preview_that_is_at_work(previewed: Night) -> None:
    previewed.model_server.held = True
    at_work = preview(previewed)
    while not previewed.model_server.prompts:
        time.sleep(0.05)
    (held,) = leases_of_previews(previewed)
    forgetting = previewed.start_upkeep("--forget", SECRET)
    while not previewed.proxy.creates(held):
        time.sleep(0.05)
    previewed.model_server.held = False
    check_forgotten(previewed, at_work, forgetting)


@pytest.mark.faults
def test_a_preview_that_begins_while_a_description_is_being_forgotten_waits(previewed: Night) -> None:
    layout = Layout(previewed.destination)
    with hold_lease(layout.lease, "test", term=LEASE_SECONDS):
        forgetting = previewed.start_upkeep("--forget", SECRET)
        while not previewed.proxy.creates(layout.lease):
            time.sleep(0.05)
        waiting = preview(previewed)
        while not previewed.proxy.creates(layout.forget_lease):
            time.sleep(0.05)
        assert leases_of_previews(previewed) == [], "or each waits for the other"
    check_forgotten(previewed, forgetting, waiting)
    assert len(previewed.model_server.prompts) == 1


def test_who_lost_a_lease_erases_no_further(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "TERM_SECONDS", LEASE_SECONDS)
    layout = Layout(f"{bucket}/out")
    listed, text = layout.journal("list"), json.dumps(["news"])
    write_segment(listed, "a", ("one", text, 1))
    storage.write_bytes(f"{listed}/recipe.json", b'["Make a list about {topic}", 20, {}]')
    others = set(threading.enumerate())
    with ThreadPoolExecutor(1) as pool:
        with hold_lease(compaction.lease_of(listed), "weekly"):
            forgetting = pool.submit(forget_description.fn, layout, "me", "news")
            while storage.find_bytes(layout.plan_lease) is None or storage.find_bytes(layout.lease) is None:
                time.sleep(0.05)
            other = b'{"owner": "another run", "token": "t", "beat": 1}'
            storage.write_bytes(layout.plan_lease, other)
            # What keeps a lease ends when it finds another's.
            keepers = {thread for thread in threading.enumerate() if thread.name == "lease"} - others
            while all(keeper.is_alive() for keeper in keepers):
                time.sleep(0.05)
        with pytest.raises(StorageError, match=r"plan\.lease .*another run may hold it"):
            forgetting.result()
    assert find_texts(listed, "one") == {"one": text}
    assert storage.read_bytes(layout.plan_lease) == other


def test_a_description_is_forgotten_after_a_compaction_that_is_under_way(
    bucket: str, s3_proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(f"{bucket}/out")
    listed = layout.journal("list")
    write_segment(listed, "a", ("one", '["news"]', 1))
    storage.write_bytes(f"{listed}/recipe.json", b'["Make a list about {topic}", 20, {}]')
    with ThreadPoolExecutor(1) as pool:
        with hold_lease(compaction.lease_of(listed), "weekly"):
            monkeypatch.setenv("AWS_ENDPOINT_URL", s3_proxy.url)
            forgetting = pool.submit(forget_description.fn, layout, "me", "news")
            while not s3_proxy.creates(compaction.lease_of(listed)):
                assert not forgetting.done()
            # What it has read it writes again, under another name.
            write_segment(listed, "merged", ("one", '["news"]', 1))
        forgetting.result()
    assert find_texts(listed, "one") == {}
