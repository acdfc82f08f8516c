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
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.clients import source, unpacking
from tasks.clients.descriptions import list_source, read_descriptions
from tasks.core import width
from tasks.core.errors import SchemaError, SourceError
from tests.bucket import put
from tests.orders import ORDER

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
    monkeypatch.setattr(unpacking, "PIECE_BYTES", 7)
    monkeypatch.setattr(source, "BATCH_ROWS", 2)
    assert read(tmp_path, f"a{ending}", WRITTEN[ending](ROWS))["task"].to_list() == TEXTS


def test_of_long_rows_of_csv_a_frame_has_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "object"
    monkeypatch.setattr(source, "BATCH_BYTES", 50_000)
    for text, most in ((b"a line\n" * 1_000, 7), (b"short", 1_000)):
        path.write_bytes(b"task,id\n" + b"".join(b'"%s",%d\n' % (text, row) for row in range(100)))
        heights = [batch.height for batch in source.read_batches(path, "s3://b/a.csv")]
        assert (sum(heights), max(heights)) == (100, min(most, 100))


def test_columns_that_only_some_lines_have_are_null_in_the_others(tmp_path: Path) -> None:
    rows = read(tmp_path, "a.jsonl", b'{"task": "a"}\n\n{"task": "b", "level": 2}\n{"task": null, "level": 2.5}\n')
    assert rows.rows() == [("a", None), ("b", 2.0), (None, 2.5)]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), min_size=1))
