"""Upkeep of a destination: compaction, expiry, and erasing one description."""

import html
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import polars as pl
import pytest

from flows.maintain import check_maintain
from tasks.clients import compaction, frames, storage, table
from tasks.clients import lease as lease_module
from tasks.clients.batch_records import join_keys
from tasks.clients.lease import hold_lease
from tasks.clients.lookup import find_paid, find_segments
from tasks.core.columns import JOURNAL
from tasks.core.errors import StorageError, UsageError
from tasks.core.layout import Layout
from tasks.core.linting import lists_description
from tasks.core.prompts import build_prompt
from tasks.core.requests import Recipe, hash_descriptions, request_keys
from tasks.core.showing import shown
from tasks.core.upkeep import UpkeepReport, upkeep_headline
from tasks.forget import forget_description
from tasks.maintain import _compact_journal, _expire_staging
from tests.bucket import read_table
from tests.night import Night
from tests.s3_proxy import S3Proxy
from tests.zygote import LEASE_SECONDS, Run

NOW = datetime.now(UTC)
# When completions were paid for, long before their segments are written.
PAID = NOW - timedelta(hours=1)


def segment(uri: str, name: str, *completions: tuple[str, str, int]) -> None:
    """Write a segment of (key, text, seconds after PAID)."""
    rows = [
        {"request_key": key, "text": text, "completed_at": PAID + timedelta(seconds=at)}
        for key, text, at in completions
    ]
    frames.write_frame(pl.DataFrame(rows, schema=JOURNAL), f"{uri}/segments/{name}.parquet")


def find(uri: str, *keys: str) -> dict[str, str]:
    found = find_paid(uri, pl.LazyFrame({"request_key": keys}))
    return dict(found.select("request_key", "text").iter_rows())


def names(uri: str) -> list[str]:
    return [item.uri.removeprefix(f"{uri}/").partition("/")[0] for item in storage.list_objects(uri)]


@pytest.fixture
def recipe(bucket: str) -> str:
    uri = f"{bucket}/out/journal/recipe=1"
    segment(uri, "c", ("k3", "third", 3), ("k1", "first", 1))
    segment(uri, "a", ("k1", "later", 2), ("k2", "second", 2))
    return uri


def test_a_look_up_finds_the_same_before_during_and_after_compaction(recipe: str) -> None:
    whole = {"k1": "first", "k2": "second", "k3": "third"}
    assert find(recipe, *whole) == whole
    assert compaction.compact_recipe(recipe, "me", NOW) == compaction.Compaction(merged=2)
    assert find(recipe, *whole) == whole
    assert names(recipe).count("segments") == 2, "a reader may have listed them before"
    done = compaction.compact_recipe(recipe, "me", NOW + timedelta(days=1, hours=1))
    assert done == compaction.Compaction(deleted=2)
    assert find(recipe, *whole) == whole
    assert names(recipe) == ["compacted"]


def test_a_compacted_file_is_sorted_and_holds_each_key_once(recipe: str) -> None:
    compaction.compact_recipe(recipe, "me", NOW)
    (file,) = [uri for uri in find_segments(recipe) if "/compacted/" in uri]
    rows = frames.read_frame(file)
    assert rows["request_key"].to_list() == ["k1", "k2", "k3"]
    assert rows.schema == pl.Schema(JOURNAL)


def test_new_segments_are_merged_with_what_was_merged_before(recipe: str) -> None:
    compaction.compact_recipe(recipe, "me", NOW)
    assert compaction.compact_recipe(recipe, "me", NOW) == compaction.Compaction()
    segment(recipe, "d", ("k4", "fourth", 4))
    assert compaction.compact_recipe(recipe, "me", NOW) == compaction.Compaction(merged=2)
    compaction.compact_recipe(recipe, "me", NOW + timedelta(days=1, hours=1))
    assert find(recipe, "k1", "k2", "k3", "k4") == {"k1": "first", "k2": "second", "k3": "third", "k4": "fourth"}


def test_completions_that_are_too_old_are_left_out_and_others_kept(recipe: str) -> None:
    compaction.compact_recipe(recipe, "me", NOW, oldest=PAID + timedelta(seconds=2.5))
    compaction.compact_recipe(recipe, "me", NOW + timedelta(days=1, hours=1))
    assert find(recipe, "k1", "k2", "k3") == {"k3": "third"}


