import fcntl
import itertools
import json
import subprocess
import sys
import threading
import time
import uuid
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.servers import ROOT
from tasks.clients import frames
from tasks.clients.journal import Journal
from tasks.clients.leftovers import upload_leftovers
from tasks.clients.lookup import find_segments, keep_earliest, look_up
from tasks.core.columns import COMPLETIONS, JOURNAL
from tasks.core.errors import StorageError

NOON = datetime(2026, 11, 1, 12, 0, 0, 0, UTC)


def completion(**changes: Any) -> dict[str, Any]:
    texts = {"text": "a text", "finish_reason": "stop", "model_answered": "m", "error": None}
    numbers = {"input_tokens": 200, "output_tokens": 40, "attempts": 1, "throttled": 0}
    return {**texts, **numbers, "cost_usd": 1e-5, "latency_s": 0.1, "completed_at": NOON} | changes


COMPLETIONS_KEPT = {
    "plain": completion(),
    "line ends": completion(text='two\nlines\r\nand \u2028 "quotes" \\ and nul \0'),
    "every script": completion(text="ü 漢字 ไทย 🎉"),
    "empty": completion(text=""),
    "nothing": completion(text=None, finish_reason=None, model_answered=None, cost_usd=None, error="no_choices"),
    "no price": completion(cost_usd=None, input_tokens=None, output_tokens=None),
    "free": completion(cost_usd=0.0),
    "a microsecond": completion(completed_at=NOON + timedelta(microseconds=1)),
}


def find(uri: str, *keys: str) -> pl.DataFrame:
    wanted = pl.LazyFrame({"request_key": [*(keys or COMPLETIONS_KEPT), "never asked"]})
    return look_up(uri, wanted).collect()


def test_every_completion_is_found_as_it_was_appended(bucket: str, tmp_path: Path) -> None:
    uri = f"{bucket}/journal/recipe=r"
    with Journal(uri, tmp_path) as record:
        for key, kept in COMPLETIONS_KEPT.items():
            record.append(key, kept)
    found = {row.pop("request_key"): row for row in find(uri).select(*JOURNAL).to_dicts()}
    assert found == COMPLETIONS_KEPT
    assert list(next(iter(found.values()))) == list(COMPLETIONS)


@pytest.mark.parametrize(
    ("cut", "rows_left"), [(0, ["plain", "free"]), (1, ["plain"]), (9_000, ["plain"]), (9_300, [])]
)
def test_a_line_that_a_crash_cut_off_is_no_row(bucket: str, tmp_path: Path, cut: int, rows_left: list[str]) -> None:
    uri = f"{bucket}/journal/recipe=r"
    rows = [{"request_key": "plain", **completion()}, {"request_key": "free", **completion(text="x" * 9_000)}]
    lines = [{"journal": uri}, *(row | {"completed_at": NOON.isoformat()} for row in rows)]
    body = "".join(json.dumps(line) + "\n" for line in lines).encode()
    (tmp_path / "x-000001.jsonl").write_bytes(body[: len(body) - cut])
    upload_leftovers(uri, tmp_path)
    assert find(uri)["request_key"].sort(descending=True).to_list() == rows_left


def test_a_file_without_a_row_leaves_nothing(bucket: str, tmp_path: Path) -> None:
    uri = f"{bucket}/journal/recipe={uuid.uuid4().hex}"
    (tmp_path / "x-000001.jsonl").write_bytes(f'{{"journal": "{uri}"}}\n{{"request_key": "a"'.encode())
    upload_leftovers(uri, tmp_path)
    assert (find(uri).height, list(tmp_path.iterdir())) == (0, [])


KILLED = """
import os, sys
from datetime import UTC, datetime
from pathlib import Path
from tasks.clients.journal import Journal
from tests.test_journal import completion
record = Journal(sys.argv[1], Path(sys.argv[2]), segment_seconds=3600)
with record:
    for number in range(3):
        record.append(f"key {number}", completion())
    os.kill(os.getpid(), 9)
"""


def test_what_a_killed_process_was_paid_for_is_uploaded_by_the_next(bucket: str, tmp_path: Path) -> None:
    uri = f"{bucket}/journal/recipe=r"
    killed = subprocess.run([sys.executable, "-c", KILLED, uri, str(tmp_path)], check=False, cwd=ROOT)
    assert killed.returncode == -9
    assert find_segments(uri) == []
    with Journal(f"{bucket}/journal/recipe=another", tmp_path):
        found = find(uri, "key 0", "key 1", "key 2", "key 3")
    assert sorted(found["request_key"]) == ["key 0", "key 1", "key 2"]
    assert list(tmp_path.iterdir()) == []


def test_a_living_writers_file_is_left_alone_and_so_is_another_destinations(bucket: str, tmp_path: Path) -> None:
    uri, other = f"{bucket}/journal/recipe=r", f"{bucket}/elsewhere/journal/recipe=r"
    with Journal(uri, tmp_path, segment_seconds=3600) as record:
        record.append("plain", completion())
        upload_leftovers(uri, tmp_path)
        upload_leftovers(other, tmp_path)
        assert find_segments(uri) == []
        assert len(list(tmp_path.iterdir())) == 1
    assert find(uri)["request_key"].to_list() == ["plain"]


