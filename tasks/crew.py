"""The processes of a Dask cluster that generate for one run, as the process that leads it sees them.

It visits all of them every half a second: it hears what they have paid, deals out
what they may spend, and when one has stopped it stops the others. A process that
is not visited any more stops by itself, and one that answers no more is given up.
"""

import asyncio
import threading
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace

import distributed
from prefect import get_run_logger

from tasks import session
from tasks.clients.budget import NEXT_CALL, Budget
from tasks.core.dealing import deal, is_spent
from tasks.core.errors import RESUME, STOPPED, PairmillError, StoppedError
from tasks.core.price import Price
from tasks.core.seating import Seating
from tasks.processes import WITHIN_SECONDS
from tasks.progress import progress
from tasks.session import PATIENCE_SECONDS, Status
from tasks.shared_model import Model
from tasks.visits import Visits

VISIT_SECONDS = 0.5
# After so long without an answer a process pays for nothing when it wakes up (see session.TERM_SECONDS): its
# steps may go to others.
SILENT_SECONDS = 45.0
# The leading process has a part of its own: it collects what batches have answered.
LEAD = "lead"
NO_CHECKOUT = (
    "{} of the Dask cluster does not find this checkout. Start scheduler and processes with it as their folder: "
    f"python -m dask scheduler, python -m dask worker. {RESUME}"
)


class Crew:
    """Visits the processes until `dismiss`.

    `seated` are those that take part, `lost` says what one of them could not upload, and `gone` why the
    cluster is of no use.
    """

    def __init__(self, model: Model, client: "distributed.Client") -> None:
        self.lost: PairmillError | None = None
        self.gone: PairmillError | None = None
        self._model, self._client = model, client
        self._order = model.share
        self._money = model.order.max_cost_usd
        self._error: PairmillError | None = None
        # By the process's address; those of processes that died stay.
        self._statuses: dict[str, Status] = {}
        # What those that are alive may spend, and what each was last sent, as far as is known.
        self._ceilings: dict[str, float] = {}
        self._sent: dict[str, float] = {}
        self._visits = Visits(client)
        self._seating = Seating(model.processes, PATIENCE_SECONDS + 1)
        self._given_up: set[str] = set()
        self._known_at = time.monotonic()
        self.seated = self._seating.seat(self._visits.known, (), self._known_at)
        self._logger = get_run_logger()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="crew", daemon=True)

    def begin(self) -> None:
        """Visit once, and go on with it."""
        with suppress(OSError, RuntimeError):
            self._visit()
        progress.paid = lambda: sum(one.paid + one.failed for one in self._statuses.values())
        self._thread.start()

    def dismiss(self) -> None:
        """Stop paying everywhere, and wait until all is flushed."""
        self._over.set()
        self._thread.join()
        ended = {LEAD: session.leave(self._model.token, self._error or StoppedError(STOPPED))}
        # Those that cannot be reached stop by themselves.
        with suppress(OSError):
            ended |= self._visits.make_last(_leave, self._model.token, self._error or StoppedError(STOPPED))
        self._statuses.update(ended)
        self.lost = next((one.error for one in ended.values() if one.error), None)
        paid, retried = (sum(getattr(one, name) for one in self._statuses.values()) for name in ("paid", "retried"))
        self._logger.info("%d calls paid, %d attempts repeated", paid, retried)

    def _run(self) -> None:
        while not self._over.wait(VISIT_SECONDS):
            # A scheduler that is gone is told by the steps' own futures.
            with suppress(OSError, RuntimeError):
                self._visit()

    def _visit(self) -> None:
        dealt = self._deal()
        found = self._visits.make(_visit, self._model.token, dealt, tuple(self.seated), self._error)
        self._sent |= {address: dealt.get(address, 0.0) for address in self._visits.sent}
        found[LEAD] = session.visit(self._model.token, dealt.get(LEAD), self._error)
        for address in self._ceilings.keys() - self._visits.known - {LEAD}:
            # Nobody knows what it has spent of it.
            self._money -= self._ceilings.pop(address)
        for address, ceiling in self._ceilings.items():
            self._ceilings[address] = max(ceiling, dealt.get(address, 0.0))
        for address, status in found.items():
            if isinstance(status, Status):
                self._statuses[address] = status
                sent = dealt.get(LEAD, 0.0) if address == LEAD else self._sent[address]
                self._ceilings[address] = max(status.standing.ceiling, sent)
            elif "No module named" in str(status):
                self._end(StoppedError(NO_CHECKOUT.format(address)))
        self._seat()
        stopped = next((one.error for one in self._statuses.values() if one.error), None)
        if stopped and not self._error:
            self._error = stopped
            self._visits.make(_visit, self._model.token, {}, tuple(self.seated), stopped)

    def _seat(self) -> None:
        """Give places that fell free to others, give up who is silent, and end the run where nobody is left."""
        now, known = time.monotonic(), self._visits.known
        waiting = [address for address in known if address in self._statuses and self._statuses[address].waits]
        self.seated[:] = self._seating.seat(known, waiting, now)
        for address, since in self._visits.silent.items():
            # One that has never answered still imports, which takes long on a busy machine.
            answered = address in self._statuses and address not in self._given_up
            if answered and now - since > SILENT_SECONDS:
                self._given_up.add(address)
                self._logger.warning("%s has not answered for %.0f seconds: given up", address, now - since)
                self._visits.restart(address)
        if known:
            self._known_at = now
        elif now - self._known_at > WITHIN_SECONDS and not self.gone:
            self._end(
                StoppedError(
                    f"No process of the Dask cluster has been there for {WITHIN_SECONDS:.0f} seconds. Start some with "
                    f"python -m dask worker. {RESUME}"
                )
            )

    def _end(self, gone: StoppedError) -> None:
        """End the run, and the wait for its steps."""
        self.gone = self._error = gone
        self._client.cancel([distributed.Future(key, self._client) for key in list(self._client.futures)])

    def _deal(self) -> dict[str, float]:
        if not self._model.order.max_cost_usd:
            return {}
        # One that is silent takes no more.
        standings = {
            address: replace(standing, ceiling=ceiling, busy=standing.busy and address not in self._visits.silent)
            for address, ceiling in self._ceilings.items()
            for standing in [self._statuses[address].standing]
        }
        if is_spent(self._money, standings):
            asked = max(one.asked for one in standings.values())
            spent = self._model.order.max_cost_usd - self._money + sum(one.committed for one in standings.values())
            ledger = Budget(self._model.order.max_cost_usd, Price(0, 0), 0, spent=spent)
            self._error = self._error or ledger.used_up(NEXT_CALL.format(asked))
        return deal(self._money, standings, self._order.concurrency)


def _visit(
    token: str,
    dealt: Mapping[str, float],
    seated: Collection[str],
    error: PairmillError | None,
    dask_worker: "distributed.Worker",
) -> Status:
    return session.visit(token, dealt.get(dask_worker.address), error, seated=dask_worker.address in seated)


async def _leave(token: str, error: PairmillError) -> Status:
    return await asyncio.to_thread(session.leave, token, error)
