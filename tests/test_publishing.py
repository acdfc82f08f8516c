"""The publish lease, and a partition's two commits."""

import threading
import time
from contextlib import nullcontext, suppress
from dataclasses import replace

import polars as pl
import pytest

from tasks.clients import publishing, storage, table
from tasks.clients.holdings import check_quota
from tasks.clients.lease import TERM_SECONDS, Lease, find_fresh, find_owner, find_renewed, hold_lease
from tasks.clients.table import Publish
from tasks.core.errors import StorageError
from tasks.core.layout import Layout
from tasks.core.requests import hash_descriptions
from tests.bucket import read_table
from tests.orders import ORDER
from tests.s3_proxy import S3Proxy

DAY, OTHER_DAY = "2026-11-01", "2026-11-02"
TERM = 0.4


def rows(*keys: int, day: str = DAY) -> pl.LazyFrame:
    frame = pl.DataFrame(
        {"partition": [day] * len(keys), "key": keys}, schema={"partition": pl.String, "key": pl.Int64}
    )
    return frame.lazy()


def keys(uri: str, day: str = DAY) -> list[int]:
    found = read_table(uri, day)
    return found["key"].sort().to_list() if found.width else []


def what(number: int, mark: str = "", day: str = DAY) -> Publish:
    return Publish(day, f"run {number}", mark or f"mark {number}", number)


@pytest.mark.parametrize(("ordered", "whole"), [(2, False), (3, True)])
def test_no_description_is_served_beyond_its_quota_whoever_published_meanwhile(
    bucket: str, ordered: int, *, whole: bool
) -> None:
    served = pl.DataFrame({"description_hash": hash_descriptions(["one", "two", "two"])}).with_columns(
        language=pl.lit("English"), partition=pl.lit(OTHER_DAY)
    )
    uri = f"{bucket}/pairs"
    table.publish(uri, served.lazy(), what(1, day=OTHER_DAY), overwrite=False)
    new = pl.LazyFrame({"description_hash": hash_descriptions(["one", "two", "three"])}).with_columns(
        language=pl.lit("English")
    )
    order = replace(ORDER, pairs_per_task=ordered)
    with nullcontext() if whole else pytest.raises(StorageError, match="has published 1 of this one's"):
        check_quota(table.open_table(uri), new, order)
    redo = replace(order, pairs_per_task=1, on_published="redo", partition=OTHER_DAY)
    check_quota(table.open_table(uri), new, redo)


def test_a_second_owner_waits_until_the_first_is_done(bucket: str) -> None:
    order: list[str] = []

    def second() -> None:
        with hold_lease(f"{bucket}/lease", "second", term=600, on_wait=lambda: order.append("waits")):
            order.append("second")

    with hold_lease(f"{bucket}/lease", "first", term=600):
        thread = threading.Thread(target=second)
        thread.start()
        while "waits" not in order:
            time.sleep(0.01)
        time.sleep(0.3)
        order.append("first")
    thread.join()
    assert order == ["waits", "first", "second"]
    assert storage.find_bytes(f"{bucket}/lease") is None


def is_sure(lease: Lease) -> bool:
    """Whether the lease's owner knows that it holds it."""
    with suppress(StorageError):
        lease.check()
        return True
    return False


def test_a_lease_is_renewed_while_its_owner_works(bucket: str) -> None:
    now = 0.0
    uri = f"{bucket}/lease"
    owner, other = (Lease(uri, name, TERM, lambda: now) for name in ("first", "second"))
    assert owner.take()
    keeper = threading.Thread(target=owner.keep)
    keeper.start()
    for _ in range(5):
        assert not other.take()
        before, now = storage.find_bytes(uri), now + 0.9 * TERM
        while storage.find_bytes(uri) == before:
            time.sleep(0.01)
    assert not other.take()
    # It notes a renewal a little later than others can see it.
    while not is_sure(owner):
        time.sleep(0.01)
    owner.release(keeper)
    assert other.take()


def test_a_dead_owners_lease_is_taken_over_after_one_term_and_not_before(bucket: str) -> None:
    now = 0.0
    uri = f"{bucket}/lease"
    dead, other = (Lease(uri, name, TERM, lambda: now) for name in ("dead", "second"))
    assert dead.take()
    assert not other.take()
    now = TERM
    assert not other.take()
    dead.check()
    now = TERM + 0.01
    assert other.take()
    other.check()
    with pytest.raises(StorageError, match="another run may hold it"):
        dead.check()
    dead.release()
    assert storage.find_bytes(uri) is not None, "it is another's now"


def test_a_takeover_whose_reply_was_lost_holds_the_lease(
    bucket: str, s3_proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_proxy.url)
    now = 0.0
    dead, other = (Lease(f"{bucket}/lease", name, TERM, lambda: now) for name in ("dead", "second"))
    assert dead.take()
    assert not other.take()
    now += 2 * TERM
    s3_proxy.fault("PUT", "lose", skip=1, times=1)
    assert other.take()
    assert find_owner(f"{bucket}/lease") == "second"


