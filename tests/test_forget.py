"""Erasing one description: everywhere, and nothing else."""

import html
import json
from dataclasses import asdict
from typing import Any

import polars as pl
import pytest

from flows.maintain import check_maintain
from tasks.clients import frames, storage, table
from tasks.clients.batch_records import join_keys
from tasks.core.errors import UsageError
from tasks.core.layout import Layout
from tasks.core.linting import lists_description
from tasks.core.prompts import build_prompt
from tasks.core.requests import Recipe, hash_descriptions, request_keys
from tasks.core.showing import shown
from tasks.core.upkeep import Forgetting, UpkeepReport, upkeep_headline
from tasks.forget import forget_description
from tests.bucket import everything, read_table
from tests.segments import find_texts, write_segment

SECRET = "match a secret with its keeper"


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
    write_segment(asked, "a", (keys[0], "never published", 1), (keys[1], "kept", 1), ("published-1", "published", 1))
    storage.write_bytes(f"{asked}/recipe.json", recipe.canonical)
    at_provider = f"{layout.batches(recipe.recipe_id, 's3://b/tasks')}/name.keys"
    storage.write_bytes(at_provider, join_keys(keys))
    write_segment(listed, "a", ("one", json.dumps(["another", secret]), 1), ("two", json.dumps([other]), 1))
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

    told = forget_description.fn(layout, "me", f" {secret} ")

    assert told.found
    card, elsewhere = told.left
    assert "exports/v1: its card" in card
    assert "A source elsewhere was not touched" in elsewhere
    for name in ("tasks/a.jsonl", "rejected-tasks/r.jsonl"):
        assert f"{layout.destination}/{name}: rows erased: 1" in told.done
    assert frames.read_frame(f"{layout.destination}/exports/v1/full/train.parquet").equals(full[1:])
    assert frames.read_frame(f"{layout.destination}/exports/v1/pairs/train.parquet").equals(anchors[1:])
    words = [secret, html.escape(secret), json.dumps(secret)[1:-1], "stinking", keys[0], "published-1"]
    left = {(name, word) for name, data in everything(bucket).items() for word in words if word.encode() in data}
    assert left == set()
    assert storage.find_bytes(layout.report_page("r", "md")) is None, "it shows the pair"
    assert storage.find_bytes(layout.report_page("other", "html")) is not None
    for uri in (layout.pairs, layout.rejected):
        assert read_table(uri)["task"].to_list() == [other]
    assert find_texts(asked, *keys) == {keys[1]: "kept"}
    assert storage.read_bytes(at_provider) == join_keys(keys[1:])
    assert find_texts(listed, "one", "two") == {"two": json.dumps([other])}
    assert json.loads(storage.read_bytes(layout.report("r"))) == {"samples": [{"task": other}]}
    assert storage.read_bytes(f"{layout.destination}/tasks/a.jsonl") == json.dumps({"task": other}).encode() + b"\n"


@pytest.mark.parametrize(
    ("name", "body", "found", "left"),
    [
        ("runs/r.json", b'{"samples": [', False, "cannot be read, and has to be edited by hand"),
        ("runs/r.html", b"<p>\xff</p>", False, ""),
        ("tasks/notes.txt", b"match a secret with its keeper", True, "holds it, and has to be edited by hand"),
    ],
)
def test_what_is_damaged_does_not_count_as_found_and_what_only_a_hand_can_edit_does(
    bucket: str, name: str, body: bytes, left: str, *, found: bool
) -> None:
    layout = Layout(f"{bucket}/out")
    storage.write_bytes(f"{layout.destination}/{name}", body)
    told = forget_description.fn(layout, "me", SECRET)
    by_hand = [f"{layout.destination}/{name}: {left}"] if left else []
    assert (told.found, told.done, told.left[:-1]) == (found, [], by_hand)
    assert ("letter by letter" in told.left[-1]) != found


def test_a_description_that_only_the_journal_knows_is_found(bucket: str) -> None:
    layout, recipe = Layout(f"{bucket}/out"), Recipe(model_name="openai/x")
    (key,) = request_keys(recipe, [build_prompt(SECRET, "English", 0)], [0])
    write_segment(layout.journal(recipe.recipe_id), "a", (key, "never published", 1))
    storage.write_bytes(f"{layout.journal(recipe.recipe_id)}/recipe.json", recipe.canonical)
    assert forget_description.fn(layout, "me", SECRET).found
    assert not forget_description.fn(layout, "me", SECRET).found


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
    write_segment(asked, "a", (key, pair, 1), ("other", pair, 1))
    storage.write_bytes(f"{asked}/recipe.json", recipe.canonical)
    write_segment(listed, "a", *((text, text, 1) for text in REPLIES))
    storage.write_bytes(f"{listed}/recipe.json", b'["Make a list about {topic}", 20, {}]')
    forget_description.fn(layout, "me", "news")
    assert find_texts(asked, key, "other") == {"other": pair}
    assert set(find_texts(listed, *REPLIES)) == {text for text, lists_it in REPLIES.items() if not lists_it}
    # Composed and decomposed letters are the same; a description of nothing but marks is in no blank line.
    assert lists_description('["1. NFC cafe\u0301"]', "NFC caf\u00e9")
    assert not lists_description("Sorry,\n\nno.", "*")


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


@pytest.mark.parametrize("text", [" ", "\t\n", "\u3000"])
def test_a_blank_text_is_not_forgotten(bucket: str, text: str) -> None:
    with pytest.raises(UsageError, match="forget is"):
        forget_description.fn(Layout(f"{bucket}/out"), "me", text)
    with pytest.raises(UsageError, match="forget is"):
        check_maintain(destination=f"{bucket}/out", forget=text)
    assert check_maintain(destination=f"{bucket}/out", forget="") == Layout(f"{bucket}/out")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (True, "s3://b/out: 1 thing done, 1 left to do by hand, 9 bytes in all"),
        (False, "s3://b/out: nothing of that description was found, 9 bytes in all"),
    ],
)
def test_the_headline_of_what_is_forgotten_counts_no_remark_as_done(said: str, *, found: bool) -> None:
    told = Forgetting(done=["versions removed"], left=["a remark"], found=found)
    report = UpkeepReport(destination="s3://b/out", **asdict(told), bytes_before=9, bytes_after=9)
    assert upkeep_headline(report) == said
