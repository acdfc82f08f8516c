"""Prefect's policy for steps: what is worth another try."""

from typing import Any

from tasks.clients.storage_errors import TransientStorageError, translate_error


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