def test_any_text_survives_jsonl(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    folder = tmp_path_factory.mktemp("jsonl")
    assert read(folder, "a.jsonl", as_jsonl([{"task": text} for text in texts]))["task"].to_list() == texts


# What is put in the place of some bytes of an object: at this share of its length, so many fewer, and these.
CHANGES = st.tuples(
    st.floats(0, 1),
    st.integers(0, 9),
    st.one_of(
        st.binary(max_size=4), st.sampled_from([b'"', b"\n", b"\r", b"[", b"{", b"\0", b'"task"', b"null", b"1e999"])
    ),
)


def change(data: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    for share, fewer, more in changes:
        at = round(share * len(data))
        data = data[:at] + more + data[at + fewer :]
    return data


def is_read_or_named(path: Path, uri: str, data: bytes) -> bool:
    """Whether reading `data` gives frames with descriptions, or an error of ours that names `uri` on one line."""
    path.write_bytes(data)
    try:
        return all(batch.schema["task"] == pl.String for batch in source.read_batches(path, uri))
    except (SourceError, SchemaError) as error:
        return uri in str(error) and "\n" not in str(error)


@settings(max_examples=300)
@given(st.sampled_from(list(WRITTEN)), st.sampled_from(list(PACKED)), *[st.lists(CHANGES, max_size=2)] * 2)
def test_any_bytes_are_rows_or_one_clear_error(
    tmp_path_factory: pytest.TempPathFactory,
    ending: str,
    packing: str,
    inside: list[tuple[float, int, bytes]],
    outside: list[tuple[float, int, bytes]],
) -> None:
    data = change(PACKED[packing](change(WRITTEN[ending](ROWS), inside)), outside)
    assert is_read_or_named(tmp_path_factory.getbasetemp() / "any", f"s3://b/a{ending}{packing}", data)


@given(st.sampled_from(list(WRITTEN)), st.sampled_from(list(PACKED)), st.binary(max_size=60))
def test_bytes_that_are_of_no_format_are_rows_or_one_clear_error(
    tmp_path_factory: pytest.TempPathFactory, ending: str, packing: str, data: bytes
) -> None:
    assert is_read_or_named(tmp_path_factory.getbasetemp() / "any", f"s3://b/a{ending}{packing}", data)


def test_a_damaged_parquet_is_read_whole_or_named(tmp_path: Path) -> None:
    buffer = BytesIO()
    pl.DataFrame({"task": TEXTS}).write_parquet(buffer)
    read_whole = 0
    for at in range(len(data := buffer.getvalue())):
        try:
            rows = read(tmp_path, "a.parquet", data[:at] + b"\xff" + data[at + 1 :])
        except (SourceError, SchemaError):
            continue
        assert rows.height == len(TEXTS)
        read_whole += 1
    assert 0 < read_whole < len(data)


def keys(count: int) -> list[str]:
    return [f"k{number}" for number in range(count)]


WIDE: dict[str, Callable[[int], bytes]] = {
    "a.jsonl": lambda count: as_jsonl([{"task": "x", **dict.fromkeys(keys(count - 1), 1)}]),
    # A key of its own in each line, as where a dictionary is written by what it names.
    "b.jsonl": lambda count: as_jsonl([{"task": "x", key: 1} for key in keys(count - 1)]) + b"\n",
    "c.jsonl": lambda count: as_jsonl([{"task": "x", "by": {key: 1}} for key in keys(count - 2)]) + b"\n",
    "a.csv": lambda count: f"task,{','.join(keys(count - 1))}\nx{',1' * (count - 1)}\n".encode(),
    "a.parquet": lambda count: as_wide_parquet(["task", *keys(count - 1)]),
}


def as_wide_parquet(columns: list[str]) -> bytes:
    buffer = BytesIO()
    pl.DataFrame({name: ["x"] for name in columns}).write_parquet(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("name", list(WIDE))
def test_more_columns_than_a_frame_can_have_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(width, "MOST_COLUMNS", 60)
    assert read(tmp_path, name, WIDE[name](60))["task"].unique().to_list() == ["x"]
    with pytest.raises(SourceError, match=rf"s3://b/{name} has more than 60 columns"):
        read(tmp_path, name, WIDE[name](61))


def test_very_many_columns_are_refused_at_once(tmp_path: Path) -> None:
    # All of them read would take minutes and gigabytes.
    with pytest.raises(SourceError, match=r"more than 1,000 columns"):
        read(tmp_path, "b.jsonl", WIDE["b.jsonl"](60_000))


@pytest.mark.parametrize("level", ['{"a": %s}', "[%s]"])
def test_columns_are_nested_so_deep_and_no_deeper(tmp_path: Path, level: str) -> None:
    value = "1"
    for _ in range(width.MOST_DEPTH - 1):
        value = level % value
    assert read(tmp_path, "a.jsonl", f'{{"task": "x", "n": {value}}}'.encode()).height == 1
    with pytest.raises(SourceError, match=r"s3://b/a\.jsonl has a column that is nested deeper than 32 levels"):
        read(tmp_path, "a.jsonl", f'{{"task": "x", "n": {level % value}}}'.encode())


def test_objects_have_no_more_columns_together_than_one(bucket: str, tmp_path: Path) -> None:
    for number in range(3):
        some = [f"of {number}, {key}" for key in keys(400)]
        put(bucket, f"tasks/{number}.csv", f"task,{','.join(map(json.dumps, some))}\nx{',1' * 400}\n")
    with pytest.raises(SourceError, match=r"2\.csv has more than 1,000 columns"):
        read_descriptions(list_source(f"{bucket}/tasks", f"{bucket}/out"), tmp_path, ORDER)


BROKEN: dict[str, tuple[str, bytes, list[str]]] = {
    "no column": ("a.csv", b"title,id\nx,1\n", ["no column 'task'", "'title', 'id'"]),
    "no column in JSON": ("a.jsonl", b'{"title": "x"}\n', ["no column 'task'", "'title'"]),
    "some languages": ("a.jsonl", b'{"task": "x", "language": ["German"]}\n', ["'language'", "List(String)"]),
    "numbers": ("a.jsonl", b'{"task": 1}\n', ["'task' holds Int64", "text"]),
    "JSON nested too deep": (
        "a.jsonl",
        b'{"task": "x"}\n{"task": ' + b"[" * 9000 + b"]" * 9000 + b"}\n",
        ["line 2", "too deep"],
    ),
    "broken JSON": ("a.jsonl", b'{"task": "x"}\n\n{"task": nope}\n', ["line 3", "not valid JSON"]),
    "not a number": ("a.jsonl", b'{"task": "x"}\n{"task": "y", "n": NaN}\n', ["line 2", "NaN"]),
    "too large a number": ("a.jsonl", b'{"task": "x"}\n{"task": "y", "n": 1e999}\n', ["line 2", "1e999"]),
    "a list": ("a.jsonl", b'{"task": "x"}\n[1]\n', ["line 2", "not a JSON object"]),
    "cut off": ("a.jsonl", b'{"task": "x"}\n{"task": "y', ["line 2", "not valid JSON"]),
    "not UTF-8 in JSON": ("a.jsonl", b'{"task": "x"}\n{"task": "\xff"}\n', ["line 2", "utf-8"]),
    "not UTF-8 in text": ("a.txt", b"x\ny\n\xff\n", ["line 3", "not UTF-8"]),
    "not UTF-8 in CSV": ("a.csv", b"task,id\nx,1\n\xff,2\n", ["line 3", "UTF-8"]),
    "too many fields after a text of two lines": ("a.csv.gz", gzip.compress(b'task,id\n"x\nx",1\ny,2,3\n'), ["line 4"]),
    "too many fields": ("a.csv", b"task,id\nx,1\ny,2,3\n", ["line 3", "3 fields"]),
    "a quote that never ends": ("a.csv", b'task,id\nx,1\n"y,2\n', ["line 3"]),
    "a quote in a field without": (
        "a.csv",
        b'task,id\n"x ""x"",\nx",1\n5" pipe,2\ny,3\n',
        ["line 4", "has a quote in a field that is not quoted"],
    ),
    "UTF-16": ("a.csv", "task,id\nx,1\n".encode("utf-16"), ["UTF-16", "Save it as UTF-8"]),
    "packed UTF-16": ("a.txt.gz", gzip.compress("x\n".encode("utf-16")), ["UTF-16", "Save it as UTF-8"]),
    "not Parquet": ("a.parquet", b"PAR1 no PAR1", ["cannot be read"]),
    "damaged gzip": ("a.csv.gz", gzip.compress(b"")[:10] + b"\7" * 9, ["cannot be unpacked"]),
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


def test_of_another_destination_under_the_source_only_its_task_descriptions_are_read(bucket: str) -> None:
    journal = f"other/journal/recipe={'0' * 16}/segments/a.parquet"
    for key in ("a.jsonl", "other/tasks/b.jsonl", journal, "other/pairs/c.parquet", "no/journal/recipe=cake/d.txt"):
        put(bucket, key, "{}")
    names = [item.uri.removeprefix(f"{bucket}/") for item in list_source(bucket, f"{bucket}/out")]
    assert names == ["a.jsonl", "no/journal/recipe=cake/d.txt", "other/tasks/b.jsonl"]
