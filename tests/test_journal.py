import json
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tasks.clients import journal
from tasks.core.columns import COMPLETIONS, JOURNAL

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


def look_up(uri: str) -> pl.DataFrame:
    wanted = pl.LazyFrame({"request_key": [*COMPLETIONS_KEPT, "never asked"]})
    return journal.look_up(uri, wanted).collect()


def test_every_completion_is_found_as_it_was_appended(bucket: str, tmp_path: Path) -> None:
    uri = f"{bucket}/journal/recipe=r"
    with journal.Journal(uri, tmp_path) as record:
        for key, kept in COMPLETIONS_KEPT.items():
            record.append(key, kept)
    found = {row.pop("request_key"): row for row in look_up(uri).select(*JOURNAL).to_dicts()}
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
    journal.upload_leftovers(tmp_path, uri)
    assert look_up(uri)["request_key"].sort(descending=True).to_list() == rows_left


def test_a_file_without_a_row_leaves_nothing(bucket: str, tmp_path: Path) -> None:
    uri = f"{bucket}/journal/recipe={uuid.uuid4().hex}"
    folder = tmp_path / "journal"
    folder.mkdir()
    (folder / "x-000001.jsonl").write_bytes(f'{{"journal": "{uri}"}}\n{{"request_key": "a"'.encode())
    journal.upload_leftovers(folder, uri)
    assert (look_up(uri).height, list(folder.iterdir())) == (0, [])
