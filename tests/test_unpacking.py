import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from tasks.clients import source, unpacking
from tasks.core.errors import SourceError

MIB = 1 << 20
# Packed block by block: a text of gigabytes is none of this test's memory.
PACKERS: dict[str, Callable[..., object]] = {"": open, ".gz": gzip.open, ".zst": zstandard.open}


def write(path: Path, packing: str, *, head: bytes = b"", block: bytes, times: int, end: bytes = b"") -> None:
    with PACKERS[packing](path, "wb") as packed:  # type: ignore[attr-defined]
        packed.write(head)
        for _ in range(times):
            packed.write(block)
        packed.write(end)


def read(path: Path, name: str) -> int:
    return sum(batch.height for batch in source.read_batches(path, f"s3://b/{name}"))


@pytest.mark.parametrize("packing", list(PACKERS))
@pytest.mark.parametrize(("ending", "head"), [(".jsonl", b'{"task": "x"}\n{"task": "'), (".txt", b"x\n")])
def test_a_line_without_an_end_is_named_in_bounded_memory(
    tmp_path: Path, ending: str, head: bytes, packing: str
) -> None:
    path = tmp_path / "object"
    write(path, packing, head=head, block=b"a" * MIB, times=96)
    tracemalloc.start()
    with pytest.raises(SourceError, match=rf"s3://b/a{ending}{packing}, line 2: .* 16 MiB"):
        read(path, f"a{ending}{packing}")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * unpacking.LINE_BYTES


@pytest.mark.parametrize("more", [0, 1])
def test_a_line_of_the_limit_is_read_and_a_longer_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: int
) -> None:
    monkeypatch.setattr(unpacking, "LINE_BYTES", 30)
    monkeypatch.setattr(unpacking, "PIECE_BYTES", 7)
    path = tmp_path / "object"
    path.write_bytes(b"one\n" + b"a" * (30 + more) + b"\nthree\n")
    if not more:
        assert read(path, "a.txt") == 3
        return
    with pytest.raises(SourceError, match="line 2"):
        read(path, "a.txt")


def test_lines_that_end_in_a_carriage_return_alone_may_be_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "LINE_BYTES", 30)
    for size in (1, 3, 7):
        monkeypatch.setattr(unpacking, "PIECE_BYTES", size)
        path = tmp_path / "object"
        path.write_bytes(b"old mac\r" * 20 + b"windows\r\n" * 20)
        assert read(path, "a.txt") == 40


@pytest.mark.parametrize("packing", [".gz", ".zst"])
def test_what_unpacks_to_far_more_than_text_would_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packing: str
) -> None:
    monkeypatch.setattr(unpacking, "UNPACKED_BYTES", 8 * MIB)
    path = tmp_path / "object"
    write(path, packing, block=b"\n" * MIB, times=8)
    assert read(path, f"a.txt{packing}") == 8 * MIB
    write(path, packing, block=b"\n" * MIB, times=8, end=b"\n")
    with pytest.raises(SourceError, match=f"s3://b/a.txt{packing} unpacks to more than 200 times its size"):
        read(path, f"a.txt{packing}")
    # Not packed, it costs whoever has uploaded it as much as us.
    write(path, "", block=b"\n" * MIB, times=9)
    assert read(path, "a.txt") == 9 * MIB


@pytest.mark.parametrize("packing", list(PACKERS))
@pytest.mark.parametrize("row", [b'"y', b"y", b'"a ""quoted"" one", and y'])
def test_a_row_of_csv_without_an_end_is_named_by_its_line(tmp_path: Path, row: bytes, packing: str) -> None:
    path = tmp_path / "object"
    block = b"a, b\n" * (MIB // 5) if row == b'"y' else b"a" * MIB
    write(path, packing, head=b'task,id\nx,1\n"two\nlines",2\n' + row, block=block, times=64)
    tracemalloc.start()
    with pytest.raises(SourceError, match=rf"s3://b/a\.csv{packing}, line 5: this row has no end within 16 MiB"):
        read(path, f"a.csv{packing}")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < unpacking.LINE_BYTES


def test_rows_of_csv_may_hold_lines_and_quotes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = b"task,id\n" + b'"a ""text"" of\ntwo lines, quoted","1"\nplain,2\n' * 40
    path = tmp_path / "object"
    path.write_bytes(rows)
    monkeypatch.setattr(unpacking, "LINE_BYTES", 60)
    for size in (1, 2, 3, 7, 50):
        monkeypatch.setattr(unpacking, "PIECE_BYTES", size)
        assert read(path, "a.csv") == 80


def test_a_zstd_may_be_cut_off_anywhere(tmp_path: Path) -> None:
    whole = zstandard.compress(b"match thing\n")
    path = tmp_path / "object"
    path.write_bytes(whole + whole)
    assert read(path, "a.txt.zst") == 2
    for cut in range(1, len(whole)):
        path.write_bytes(whole + whole[:cut])
        with pytest.raises(SourceError, match="cannot be unpacked"):
            read(path, "a.txt.zst")


@pytest.mark.parametrize("missing", [1, 4, 30])
@pytest.mark.parametrize("ending", [".txt", ".jsonl"])
def test_a_zstd_that_is_cut_off_is_named_and_not_read_as_a_shorter_one(
    tmp_path: Path, ending: str, missing: int
) -> None:
    lines = b"".join(b'{"task": "match thing %d with its name"}\n' % row for row in range(10_000))
    whole = zstandard.compress(lines)
    path = tmp_path / "object"
    path.write_bytes(whole + whole)
    assert read(path, f"a{ending}.zst") == 20_000
    path.write_bytes((whole + whole)[:-missing])
    with pytest.raises(SourceError, match="cannot be unpacked"):
        read(path, f"a{ending}.zst")
