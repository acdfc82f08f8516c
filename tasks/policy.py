"""How steps are carried out by Prefect: what is worth another try, and what Prefect may store of an error."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from tasks.clients.concealment import keys_concealed
from tasks.clients.storage_errors import TransientStorageError, translate_error

P = ParamSpec("P")
Result = TypeVar("Result")


def step(name: str, run_name: str, *, retries: int = 0) -> Callable[[Callable[P, Result]], Task[P, Result]]:
    """Make a function a step: a task of Prefect that no result is kept of, and whose errors hold no keys.

    A hiccup of the storage is worth `retries` more tries.
    """

    def decorate(work: Callable[P, Result]) -> Task[P, Result]:
        @wraps(work)
        def run(*args: P.args, **kwargs: P.kwargs) -> Result:
            with keys_concealed():
                return work(*args, **kwargs)

        return task(
            name=name,
            task_run_name=run_name,
            retries=retries,
            retry_delay_seconds=exponential_backoff(2),
            retry_jitter_factor=0.5,
            retry_condition_fn=is_transient,
            cache_policy=NO_CACHE,
        )(run)

    return decorate


async def is_transient(_task: Any, _run: Any, state: Any) -> bool:
    """Whether a step failed by a hiccup of the storage; nothing else is tried again.

    Asynchronous, because a synchronous condition never sees the exception.
    """
    try:
        await state.aresult()
    except TransientStorageError:
        return True
    except OSError as error:
        # Of polars, which opens the storage itself.
        return isinstance(translate_error(error, ""), TransientStorageError)
    except BaseException:  # noqa: BLE001  (the state's own exception, whatever it is)
        return False
    return False
