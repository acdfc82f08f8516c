"""What a process of a local cluster does first: it leaves Ctrl-C to the process that leads the run."""

import signal
from importlib import import_module
from threading import Thread
from typing import Any


def dask_setup(_worker: Any) -> None:
    """Ignore Ctrl-C, which a terminal sends to the whole group, and import the steps before they are needed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=import_module, args=["tasks.session"], name="import", daemon=True).start()