@pytest.mark.runs
def test_a_bucket_that_does_not_answer_loses_nothing(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"{bucket}/journal/recipe=r"
    with Journal(uri, tmp_path, segment_seconds=3600) as record:
        record.append("plain", completion())
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert isinstance(record.lost, StorageError)
    monkeypatch.undo()
    with Journal(uri, tmp_path) as again:
        assert find(uri)["request_key"].to_list() == ["plain"]
    assert again.lost is None


def test_a_local_file_that_cannot_be_read_is_told_of_and_ends_no_uploads(bucket: str, tmp_path: Path) -> None:
    uri = f"{bucket}/journal/recipe=r"
    with Journal(uri, tmp_path, segment_seconds=0.1) as record:
        record.append("plain", completion())
        (broken,) = tmp_path.iterdir()
        kept = broken.rename(tmp_path / "kept")
        broken.mkdir()
        while record.lost is None:
            time.sleep(0.01)
        assert str(broken) in str(record.lost)
        broken.rmdir()
        kept.rename(broken)
        while not find_segments(uri):
            time.sleep(0.01)
    assert record.lost is None
    assert find(uri)["request_key"].to_list() == ["plain"]


def test_a_flush_waits_for_who_reads_its_file(bucket: str, tmp_path: Path) -> None:
    uri = f"{bucket}/journal/recipe=r"
    with ThreadPoolExecutor(1) as pool, Journal(uri, tmp_path, segment_seconds=3600) as record:
        record.append("plain", completion())
        (path,) = tmp_path.iterdir()
        with path.open("r+b") as other:
            record._close_file()
            fcntl.flock(other, fcntl.LOCK_EX)
            flushing = pool.submit(record.flush)
            with pytest.raises(TimeoutError):
                flushing.result(0.5)
        flushing.result()
        assert find(uri)["request_key"].to_list() == ["plain"]


def test_a_flush_does_not_wait_for_the_file_that_is_written_meanwhile(bucket: str, tmp_path: Path) -> None:
    over = threading.Event()

    def write() -> int:
        for number in itertools.count():
            if over.is_set():
                return number
            record.append(f"key {number}", completion())
        raise AssertionError

    uri = f"{bucket}/journal/recipe=r"
    with ThreadPoolExecutor(2) as pool, Journal(uri, tmp_path, segment_seconds=3600) as record:
        writing = pool.submit(write)
        flushing = pool.submit(lambda: deque(map(Journal.flush, [record] * 20), maxlen=0))
        try:
            flushing.result(120)
        finally:
            over.set()
            # What the flush would wait for, so that the test ends.
            with record._lock:
                record._close_file()
            # All it writes is written before the journal is closed.
            written = writing.result(120)
    assert frames.scan_frames(find_segments(uri)).select(pl.len()).collect().item() == written
    assert list(tmp_path.iterdir()) == []


def test_a_second_upload_of_a_file_finds_itself(bucket: str, tmp_path: Path) -> None:
    uri = f"{bucket}/journal/recipe=r"
    row = {"request_key": "plain", **completion(completed_at=NOON.isoformat())}
    for rows in (1, 1, 2):
        body = "".join(json.dumps(line) + "\n" for line in [{"journal": uri}, *[row] * rows])
        (tmp_path / "x-000001.jsonl").write_text(body)
        if rows == 1:
            upload_leftovers(uri, tmp_path)
    assert len(find_segments(uri)) == 1
    with pytest.raises(StorageError, match="holds less than"):
        upload_leftovers(uri, tmp_path)
    assert (tmp_path / "x-000001.jsonl").exists()


def test_the_earliest_answer_of_a_request_wins_everywhere_and_a_failure_is_none() -> None:
    failed = {"request_key": "a", "segment": "0", "completed_at": NOON - timedelta(days=1), "error": "call_failed"}
    rows: list[dict[str, Any]] = [
        failed,
        {"request_key": "a", "text": "late", "segment": "1", "completed_at": NOON + timedelta(seconds=1)},
        {"request_key": "a", "text": "second", "segment": "2", "completed_at": NOON},
        {"request_key": "a", "text": "first", "segment": "1", "completed_at": NOON},
        {"request_key": "b", "text": "only", "segment": "9", "completed_at": NOON},
    ]
    for order in itertools.permutations(rows):
        kept = keep_earliest(pl.DataFrame(order, schema_overrides={"error": pl.String})).sort("request_key")
        assert kept["text"].to_list() == ["first", "only"]


def test_lines_that_a_dead_machine_has_damaged_take_no_others_with_them(bucket: str, tmp_path: Path) -> None:
    uri = f"{bucket}/journal/recipe=r"
    record = Journal(uri, tmp_path, segment_seconds=3600)
    for key in ("before", "lost", "after"):
        record.append(key, completion())
    record._close_file()
    (file,) = tmp_path.glob("*.jsonl")
    header, before, lost, after, _ = file.read_bytes().split(b"\n")
    file.write_bytes(b"\n".join([header, before, b"\0" * len(lost), after, b""]))
    upload_leftovers(uri, tmp_path)
    assert set(find(uri, "before", "lost", "after")["request_key"]) == {"before", "after"}
    assert [path.suffix for path in tmp_path.iterdir()] == [".damaged"]
