"""What a process of a local cluster does first: it leaves Ctrl-C to the process that leads the run."""

import signal
from importlib import import_module
from threading import Thread
from typing import Any

from tasks.clients.llm import import_litellm


def dask_setup(_worker: Any) -> None:
    """Ignore Ctrl-C, which a terminal sends to the whole group, and import before it is needed what takes seconds."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_import, name="import", daemon=True).start()


def _import() -> None:
    import_module("tasks.shared_model")
    import_litellm()
