"""Steps are submitted a few at a time, and end with whatever ends the run."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, cast
from uuid import uuid4

import pytest
from prefect.futures import PrefectConcurrentFuture

from tasks.core.errors import StorageError
from tasks.window import in_window


def steps(outcomes: list[Future[int]]) -> Callable[[int], Any]:
    return lambda number: PrefectConcurrentFuture(uuid4(), cast("Any", outcomes[number]))


def test_a_run_that_lost_its_lease_waits_for_no_step() -> None:
    def check() -> None:
        raise StorageError("another run may hold it")

    with pytest.raises(StorageError, match="another run may hold it"):
        list(in_window([0], steps([Future()]), check=check))


def test_what_a_later_step_raised_is_not_kept_waiting_by_an_earlier_one() -> None:
    failed: Future[int] = Future()
    failed.set_exception(StorageError("no bucket"))
    with pytest.raises(StorageError, match="no bucket"):
        list(in_window([0, 1], steps([Future(), failed])))
