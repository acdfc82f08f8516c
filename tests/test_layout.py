import pytest

from tasks.core.errors import UsageError
from tasks.core.layout import Layout, check_partition, check_uri, split_uri


@pytest.mark.parametrize(
    "uri", ["s3://bucket/prefix", "s3://bucket/a/b.jsonl", "s3://my-bucket.x/ü b", "s3://bucket/a+b=c&(d)@'e'"]
)
def test_an_s3_uri_is_taken_as_it_is(uri: str) -> None:
    assert check_uri(uri, "--source") == uri


@pytest.mark.parametrize(
    "uri",
    [
        "gs://b/x",
        "bucket/x",
        "",
        "s3://",
        "s3://b/x",
        "s3://bucket/a//b",
        "s3://bucket/../x",
        "s3://bucket/a\nb",
        "s3://bucket/a%20b",
        "s3://bucket/a?b",
        "s3://bucket/*",
        "s3://bucket/{day}",
        "/tmp",
    ],
)
def test_any_other_uri_is_refused_by_its_parameters_name(uri: str) -> None:
    with pytest.raises(UsageError, match="source is"):
        check_uri(uri, "--source")


def test_a_trailing_slash_changes_nothing() -> None:
    assert check_uri("s3://bucket/x/", "--source") == "s3://bucket/x"
    assert split_uri("s3://bucket/x/y") == ("bucket", "x/y")


@pytest.mark.parametrize("day", ["2026-02-29", "2026-13-01", "20261101", "2026-11-1", "../x", "2026-W01-1"])
def test_a_partition_is_a_calendar_day(day: str) -> None:
    assert check_partition("2028-02-29") == "2028-02-29"
    with pytest.raises(UsageError, match="YYYY-MM-DD"):
        check_partition(day)


def test_everything_lies_under_the_destination() -> None:
    layout = Layout("s3://bucket/out")
    names = [layout.pairs, layout.rejected, layout.journal("r"), layout.staging("d", "r"), layout.report("r")]
    assert all(name.startswith("s3://bucket/out/") for name in names)