def test_what_is_kept_of_batches_goes_with_the_completions(bucket: str) -> None:
    layout = Layout(f"{bucket}/out")
    records = layout.batches("r", "s3://b/tasks")
    for kind in ("keys", "json", "sent.json", "done.json"):
        storage.write_bytes(f"{records}/name.{kind}", b"{}")
    later = datetime.now(UTC) + timedelta(days=3)
    for days, left in ((0, 4), (4, 4), (2, 0)):
        _compact_journal(layout, "me", later, days)
        assert len(storage.list_objects(records)) == left


def everything(bucket: str) -> dict[str, bytes]:
    """Return every object of the bucket, Parquet unpacked."""
    s3, name = boto3.client("s3"), bucket.removeprefix("s3://")
    found = {}
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=name):
        for item in page.get("Contents", []):
            data = s3.get_object(Bucket=name, Key=item["Key"])["Body"].read()
            if item["Key"].endswith(".parquet"):
                data += pl.read_parquet(data).write_ndjson().encode()
            found[item["Key"]] = data
    return found


@pytest.mark.faults
def test_maintenance_changes_nothing_that_a_night_sees_and_a_forgotten_description_is_nowhere(
    nights: Callable[[str], Night],
) -> None:
    night = nights("out")

    def maintain(*options: str) -> dict[str, Any]:
        run = night.start_upkeep(*options)
        assert run.wait() == 0, run.said
        return run.report

    night.serve(0.0)
    for first in (0, 60):
        night.put(first, 60)
        night.finish()
    before = {name: night.rows(name).sort("request_key") for name in ("pairs", "rejected")}
    assert any("merged" in str(line) for line in maintain()["done"])
    for name, rows in before.items():
        assert rows.equals(night.rows(name).sort("request_key"))
    paid = len(night.model_server.prompts)
    assert night.finish()["requests"] == 0
    redo = night.finish("--on-published", "redo")
    assert (redo["paid"], len(night.model_server.prompts)) == (0, paid)

    exported = night.zygote.start(["export", "--destination", night.destination], night.environment)
    assert exported.wait() == 0, exported.said
    shown = exported.report["samples"][0]["input"]
    (row,) = before["pairs"].filter(pl.col("input") == shown).to_dicts()
    words = [str(row[name]) for name in ("task", "input", "positive_document", "description_hash", "request_key")]
    brainstormed = f"{night.destination}/journal/recipe=list"
    segment(brainstormed, "a", ("list", json.dumps(["another", words[0]]), 1))
    storage.write_bytes(f"{brainstormed}/recipe.json", b'["Make a list about {topic}", 20, {}]')
    storage.write_bytes(f"{night.destination}/tasks/a.jsonl", json.dumps({"task": words[0]}).encode())
    card = f"{night.destination}/exports/e/pairs.jsonl"
    lines = [{"query": "other", "pos": [words[2]]}, {"query": words[1], "pos": [words[2]]}]
    storage.write_bytes(card, "".join(json.dumps(line) + "\n" for line in lines).encode())
    held = {name for name, data in everything(night.bucket).items() if any(word.encode() in data for word in words)}
    assert {name.split("/")[1] for name in held} >= {"pairs", "journal", "exports"}
    assert any(name.endswith("/README.md") for name in held), "the card of the export shows the pair"
    assert maintain("--forget", words[0])["done"]
    del words[2]  # kept where another description's pair holds it
    left = {name for name, data in everything(night.bucket).items() if any(word.encode() in data for word in words)}
    assert {name for name in left if not name.startswith("tasks-")} == set()
    assert json.loads(storage.read_bytes(card)) == lines[0]
    assert sorted(night.rows("pairs")["id"]) == sorted(set(before["pairs"]["id"]) - {row["id"]})
    assert maintain("--forget", words[0])["done"][:2] == [
        f"{night.destination}/{name}: every version before this one was removed" for name in ("pairs", "rejected")
    ]


