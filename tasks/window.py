"""Submits shards a few at a time, so that memory and Prefect stay flat in their number."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

# Enough that the next shard's calls begin before the last of this one are back.
STEPS_IN_FLIGHT = 3

Item = TypeVar("Item")
Result = TypeVar("Result", covariant=True)


class Future(Protocol[Result]):
    """What a submitted step returns."""

    def result(self) -> Result: ...


def in_window(
    items: Iterable[Item], submit: Callable[[Item], Future[Result]], size: int = STEPS_IN_FLIGHT
) -> Iterator[Result]:
    """Yield the results in the order of `items`, with at most `size` of them in flight."""
    window: deque[Future[Result]] = deque()
    for item in items:
        window.append(submit(item))
        if len(window) >= size:
            yield window.popleft().result()
    while window:
        yield window.popleft().result()
