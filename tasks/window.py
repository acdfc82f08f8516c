"""Submits shards a few at a time, so that memory and Prefect stay flat in their number."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar, cast

from prefect.futures import PrefectFuture, PrefectWrappedFuture

# Enough that the next shard's calls begin before the last of this one are back.
STEPS_IN_FLIGHT = 3
WAIT_SECONDS = 0.2

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_window(
    items: Iterable[Item],
    submit: Callable[[Item], PrefectFuture[Result]],
    size: int = STEPS_IN_FLIGHT,
    check: Callable[[], None] = lambda: None,
) -> Iterator[Result]:
    """Yield the results in the order of `items`, with at most `size` of them in flight.

    Raises:
        Exception: What any of those in flight has raised, as soon as it has.
    """
    window: deque[PrefectFuture[Result]] = deque()
    for item in items:
        window.append(submit(item))
        if len(window) >= size:
            yield _await_first(window, check)
    while window:
        yield _await_first(window, check)


def _await_first(window: deque[PrefectFuture[Result]], check: Callable[[], None]) -> Result:
    """Wait in short pieces: polars' handler of SIGINT restarts a wait that Ctrl-C should end."""
    while not _is_done(window[0]):
        check()
        window[0].wait(WAIT_SECONDS)
        for future in filter(_is_done, window):
            future.result()
    return window.popleft().result()


def _is_done(future: PrefectFuture[Any]) -> bool:
    """Whether it has ended, as who carries it out knows; its state would be asked of Prefect's API."""
    return bool(cast("PrefectWrappedFuture[Any, Any]", future).wrapped_future.done())
