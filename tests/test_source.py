import csv
import gzip
import json
from collections.abc import Callable
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import boto3
import polars as pl
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tasks.clients import source
from tasks.clients.descriptions import list_source
from tasks.core.errors import SchemaError, SourceError

Rows = list[dict[str, Any]]

TEXTS = ["one", "  zwei Größen ", "三つの例", 'with "quotes", commas', "a \\n that is no line end"]
ROWS: Rows = [{"task": text, "id": str(number)} for number, text in enumerate(TEXTS)]


def as_jsonl(rows: Rows) -> bytes:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


def as_csv(rows: Rows) -> bytes:
    text = StringIO()
    writer = csv.DictWriter(text, ["task", "id"])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_parquet(rows: Rows) -> bytes:
    buffer = BytesIO()
    pl.DataFrame(rows, schema={"task": pl.String, "id": pl.String}).write_parquet(buffer)
    return buffer.getvalue()


def as_text(rows: Rows) -> bytes:
    return "\n".join(row["task"] for row in rows).encode()


WRITTEN: dict[str, Callable[[Rows], bytes]] = {
    ".jsonl": as_jsonl,
    ".ndjson": as_jsonl,
    ".csv": as_csv,
    ".parquet": as_parquet,
    ".txt": as_text,
}
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def read(folder: Path, name: str, data: bytes) -> pl.DataFrame:
    path = folder / "object"
    path.write_bytes(data)
    return pl.concat(source.read_batches(path, f"s3://b/{name}"), how="diagonal_relaxed")


def test_every_format_has_a_case() -> None:
    assert (tuple(WRITTEN), tuple(PACKED)) == (source.FORMATS, ("", *source.COMPRESSIONS))


@pytest.mark.parametrize("packing", list(PACKED))
@pytest.mark.parametrize("ending", list(WRITTEN))
def test_each_format_is_read_as_it_is_and_packed(tmp_path: Path, ending: str, packing: str) -> None:
    rows = read(tmp_path, f"a{ending}{packing}", PACKED[packing](WRITTEN[ending](ROWS)))
    assert rows["task"].to_list() == TEXTS
    if ending != ".txt":
        assert rows["id"].to_list() == [row["id"] for row in ROWS]


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("a.jsonl", ".jsonl"),
        ("A.JSONL.GZ", ".jsonl"),
        ("a.csv.zst", ".csv"),
        ("a.json", None),
        ("a.gz", None),
        ("jsonl", None),
        ("_SUCCESS", None),
    ],
)
def test_an_object_is_read_by_its_name(name: str, ending: str | None) -> None:
    assert source.source_format(f"s3://b/{name}") == ending


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".txt"])
def test_a_byte_order_mark_and_windows_line_ends_are_no_text(tmp_path: Path, ending: str) -> None:
    data = b"\xef\xbb\xbf" + WRITTEN[ending](ROWS[:2]).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") + b"\r\n\r\n"
    texts = [text for text in read(tmp_path, f"a{ending}", data)["task"].to_list() if text]
    assert [text.strip() for text in texts] == [text.strip() for text in TEXTS[:2]]


def test_only_line_feed_and_carriage_return_end_a_line_of_text(tmp_path: Path) -> None:
    odd = "a\u2028b\x85c\x0bd\x0ce\u2029f"
    rows = read(tmp_path, "a.txt", f"{odd}\r\nold\rmac\n\nlast".encode())
    assert rows["task"].to_list() == [odd, "old", "mac", "", "last"]


@pytest.mark.parametrize("header", ["Task,Language", "TASK , language", '"task","LANGUAGE"'])
def test_task_and_language_are_known_in_any_case_of_letters(tmp_path: Path, header: str) -> None:
    rows = read(tmp_path, "a.csv", f"{header},id\nx,de,1\n".encode())
    assert rows.to_dicts() == [{"task": "x", "language": "de", "id": "1"}]


def test_an_exact_name_is_meant_and_of_two_others_none(tmp_path: Path) -> None:
    rows = read(tmp_path, "a.csv", b"Task,task,Language,LANGUAGE,language\na,b,c,d,e\n")
    assert rows.columns == ["Task", "task", "Language", "LANGUAGE", "language"]
    with pytest.raises(SchemaError, match=r"a\.csv: the columns 'Task' and 'TASK' may both be meant as 'task'"):
        read(tmp_path, "a.csv", b"Task,TASK\na,b\n")


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".txt"])
def test_rows_survive_being_read_in_pieces(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "PIECE_BYTES", 7)
    monkeypatch.setattr(source, "BATCH_ROWS", 2)
    assert read(tmp_path, f"a{ending}", WRITTEN[ending](ROWS))["task"].to_list() == TEXTS


