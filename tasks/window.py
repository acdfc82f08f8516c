"""Submits shards a few at a time, so that memory and Prefect stay flat in their number."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

# Enough that the next shard's calls begin before the last of this one are back.
STEPS_IN_FLIGHT = 3
WAIT_SECONDS = 0.2

Item = TypeVar("Item")
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class State(Protocol):
    """How far a step run is."""

    def is_final(self) -> bool:
        """Whether it has ended."""
        ...


class Future(Protocol[Result_co]):
    """What a submitted step returns."""

    @property
    def state(self) -> State:
        """Its newest state."""
        ...

    def wait(self, timeout: float | None = None) -> None:
        """Wait for its end, at most `timeout` seconds."""
        ...

    def result(self) -> Result_co:
        """Return what it returned, or raise what it raised."""
        ...


def in_window(
    items: Iterable[Item], submit: Callable[[Item], Future[Result]], size: int = STEPS_IN_FLIGHT
) -> Iterator[Result]:
    """Yield the results in the order of `items`, with at most `size` of them in flight."""
    window: deque[Future[Result]] = deque()
    for item in items:
        window.append(submit(item))
        if len(window) >= size:
            yield _await(window.popleft())
    while window:
        yield _await(window.popleft())


def _await(future: Future[Result]) -> Result:
    """Wait in short pieces: polars' handler of SIGINT restarts a wait that Ctrl-C should end."""
    while not future.state.is_final():
        future.wait(WAIT_SECONDS)
    return future.result()
