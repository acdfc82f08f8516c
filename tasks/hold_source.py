"""One run of a source and destination at a time: the others wait for it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial

import httpx

from tasks.clients import storage, table
from tasks.clients.lease import Lease, hold_lease
from tasks.core.errors import PairmillError, RejectedError, StorageError
from tasks.core.requests import Order
from tasks.progress import progress
from tasks.publicise import show_report
from tasks.reporting import clear_staging, find_report
from tasks.stop import stop


@contextmanager
def hold_source(order: Order) -> Iterator[Callable[[], None]]:
    """Be the only run of this source and destination inside the block: two would pay for the same requests.

    A second one waits, and then finds what the first has published. A preview waits
    only while a description is erased. Where an error of ours ends the block, nothing of the run stays under
    staging/, but for the judged rows that its message says to read.
    """
    storage.require_bucket(order.destination)
    table.check_outside(order.destination)
    with _hold_preview(order) if order.limit else _hold(order, order.layout.source_lease(order.source)) as held:

        def check() -> None:
            stop.check()
            held.check()

        try:
            yield check
        except RejectedError:
            # What was refused is read in Prefect's UI, too; the error is what counts.
            with suppress(StorageError, httpx.HTTPError):
                if report := find_report(order):
                    show_report(report)
            raise
        except (PairmillError, OSError):
            with suppress(StorageError):  # maintain removes what is left
                clear_staging(order)
            raise


def _hold(order: Order, uri: str) -> AbstractContextManager[Lease]:
    return hold_lease(uri, order.run_id, on_wait=partial(progress.begin, "wait"))


@contextmanager
def _hold_preview(order: Order) -> Iterator[Lease]:
    """Be at work in sight of whoever erases a description, who waits for a preview as for any run."""
    while True:
        with _hold(order, order.layout.preview_lease(order.run_id)) as held:
            if storage.find_bytes(order.layout.forget_lease) is None:
                yield held
                return
        # It goes first; holding both, each would wait for the other.
        with _hold(order, order.layout.forget_lease):
            pass
