import os
import resource
import tempfile
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pytest

from tasks.clients import access, table, table_files
from tasks.clients.table import Publish
from tasks.core.errors import StorageError, UsageError
from tests.bucket import read_table

DAY = "2026-01-01"


def rows(*numbers: int, day: str = DAY) -> pl.LazyFrame:
    return pl.LazyFrame(
        {"partition": [day] * len(numbers), "number": list(numbers)},
        schema={"partition": pl.String, "number": pl.Int64},
    )


def what(number: int, day: str = DAY) -> Publish:
    return Publish(day, f"run-{number}", f"mark-{day}-{number}", number)


def test_a_destination_without_a_table_holds_nothing(bucket: str) -> None:
    uri = f"{bucket}/pairs"
    assert table.open_table(uri) is None
    assert (table.scan(None), table.read_schema(None), table.last_publish(None, DAY)) == (None, {}, 0)


def test_a_destination_in_the_table_of_another_one_is_refused(bucket: str) -> None:
    table.publish(f"{bucket}/out/pairs", rows(1), what(1), overwrite=False)
    for inside in ("out/pairs", "out/pairs/mine"):
        with pytest.raises(UsageError, match=rf"in the table {bucket}/out/pairs of the destination {bucket}/out\."):
            table.check_outside(f"{bucket}/{inside}")
    for outside in ("out", "out/other", "pairs", "pairs/out"):
        table.check_outside(f"{bucket}/{outside}")


def test_several_first_publishes_at_once_all_succeed(bucket: str) -> None:
    uri = f"{bucket}/pairs"
    days = [f"2026-01-0{day}" for day in range(1, 5)]
    with ThreadPoolExecutor(4) as pool:
        publishes = [pool.submit(table.publish, uri, rows(1, day=day), what(1, day), overwrite=False) for day in days]
        for publish in publishes:
            publish.result()
    assert sorted(read_table(uri)["partition"]) == days


def test_added_rows_stand_beside_the_others_and_an_overwrite_replaces_its_partition_alone(bucket: str) -> None:
    uri = f"{bucket}/pairs"
    table.publish(uri, rows(1, 2), what(1), overwrite=False)
    table.publish(uri, rows(9, day="2026-01-02"), what(1, "2026-01-02"), overwrite=False)
    table.publish(uri, rows(3), what(2), overwrite=False)
    pinned = table.open_table(uri)
    assert sorted(read_table(uri, DAY)["number"]) == [1, 2, 3]
    table.publish(uri, rows(7), what(3), overwrite=True)
    assert sorted(read_table(uri)["number"]) == [7, 9]
    before = table.scan(pinned, DAY)
    assert before is not None
    assert sorted(before.collect()["number"]) == [1, 2, 3], "a reader keeps the version that it opened"
    newest = table.open_table(uri)
    assert table.last_publish(newest, DAY) == 3
    assert table.published_partitions(newest) == [DAY, "2026-01-02"]


def test_rows_keep_their_order_in_files_of_a_bounded_size(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_files, "FILE_ROWS", 4)
    uri = f"{bucket}/pairs"
    numbers = [9, 8, 7, 6, 5, 4, 3, 2, 1]
    table.publish(uri, rows(*numbers), what(1), overwrite=False)
    table.publish(uri, rows(0), what(2), overwrite=False)
    held = table.open_table(uri)
    assert held is not None
    files = [
        pl.read_parquet(file, storage_options=access.object_store_options())
        for file in table.partition_files(held, DAY)
    ]
    assert [file.height for file in files] == [4, 4, 1, 1]
    assert pl.concat(files)["number"].to_list() == [*numbers, 0]
    assert held.count() == len(numbers) + 1


def test_an_empty_overwrite_empties_the_partition(bucket: str) -> None:
    uri = f"{bucket}/pairs"
    table.publish(uri, rows(1), what(1), overwrite=False)
    table.publish(uri, rows(), what(2), overwrite=True)
    assert (read_table(uri).height, table.last_publish(table.open_table(uri), DAY)) == (0, 2)


def test_a_new_column_is_null_in_the_rows_before_it(bucket: str) -> None:
    uri = f"{bucket}/pairs"
    table.publish(uri, rows(1), what(1), overwrite=False)
    table.publish(uri, rows(2).with_columns(new=pl.lit("x")), what(2), overwrite=False)
    assert read_table(uri).sort("number").select("number", "new").rows() == [(1, None), (2, "x")]
    assert table.read_schema(table.open_table(uri)) == {
        "partition": pl.String(),
        "number": pl.Int64(),
        "new": pl.String(),
    }


def test_rows_of_another_type_are_refused_and_nothing_of_them_is_seen(bucket: str) -> None:
    uri = f"{bucket}/pairs"
    table.publish(uri, rows(1), what(1), overwrite=False)
    with pytest.raises(StorageError, match=uri):
        table.publish(uri, rows(2).with_columns(number=pl.lit("two")), what(2), overwrite=False)
    assert read_table(uri)["number"].to_list() == [1]


@pytest.mark.parametrize("name", ["pairs", "ü b", "a+b=c&(d)"])
def test_a_partitions_files_are_readable_under_any_name(bucket: str, name: str) -> None:
    uri = f"{bucket}/{name}"
    table.publish(uri, rows(1), what(1), overwrite=False)
    table.publish(uri, rows(2, day="2026-01-02"), what(1, "2026-01-02"), overwrite=False)
    table.publish(uri, rows(3), what(2), overwrite=True)
    held = table.open_table(uri)
    assert held is not None
    files = table.partition_files(held, DAY)
    assert pl.read_parquet(files, storage_options=access.object_store_options())["number"].to_list() == [3]


def test_a_full_disk_is_told_from_a_table_that_takes_no_commit(bucket: str) -> None:
    uri = f"{bucket}/pairs"
    table.publish(uri, rows(1), what(1), overwrite=False)
    many = rows(*(int.from_bytes(os.urandom(7)) for _ in range(50_000)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(StorageError) as caught:
            table.publish(uri, many, what(2), overwrite=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(caught.value).startswith(f"The disk of {tempfile.gettempdir()} is full")
    assert read_table(uri)["number"].to_list() == [1]
    table.publish(uri, many, what(2), overwrite=False)
    assert read_table(uri).height == 50_001