def test_columns_that_only_some_lines_have_are_null_in_the_others(tmp_path: Path) -> None:
    rows = read(tmp_path, "a.jsonl", b'{"task": "a"}\n\n{"task": "b", "level": 2}\n{"task": null, "level": 2.5}\n')
    assert rows.rows() == [("a", None), ("b", 2.0), (None, 2.5)]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), min_size=1))
def test_any_text_survives_jsonl(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    folder = tmp_path_factory.mktemp("jsonl")
    assert read(folder, "a.jsonl", as_jsonl([{"task": text} for text in texts]))["task"].to_list() == texts


BROKEN: dict[str, tuple[str, bytes, list[str]]] = {
    "no column": ("a.csv", b"title,id\nx,1\n", ["no column 'task'", "'title', 'id'"]),
    "no column in JSON": ("a.jsonl", b'{"title": "x"}\n', ["no column 'task'", "'title'"]),
    "numbers": ("a.jsonl", b'{"task": 1}\n', ["'task' holds Int64", "text"]),
    "JSON nested too deep": (
        "a.jsonl",
        b'{"task": "x"}\n{"task": ' + b"[" * 9000 + b"]" * 9000 + b"}\n",
        ["line 2", "too deep"],
    ),
    "broken JSON": ("a.jsonl", b'{"task": "x"}\n\n{"task": nope}\n', ["line 3", "not valid JSON"]),
    "a list": ("a.jsonl", b'{"task": "x"}\n[1]\n', ["line 2", "not a JSON object"]),
    "cut off": ("a.jsonl", b'{"task": "x"}\n{"task": "y', ["line 2", "not valid JSON"]),
    "not UTF-8 in JSON": ("a.jsonl", b'{"task": "x"}\n{"task": "\xff"}\n', ["line 2", "utf-8"]),
    "not UTF-8 in text": ("a.txt", b"x\ny\n\xff\n", ["line 3", "not UTF-8"]),
    "not UTF-8 in CSV": ("a.csv", b"task,id\nx,1\n\xff,2\n", ["line 3", "UTF-8"]),
    "too many fields after a text of two lines": ("a.csv.gz", gzip.compress(b'task,id\n"x\nx",1\ny,2,3\n'), ["line 4"]),
    "too many fields": ("a.csv", b"task,id\nx,1\ny,2,3\n", ["line 3", "3 fields"]),
    "a quote that never ends": ("a.csv", b'task,id\nx,1\n"y,2\n', ["line 3"]),
    "not Parquet": ("a.parquet", b"PAR1 no PAR1", ["cannot be read"]),
    "not gzip": ("a.jsonl.gz", b'{"task": "x"}', ["cannot be unpacked"]),
    "cut off gzip": ("a.jsonl.gz", gzip.compress(as_jsonl(ROWS))[:-9], ["cannot be unpacked"]),
    "not zstd": ("a.txt.zst", b"text", ["cannot be unpacked"]),
    "Parquet in a broken pack": ("a.parquet.zst", b"PAR1", ["cannot be unpacked"]),
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_an_object_that_cannot_be_read_is_named_with_line_and_cause(tmp_path: Path, name: str) -> None:
    key, data, said = BROKEN[name]
    with pytest.raises(SourceError) as caught:
        read(tmp_path, key, data)
    message = str(caught.value)
    assert all(part in message for part in (f"s3://b/{key}", *said)), message
    assert "\n" not in message


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".txt"])
def test_an_empty_object_holds_no_description(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "object"
    path.touch()
    assert sum(batch.height for batch in source.read_batches(path, f"s3://b/a{ending}")) == 0


def test_an_object_whose_name_would_be_read_as_a_version_is_named(bucket: str) -> None:
    boto3.client("s3").put_object(Bucket=bucket.removeprefix("s3://"), Key="tasks/a?versionId=x.jsonl", Body=b"{}")
    with pytest.raises(SourceError, match=r"/tasks/a\?versionId=x\.jsonl .*Rename it"):
        list_source(f"{bucket}/tasks", f"{bucket}/out")