@pytest.mark.faults
@pytest.mark.parametrize("kept", ["plan_lease", "lease"])
def test_a_run_that_begins_while_a_description_is_being_forgotten_leaves_nothing_of_it(
    nights: Callable[[str], Night], kept: str
) -> None:
    night = nights("out")
    night.serve(0.0)
    secret, layout = "match a secret with its keeper", Layout(night.destination)
    lines = [json.dumps({"task": text}) for text in (secret, "match a lock with its key")]
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
        forgetting = night.start_upkeep("--forget", secret)
        wait_for(f"PUT {getattr(layout, kept).removeprefix('s3:/')}")
        given = ["--source", source, "--destination", layout.destination, "--model-name", "openai/x"]
        run = night.zygote.start([*given, "--api-base", night.model_server.api_base], night.environment)
        wait_for(f"GET {source.removeprefix('s3:/')}/a.jsonl", f"PUT {layout.plan_lease.removeprefix('s3:/')}")
    assert [forgetting.wait(), run.wait()] == [0, 0], forgetting.said + run.said
    assert [name for name, data in everything(night.bucket).items() if b"secret" in data] == []
    assert not list(night.state.rglob("*.jsonl"))


SECRET = "match a secret with its keeper"


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
    segment(listed, "a", ("one", text, 1))
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
    assert find(listed, "one") == {"one": text}
    assert storage.read_bytes(layout.plan_lease) == other


def test_a_description_is_forgotten_in_every_part_and_nothing_else_is(bucket: str) -> None:
    layout = Layout(f"{bucket}/out")
    recipe = Recipe(model_name="openai/x")
    secret, other = "match a käse & a <b> with its smell", "match a knife with its edge"
    pairs = pl.DataFrame(
        {
            "partition": ["2026-11-01"] * 2,
            "task": [secret, other],
            "input": ["stinking bishop", "paring knife"],
            "positive_document": ["German", "a short blade"],
            "description_hash": hash_descriptions([secret, other]),
            "request_key": ["published-1", "published-2"],
        }
    )
    for number in (1, 2):
        what = table.Publish("2026-11-01", "run", str(number), number)
        table.publish(layout.rejected, pairs.lazy(), what, overwrite=True)
        table.publish(layout.pairs, pairs.lazy(), what, overwrite=True)
    prompts = [build_prompt(text, "German", 3) for text in (secret, other)]
    keys = request_keys(recipe, prompts, [3, 3])
    asked, listed = layout.journal(recipe.recipe_id), layout.journal("list")
    segment(asked, "a", (keys[0], "never published", 1), (keys[1], "kept", 1), ("published-1", "published", 1))
    storage.write_bytes(f"{asked}/recipe.json", recipe.canonical)
    at_provider = f"{layout.batches(recipe.recipe_id, 's3://b/tasks')}/name.keys"
    storage.write_bytes(at_provider, join_keys(keys))
    segment(listed, "a", ("one", json.dumps(["another", secret]), 1), ("two", json.dumps([other]), 1))
    storage.write_bytes(f"{listed}/recipe.json", b'["Make a list about {topic}", 20, {}]')
    frames.write_frame(pairs, f"{layout.staging('2026-11-01', 'dead')}/plan/000000.parquet")
    texts = "".join(json.dumps({"task": text}) + "\n" for text in (secret, other))
    storage.write_bytes(f"{layout.destination}/tasks/a.jsonl", texts.encode())
    turned_down = {"task": secret, "reasons": ["repeated"]}
    storage.write_bytes(layout.rejected_tasks("r"), (json.dumps(turned_down) + "\n").encode())
    storage.write_bytes(layout.report_page("r", "html"), f"<p>{html.escape(secret)}</p>".encode())
    storage.write_bytes(layout.report_page("r", "md"), b"| stinking bishop | German |")
    storage.write_bytes(layout.report_page("other", "html"), b"<p>match a knife with its edge, German</p>")
    storage.write_bytes(layout.report("r"), json.dumps({"samples": [{"task": secret}, {"task": other}]}).encode())

    full = pairs.with_columns(variation=pl.lit(None, pl.String), language=pl.Series(["English", "German"]))
    frames.write_frame(full, f"{layout.destination}/exports/v1/full/train.parquet")
    anchors = pairs.select(anchor="input", positive="positive_document")
    frames.write_frame(anchors, f"{layout.destination}/exports/v1/pairs/train.parquet")

    done = forget_description.fn(layout, "me", f" {secret} ")

    assert any("exports/v1: its card" in line for line in done)
    assert any("A source elsewhere was not touched" in line for line in done)
    for name in ("tasks/a.jsonl", "rejected-tasks/r.jsonl"):
        assert f"{layout.destination}/{name}: rows erased: 1" in done
    assert frames.read_frame(f"{layout.destination}/exports/v1/full/train.parquet").equals(full[1:])
    assert frames.read_frame(f"{layout.destination}/exports/v1/pairs/train.parquet").equals(anchors[1:])
    words = [secret, html.escape(secret), json.dumps(secret)[1:-1], "stinking", keys[0], "published-1"]
    left = {(name, word) for name, data in everything(bucket).items() for word in words if word.encode() in data}
    assert left == set()
    assert storage.find_bytes(layout.report_page("r", "md")) is None, "it shows the pair"
    assert storage.find_bytes(layout.report_page("other", "html")) is not None
    for uri in (layout.pairs, layout.rejected):
        assert read_table(uri)["task"].to_list() == [other]
    assert find(asked, *keys) == {keys[1]: "kept"}
    assert storage.read_bytes(at_provider) == join_keys(keys[1:])
    assert find(listed, "one", "two") == {"two": json.dumps([other])}
    assert json.loads(storage.read_bytes(layout.report("r"))) == {"samples": [{"task": other}]}
    assert storage.read_bytes(f"{layout.destination}/tasks/a.jsonl") == json.dumps({"task": other}).encode() + b"\n"


