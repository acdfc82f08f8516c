"""Exports of a real table on a real S3 server, read by what people read them with."""

import hashlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from prefect.logging import disable_run_logger

from flows.export import place_export
from tasks.clients import access, storage, table
from tasks.clients.lease import hold_lease
from tasks.core.card import size_category
from tasks.core.columns import LINEAGE, PAIR
from tasks.core.errors import SourceError, UsageError
from tasks.core.exports import SPLITS, ExportReport
from tasks.core.judging import pair_columns
from tasks.core.keys import fold, hash_words, pair_key, text_key
from tasks.core.layout import Layout
from tasks.export import write_export
from tests.s3_proxy import S3Proxy

ROWS = 300
FIRST, SECOND = "2026-01-01", "2026-01-02"


def words(text: str, count: int = 6) -> str:
    digest = hashlib.blake2b(text.encode(), digest_size=4 * count).hexdigest()
    return " ".join(digest[at : at + 8] for at in range(0, 8 * count, 8))


def rows(partition: str, numbers: range, **changes: Any) -> pl.DataFrame:
    """Return pairs as the main flow publishes them; their texts follow from their numbers."""
    tasks = [f"match thing {number // 3} with its name" for number in numbers]
    frame = pl.DataFrame(
        {
            "partition": [partition] * len(numbers),
            "task": tasks,
            "language": ["English" if number % 2 else "German" for number in numbers],
            "input": [words(f"input {number}") for number in numbers],
            "positive_document": [words(f"positive {number}") for number in numbers],
            "model_name": ["openai/x"] * len(numbers),
            "request_key": [hashlib.blake2b(f"{number}".encode(), digest_size=16).hexdigest() for number in numbers],
            "description_hash": [hashlib.blake2b(task.encode(), digest_size=16).hexdigest() for task in tasks],
            "prompt_hash": ["abc"] * len(numbers),
            "flags": [["personal_data"] if number % 50 == 0 else [] for number in numbers],
            "created_at": [datetime(2026, 1, 1, tzinfo=UTC)] * len(numbers),
            "topic": ["things"] * len(numbers),
            **changes,
        }
    )
    keyed = frame.with_columns(
        input_key=text_key(hash_words(fold(pl.col("input")))),
        positive_key=text_key(hash_words(fold(pl.col("positive_document")))),
    ).with_columns(pair_key=pair_key())
    missing = {name: dtype for name, dtype in (PAIR | LINEAGE).items() if name not in keyed.columns}
    columns = keyed.with_columns(pl.lit(None, dtype).alias(name) for name, dtype in missing.items())
    return columns.select(pair_columns(("topic",)))


@pytest.fixture
def destination(bucket: str) -> str:
    """Publish two days: the second repeats ten pairs of the first."""
    uri = f"{bucket}/out"
    add(uri, rows(FIRST, range(ROWS)))
    add(uri, rows(SECOND, range(ROWS - 10, 2 * ROWS)))
    return uri


def add(destination: str, frame: pl.DataFrame, name: str = "pairs") -> None:
    partition = frame["partition"][0]
    what = table.Publish(partition=partition, run_id=partition, mark=partition, number=1)
    table.publish(f"{destination}/{name}", frame.lazy(), what, overwrite=False)


def export(destination: str, **changes: Any) -> ExportReport:
    settings: dict[str, Any] = {
        "export_version": "",
        "from_day": "",
        "to_day": "",
        "languages": ["all"],
        "leave_out_flagged": [],
        "held_out": [],
        "validation_share": 0.1,
        "test_share": 0.1,
        "licence": "other",
    }
    with disable_run_logger():
        return write_export.fn(place_export(destination=destination, **settings | changes))


def read(report: ExportReport, config: str) -> pl.DataFrame:
    options = access.object_store_options()
    return pl.concat(
        pl.read_parquet(uri, storage_options=options).with_columns(split=pl.lit(uri.rsplit("/", 1)[1].split(".")[0]))
        for uri in report.files[config]
    )


