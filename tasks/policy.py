"""Prefect's policy for steps: what is worth another try."""

from typing import Any

from tasks.clients.storage_errors import TransientStorageError


async def is_transient(_task: Any, _run: Any, state: Any) -> bool:
    """Whether a step failed by a hiccup of the storage; nothing else is tried again.

    Asynchronous, because a synchronous condition never sees the exception.
    """
    try:
        await state.aresult()
    except TransientStorageError:
        return True
    except BaseException:  # noqa: BLE001  (the state's own exception, whatever it is)
        return False
    return False