@pytest.mark.faults
def test_a_renewal_that_is_never_answered_costs_no_lease(
    bucket: str, s3_proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_proxy.url)
    with hold_lease(f"{bucket}/lease", "ours") as lease:
        s3_proxy.fault("PUT", "stall", times=1, seconds=3 * TERM_SECONDS)
        time.sleep(1.3 * TERM_SECONDS)
        lease.check()


def test_leases_of_the_living_are_told_from_those_of_the_dead(bucket: str) -> None:
    living, other, dead, gone = (f"{bucket}/{name}" for name in ("living", "other", "dead", "gone"))
    assert Lease(dead, "dead", 600.0).take()
    with hold_lease(living, "a", term=2.0), hold_lease(other, "b", term=2.0):
        # The living are not waited for longer than they need.
        assert find_renewed([living, other, gone], term=600.0) == {living, other}
        assert find_renewed([dead, gone], term=1.0) == set()
        # Without waiting it is told by age alone.
        assert find_fresh([living, other, dead, gone], term=600.0) == {living, other, dead}
    while find_fresh([dead], term=1.0):
        time.sleep(0.2)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"{}"])
def test_a_lease_that_is_none_of_ours_is_nobodys_and_taken_over(bucket: str, body: bytes) -> None:
    uri = f"{bucket}/lease"
    storage.write_bytes(uri, body)
    assert find_owner(uri) == ""
    assert find_renewed([uri], term=TERM) == set()
    now = 0.0
    lease = Lease(uri, "ours", TERM, lambda: now)
    assert not lease.take()
    now = TERM + 0.01
    assert lease.take()
    lease.check()
    assert find_owner(uri) == "ours"
    storage.write_bytes(uri, body)
    lease.release()
    assert storage.read_bytes(uri) == body


def test_a_stalled_owner_learns_that_another_has_taken_over(bucket: str) -> None:
    now = 0.0
    stalled, other = (Lease(f"{bucket}/lease", name, TERM, lambda: now) for name in ("stalled", "second"))
    assert stalled.take()
    assert not other.take()
    now = TERM + 0.01
    assert other.take()
    now = 0.0
    stalled.check()
    stalled.keep()
    with pytest.raises(StorageError, match="another run may hold it"):
        stalled.check()


def test_a_commit_whose_reply_was_lost_is_recognised(bucket: str) -> None:
    for _ in range(2):
        table.publish(f"{bucket}/pairs", rows(1, 2), what(1), overwrite=False)
    assert keys(f"{bucket}/pairs") == [1, 2]


def test_a_run_that_was_overtaken_publishes_nothing(bucket: str) -> None:
    table.publish(f"{bucket}/pairs", rows(1), what(1), overwrite=False)
    with pytest.raises(StorageError, match="Another run has published"):
        table.publish(f"{bucket}/pairs", rows(2), what(1, "another"), overwrite=False)
    assert keys(f"{bucket}/pairs") == [1]


def test_partitions_published_at_once_all_succeed(bucket: str) -> None:
    days = [f"2026-11-{day:02}" for day in range(1, 7)]
    failed: list[Exception] = []

    def publish(day: str) -> None:
        try:
            table.publish(f"{bucket}/pairs", rows(1, 2, 3, day=day), what(1, day, day), overwrite=True)
        except StorageError as error:
            failed.append(error)

    threads = [threading.Thread(target=publish, args=(day,)) for day in days]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert [keys(f"{bucket}/pairs", day) for day in days] == [[1, 2, 3]] * len(days)


@pytest.mark.parametrize("published", [[], [1, 2]])
def test_a_first_commit_without_its_second_is_taken_back(bucket: str, published: list[int]) -> None:
    layout = Layout(f"{bucket}/out")
    table.publish(layout.rejected, rows(9, day=OTHER_DAY), what(1, day=OTHER_DAY), overwrite=True)
    table.publish(layout.pairs, rows(8, day=OTHER_DAY), what(1, day=OTHER_DAY), overwrite=True)
    if published:
        table.publish(layout.rejected, rows(*published), what(1), overwrite=True)
        table.publish(layout.pairs, rows(3), what(1), overwrite=True)
    half = what(2 if published else 1, "died")
    table.publish(layout.rejected, rows(5, 6), half, overwrite=True)

    publishing.settle(layout, DAY, "next run")

    assert keys(layout.rejected) == published
    assert keys(layout.rejected, OTHER_DAY) == [9]
    before = publishing.begin(layout, DAY, "next run", "next")
    assert (before.what.number, before.done) == (half.number, False)
    table.publish(layout.rejected, rows(7), before.what, overwrite=True)
    table.publish(layout.pairs, rows(4), before.what, overwrite=True)
    assert (keys(layout.rejected), keys(layout.pairs)) == ([7], [4])


def test_a_publish_that_is_tried_again_finds_what_stood_before_it(bucket: str) -> None:
    layout = Layout(f"{bucket}/out")
    for number, mark in enumerate(("first", "second"), start=1):
        table.publish(layout.rejected, rows(), what(number, mark), overwrite=True)
        table.publish(layout.pairs, rows(number), what(number, mark), overwrite=False)
    before = publishing.begin(layout, DAY, "run", "second")
    kept = table.scan(before.pairs, DAY)
    assert before.done
    assert kept is not None
    assert kept.collect()["key"].to_list() == [1]
    assert keys(layout.pairs) == [1, 2]