def test_pairs_has_exactly_anchor_and_positive_and_full_has_every_column(destination: str) -> None:
    report = export(destination)
    pairs, full = read(report, "pairs"), read(report, "full")
    assert pairs.columns == ["anchor", "positive", "split"]
    assert full.columns == [*pair_columns(("topic",)), "split"]
    assert pairs["anchor"].to_list() == full["input"].to_list()
    assert pairs["positive"].to_list() == full["positive_document"].to_list()


def test_a_source_column_named_split_moves_no_row(bucket: str) -> None:
    pairs = rows(FIRST, range(ROWS)).with_columns(split=pl.lit("train"))
    add(f"{bucket}/out", pairs)
    report = export(f"{bucket}/out")
    assert sum(report.rows.values()) + sum(report.left_out.values()) == ROWS
    options = access.object_store_options()
    for split, count in report.rows.items():
        read_back = pl.read_parquet(f"{report.uri}/full/{split}.parquet", storage_options=options)
        assert read_back["split"].to_list() == ["train"] * count


def test_a_duplicate_of_another_day_is_left_out_and_the_earliest_stays(destination: str) -> None:
    report = export(destination)
    full = read(report, "full")
    assert report.left_out == {"duplicate": 10}
    assert full.height == 2 * ROWS == sum(report.rows.values())
    assert full.filter(pl.col("partition") == FIRST).height == ROWS


def test_a_pair_of_another_day_but_for_one_word_is_left_out_too(destination: str) -> None:
    one = f"{words('input 7').rsplit(' ', 1)[0]} another"
    near = {"input": [one, "a b c d"], "positive_document": [words("positive 7"), words("positive 8")]}
    add(destination, rows("2026-01-03", range(2 * ROWS, 2 * ROWS + 2), **near))
    report = export(destination, test_share=0.0, validation_share=0.0)
    assert report.left_out == {"duplicate": 10, "near_duplicate": 1}
    anchors = read(report, "pairs")["anchor"].to_list()
    assert (words("input 7") in anchors, one in anchors, "a b c d" in anchors) == (True, False, True)


def test_rows_whose_keys_begin_alike_are_exported_once_each(bucket: str) -> None:
    add(f"{bucket}/out", rows(FIRST, range(3), request_key=[f"{'0' * 16}{number:016x}" for number in range(3)]))
    report = export(f"{bucket}/out", test_share=0.0, validation_share=0.0)
    assert report.rows["train"] == 3
    assert sorted(read(report, "pairs")["anchor"]) == sorted(words(f"input {number}") for number in range(3))


def test_no_description_is_in_two_splits_and_none_ever_moves(destination: str) -> None:
    before = read(export(destination), "full")
    add(destination, rows("2026-01-03", range(2 * ROWS, 3 * ROWS)))
    after = read(export(destination), "full")
    assert set(before["split"]) == set(SPLITS)
    assert after.group_by("task").agg(pl.col("split").n_unique())["split"].max() == 1
    joined = before.join(after, on="request_key", suffix="_after")
    assert joined.height == before.height
    assert joined.filter(pl.col("split") != pl.col("split_after")).height == 0


def test_train_shares_no_text_with_the_other_splits(destination: str) -> None:
    full = read(export(destination), "full")
    theirs = full.filter(pl.col("split") == "test").head(1)
    add(destination, rows("2026-01-03", range(2 * ROWS, 2 * ROWS + 90), input=[theirs["input"][0]] * 90))
    report = export(destination)
    assert report.left_out["shared_with_another_split"] > 0
    again = read(report, "full")
    assert set(again.filter(pl.col("input") == theirs["input"][0])["split"]) == {"test"}
    assert report.groups == 1
    assert report.grouped_rows == again.filter(pl.col("group_id").is_not_null()).height > 1


def test_all_positives_of_one_query_are_in_one_row_for_flag_embedding(destination: str) -> None:
    add(destination, rows("2026-01-03", range(2 * ROWS, 2 * ROWS + 3), input=["the very same question"] * 3))
    report = export(destination, test_share=0.0, validation_share=0.0)
    lines = storage.read_bytes(report.files["flag_embedding"][0]).decode().splitlines()
    read_lines = [json.loads(line) for line in lines]
    assert {tuple(line) for line in read_lines} == {("query", "pos", "neg")}
    assert all(line["neg"] == [] for line in read_lines)
    assert [len(line["pos"]) for line in read_lines if line["query"] == "the very same question"] == [3]
    assert sum(len(line["pos"]) for line in read_lines) == sum(report.rows.values())


