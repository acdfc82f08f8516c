"""Where litellm begins a call: in the loop's own thread, and not in one of a pool's.

litellm.acompletion makes a request in a thread of the loop's pool, and gets from there
a coroutine that sends it. Python runs one thread at a time, so this saves nothing, and
the changes of threads take a third of the calls a second (python -m tests.benchmarks
litellm.acompletion "stock lane"). A few providers have no coroutine: they wait in that
thread for the reply. Their calls stay in the pool, from the second one on.
"""

from asyncio import iscoroutine
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

_model: ContextVar[str] = ContextVar("_model", default="")


def begin(model_name: str) -> None:
    """Say, in a task of its own, that its next work for the pool is the beginning of a call of this model."""
    _model.set(model_name)


class Beginnings(ThreadPoolExecutor):
    """The pool of a loop that makes litellm's calls; it takes all other work, too."""

    def __init__(self) -> None:
        super().__init__(thread_name_prefix="model-pool")
        self._waits: set[str] = set()

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Run the beginning of a call at once, and anything else in a thread."""
        model_name = _model.get()
        # Once only: the tasks that a call makes inherit it, and look up addresses in the pool.
        _model.set("")
        if not model_name or model_name in self._waits:
            return super().submit(work, *args, **kwargs)
        # An error is the task's at once, as it would be the task's by way of a future.
        self._waits.add(model_name)
        begun: Future[Any] = Future()
        begun.set_result(work(*args, **kwargs))
        if iscoroutine(begun.result()):
            self._waits.discard(model_name)
        return begun