# Replies that were to list descriptions, and whether one of them is just the text.
REPLIES = {
    '["Match news with views.", "news"]': True,
    '["1. NFC cafe\u0301", "news."]': False,
    '[{"description": "news"}]': True,
    '["Match news with views."]': False,
    '["Match news with views.", "news", "Match a cut-off': True,
    '["Match news with views.", "Match news": "new': False,
    "- Match news with views.\n- news\n": True,
    "- Match news with views.\n": False,
    "": False,
}


def test_what_only_contains_the_words_of_a_forgotten_description_is_kept(bucket: str) -> None:
    layout = Layout(f"{bucket}/out")
    recipe = Recipe(model_name="openai/x")
    (key,) = request_keys(recipe, [build_prompt("news", "English", 0)], [0])
    asked, listed = layout.journal(recipe.recipe_id), layout.journal("list")
    pair = json.dumps({"input": "bad news", "positive_document": "news"})
    segment(asked, "a", (key, pair, 1), ("other", pair, 1))
    storage.write_bytes(f"{asked}/recipe.json", recipe.canonical)
    segment(listed, "a", *((text, text, 1) for text in REPLIES))
    storage.write_bytes(f"{listed}/recipe.json", b'["Make a list about {topic}", 20, {}]')
    forget_description.fn(layout, "me", "news")
    assert find(asked, key, "other") == {"other": pair}
    assert set(find(listed, *REPLIES)) == {text for text, lists_it in REPLIES.items() if not lists_it}
    # Composed and decomposed letters are the same; a description of nothing but marks is in no blank line.
    assert lists_description('["1. NFC cafe\u0301"]', "NFC caf\u00e9")
    assert not lists_description("Sorry,\n\nno.", "*")


@pytest.mark.parametrize("text", [" ", "\t\n", "\u3000"])
def test_a_blank_text_is_not_forgotten(bucket: str, text: str) -> None:
    with pytest.raises(UsageError, match="forget is"):
        forget_description.fn(Layout(f"{bucket}/out"), "me", text)
    with pytest.raises(UsageError, match="forget is"):
        check_maintain(destination=f"{bucket}/out", forget=text)
    assert check_maintain(destination=f"{bucket}/out", forget="") == Layout(f"{bucket}/out")


@pytest.mark.parametrize("dies", [False, pytest.param(True, marks=pytest.mark.runs)])
def test_a_run_that_only_waits_keeps_what_it_has_staged_and_an_ended_one_does_not(bucket: str, *, dies: bool) -> None:
    layout = Layout(f"{bucket}/out")
    plans = {run: f"{layout.staging('2026-11-01', run)}/plan/000000.parquet" for run in ("waits", "died", "ended")}
    for plan in plans.values():
        storage.write_bytes(plan, b"plan")
    if dies:
        # It is waited for: half a minute.
        storage.write_bytes(layout.source_lease("s3://b/other"), b'{"owner": "died", "token": "t", "beat": 1}')
    later = datetime.now(UTC) + timedelta(days=2)
    with hold_lease(layout.source_lease("s3://b/tasks"), "waits", term=4.0) as lease:
        _expire_staging(layout, later, 1)
        left = {item.uri for item in storage.list_objects(f"{layout.destination}/staging")}
        assert left == {plans["waits"], lease.uri}
    _expire_staging(layout, later, 1)
    assert storage.list_objects(f"{layout.destination}/staging") == []