def test_texts_that_are_held_out_are_in_no_pair(destination: str, bucket: str) -> None:
    texts = [f"{words('input 7')}!", words("positive 400").upper(), "something else"]
    storage.write_bytes(f"{bucket}/eval/a.txt", "\n".join(texts[:2]).encode())
    line = json.dumps({"query": texts[2], "pos": [words("positive 9")]})
    storage.write_bytes(f"{bucket}/eval/b.jsonl", line.encode())
    report = export(destination, held_out=[f"{bucket}/eval"])
    assert report.left_out == {"duplicate": 10, "held_out": 3}
    assert report.held_out_texts == 4
    kept = set(read(report, "pairs")["anchor"]) | set(read(report, "pairs")["positive"])
    assert kept & {words("input 7"), words("positive 400"), words("positive 9")} == set()


def test_languages_days_and_flags_are_chosen(destination: str) -> None:
    report = export(destination, languages=["German"], to_day=FIRST, leave_out_flagged=["personal_data"])
    full = read(report, "full")
    assert (set(full["language"]), set(full["partition"])) == ({"German"}, {FIRST})
    assert report.left_out == {"flagged": 6}
    assert full.filter(pl.col("flags").list.len() > 0).height == 0


def test_an_export_never_changes(destination: str) -> None:
    first = export(destination, export_version="one")
    listed = storage.list_objects(first.uri)
    assert export(destination, export_version="one") == first.model_copy(update={"exported": False})
    with pytest.raises(UsageError, match="--test-share"):
        export(destination, export_version="one", test_share=0.2)
    add(destination, rows("2026-01-03", range(2 * ROWS, 3 * ROWS)))
    with pytest.raises(UsageError, match="another version of the pairs;"):
        export(destination, export_version="one")
    assert storage.list_objects(first.uri) == listed