def as_json(*rows: Any) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def test_a_forgotten_description_is_found_in_every_shape_that_rows_have(bucket: str) -> None:
    layout = Layout(f"{bucket}/out")
    secret, other, raw = "match a caf\u00e9 with its owner", "match a knife with its edge", "no JSON\x1b of the secret"
    rows = pl.DataFrame(
        {
            "partition": ["2026-11-01"] * 3,
            "task": [other, secret, secret],
            "input": ["same", "same", None],
            "positive_document": ["a blade", "a baker", None],
            "text": [None, None, raw],
            "description_hash": hash_descriptions([other, secret, secret]),
            "request_key": ["p1", "p2", "p3"],
        }
    )
    table.publish(layout.rejected, rows.lazy(), table.Publish("2026-11-01", "run", "1", 1), overwrite=True)
    # Unicode's other ends of a line are none of JSONL.
    odd, texts = {"query": "a\u2028b", "pos": ["c\x85d"]}, f"{layout.destination}/exports/v1/flag_embedding/train.jsonl"
    both, theirs = ({"query": "same", "pos": pos, "neg": []} for pos in (["a blade", "a baker"], ["a baker"]))
    storage.write_bytes(texts, as_json(odd, both, theirs, {"query": "same", "pos": []}))
    cut_off = {"task": json.dumps([secret, "match a thing wi"])[:-2], "reasons": ["truncated"]}
    nested = {"task": json.dumps({"description": secret}, ensure_ascii=False), "reasons": ["not_text"]}
    kept = {"task": "- match a caf\u00e9 with its owner's dog", "reasons": ["not_a_list"]}
    decomposed = {"task": "match a cafe\u0301 with its owner", "reasons": ["repeated"]}
    storage.write_bytes(layout.rejected_tasks("r"), as_json(cut_off, nested, kept, decomposed))
    example, fine = ({"input": None, "positive_document": None, "text": text} for text in (raw, "other words"))
    storage.write_bytes(layout.report("r"), as_json({"profile": {"examples": {"unparsable": [example, fine]}}}))
    storage.write_bytes(layout.report_page("r", "html"), f"<code>{shown(raw)}</code>".encode())
    storage.write_bytes(layout.report_page("other", "html"), b"<code>other words</code>")
    forget_description.fn(layout, "me", secret)
    assert storage.read_bytes(texts) == as_json(odd, both | {"pos": ["a blade"]}, {"query": "same", "pos": []})
    assert storage.read_bytes(layout.rejected_tasks("r")) == as_json(kept)
    assert json.loads(storage.read_bytes(layout.report("r"))) == {"profile": {"examples": {"unparsable": [fine]}}}
    assert storage.find_bytes(layout.report_page("r", "html")) is None
    assert storage.find_bytes(layout.report_page("other", "html")) is not None


def test_a_description_is_forgotten_after_a_compaction_that_is_under_way(
    bucket: str, s3_proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(f"{bucket}/out")
    listed = layout.journal("list")
    segment(listed, "a", ("one", '["news"]', 1))
    storage.write_bytes(f"{listed}/recipe.json", b'["Make a list about {topic}", 20, {}]')
    with ThreadPoolExecutor(1) as pool:
        with hold_lease(compaction.lease_of(listed), "weekly"):
            monkeypatch.setenv("AWS_ENDPOINT_URL", s3_proxy.url)
            forgetting = pool.submit(forget_description.fn, layout, "me", "news")
            while not s3_proxy.creates(compaction.lease_of(listed)):
                assert not forgetting.done()
            # What it has read it writes again, under another name.
            segment(listed, "merged", ("one", '["news"]', 1))
        forgetting.result()
    assert find(listed, "one") == {}


@pytest.mark.parametrize(
    ("done", "before", "said"),
    [
        ([], 1_000, "s3://b/out: nothing to do, 1,000 bytes in all"),
        (["one"], 1_000, "s3://b/out: 1 thing done, 1,000 bytes in all"),
        (["one", "two"], 5_000, "s3://b/out: 2 things done, 4,000 bytes fewer, 1,000 bytes in all"),
        (["one"], 900, "s3://b/out: 1 thing done, 1,000 bytes in all"),
    ],
)
def test_the_headline_of_an_upkeep_says_what_it_saved_where_it_did(done: list[str], before: int, said: str) -> None:
    report = UpkeepReport(destination="s3://b/out", done=done, bytes_before=before, bytes_after=1_000)
    assert upkeep_headline(report) == said