def test_an_export_waits_for_an_erasing(destination: str, s3_proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = Layout(destination).forget_lease
    with ThreadPoolExecutor(1) as pool:
        with hold_lease(lease, "an erasing"):
            monkeypatch.setenv("AWS_ENDPOINT_URL", s3_proxy.url)
            waiting = pool.submit(export, destination)
            for _ in range(2):
                while not s3_proxy.creates(lease):
                    assert not waiting.done()
            assert storage.list_objects(f"{destination}/exports/") == []
        assert waiting.result().rows


def test_what_a_killed_export_left_behind_is_made_anew(destination: str) -> None:
    storage.write_bytes(f"{destination}/exports/one/pairs/train.parquet", b"half")
    report = export(destination, export_version="one")
    assert read(report, "pairs").height == 2 * ROWS


def test_the_card_is_valid_and_says_what_it_must(destination: str) -> None:
    report = export(destination, licence="cc-by-4.0")
    text = storage.read_bytes(f"{report.uri}/README.md").decode()
    _, front, body = text.split("---\n", 2)
    card = yaml.safe_load(front)
    assert card["license"] == "cc-by-4.0"
    assert card["language"] == ["de", "en"]
    assert card["size_categories"] == ["n<1K"]
    assert card["annotations_creators"] == ["machine-generated"]
    assert [config["config_name"] for config in card["configs"]] == ["pairs", "full"]
    for config in card["configs"]:
        assert [one["split"] for one in config["data_files"]] == list(SPLITS)
        assert [f"{report.uri}/{one['path']}" for one in config["data_files"]] == report.files[config["config_name"]]
    for said in ("openai/x", "abc", "for you to check", "600 pairs", "Known limits", "personal_data"):
        assert said in body


def test_a_request_that_two_days_have_judged_counts_once_by_what_came_of_it_last(destination: str) -> None:
    reject(destination, FIRST, {2 * ROWS - 1: "empty", 2 * ROWS: "unparsable", 2 * ROWS + 1: "unparsable"})
    # A redo of the second day has judged all three anew, and accepted the first of them.
    reject(destination, SECOND, {2 * ROWS: "unparsable", 2 * ROWS + 1: "empty"})
    report = export(destination)
    assert report.rejected == {"empty": 1, "unparsable": 1}
    assert report.judged == 2 * ROWS + 10 + 2
    body = storage.read_bytes(f"{report.uri}/README.md").decode()
    assert "Of 612 judged rows 2 were rejected" in body


def reject(destination: str, partition: str, reasons: dict[int, str]) -> None:
    rejected = rows(partition, range(min(reasons), max(reasons) + 1))
    add(destination, rejected.with_columns(pl.Series("reasons", [[one] for one in reasons.values()])), "rejected")


def test_the_card_lists_every_model_by_what_it_wrote(bucket: str) -> None:
    models = ["openai/x"] * 60 + ["anthropic/y"] * 240
    add(f"{bucket}/out", rows(FIRST, range(ROWS), model_name=models))
    report = export(f"{bucket}/out")
    assert report.models == {"anthropic/y": 240, "openai/x": 60}
    body = storage.read_bytes(f"{report.uri}/README.md").decode()
    assert re.search(r"anthropic/y \| 240 \|\n\| openai/x \| 60 \|", body)


@pytest.mark.parametrize(
    ("rows", "category"),
    [(0, "n<1K"), (999, "n<1K"), (1_000, "1K<n<10K"), (99_999, "10K<n<100K"), (100_000_000, "100M<n<1B")],
)
def test_a_size_category_is_the_one_of_hugging_face(rows: int, category: str) -> None:
    assert size_category(rows) == category


def test_nothing_published_is_one_clear_error(bucket: str) -> None:
    with pytest.raises(SourceError, match="Nothing is published"):
        export(f"{bucket}/none")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"from_day": "2026-02-01", "to_day": "2026-01-01"}, "after"),
        ({"to_day": "2026-02-30"}, "--to-day is "),
        ({"validation_share": 0.5, "test_share": 0.5}, "nothing for train"),
        ({"held_out": ["/tmp/x"]}, "--held-out is"),
        ({"languages": ["Germn"]}, "German"),
    ],
)
def test_a_wrong_export_is_refused_before_anything_is_read(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        export("s3://bucket/out", **changes)


def test_held_out_texts_that_the_environment_does_not_allow_are_named_by_their_own_option(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PAIRMILL_ALLOWED_SOURCES", "s3://other")
    with pytest.raises(UsageError, match="--held-out is 's3://bucket/x', which PAIRMILL_ALLOWED_SOURCES"):
        export("s3://bucket/out", held_out=["s3://bucket/x"])


def test_datasets_reads_the_folder_and_the_s3_files(
    destination: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    from datasets import load_dataset

    report = export(destination)
    folder = tmp_path / "export"
    for item in storage.list_objects(report.uri):
        path = folder / item.uri.removeprefix(f"{report.uri}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(storage.read_bytes(item.uri))
    cache = str(tmp_path / "cache")
    for config in ("pairs", "full"):
        assert list(load_dataset(str(folder), config, cache_dir=cache)) == list(SPLITS)
    (line,) = re.findall(r'load_dataset\(("json".*?)\)`', (folder / "README.md").read_text())
    reader, lines = re.findall(r'"(.*?)"', line)
    queries = load_dataset(reader, data_files=f"{folder}/{lines}", cache_dir=cache)["train"]
    assert queries.column_names == ["query", "pos", "neg"]
    assert load_dataset(str(folder), cache_dir=cache)["train"].column_names == ["anchor", "positive"]
    now = access.resolve_access()
    options = {"key": now.key, "secret": now.secret, "endpoint_url": now.endpoint}
    files = {split: f"{report.uri}/pairs/{split}.parquet" for split in SPLITS}
    remote = load_dataset("parquet", data_files=files, storage_options=options, cache_dir=cache)
    assert {split: remote[split].num_rows for split in SPLITS} == report.rows
