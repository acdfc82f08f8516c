"""The processes of a Dask cluster that generate for one run, as the process that leads it sees them.

It visits all of them every half a second: it hears what they have paid, deals out
what they may spend, and when one has stopped it stops the others. A process that
is not visited any more stops by itself.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import distributed
from prefect import get_run_logger

from tasks import session
from tasks.clients.attempts import RESUME
from tasks.clients.budget import NEXT_CALL, Budget
from tasks.clients.lane import open_lane
from tasks.core.dealing import deal, is_spent
from tasks.core.errors import PairmillError, StoppedError, UsageError
from tasks.core.price import Price
from tasks.progress import progress
from tasks.session import Model, Status

VISIT_SECONDS = 0.5
# One that does not answer keeps the others unvisited for no longer, far below session.PATIENCE_SECONDS.
ANSWER_SECONDS = 5.0
# The leading process has a part of its own: it collects what batches have answered.
LEAD = "lead"
STOPPED = StoppedError(f"The run was stopped. {RESUME}")


@contextmanager
def lead(model: Model, client: "distributed.Client") -> Iterator[Model]:
    """Hold the clients of a cluster's processes inside the block, and yield the model that they share.

    Raises:
        UsageError, ModelError: The model's name or key cannot work, or its calls cannot be divided by the processes.
        StorageError: A process could not upload what was paid for.
        StoppedError: The cluster is gone, or one shard has killed process after process.
    """
    _check_divisible(model)
    for name in model.order.models:
        open_lane(model.order.recipe_of(name), model.order.api_base_of(name))
    get_run_logger().info("%d processes at %s", model.processes, client.scheduler.address)
    try:
        crew = Crew(model, client)
        try:
            yield model
        finally:
            crew.dismiss()
    except (distributed.KilledWorker, distributed.CancelledError, OSError) as error:
        if isinstance(error, OSError) and not _is_of_cluster(error):
            raise
        raise StoppedError(f"The Dask cluster does not carry on: {_say(error)} {RESUME}") from error
    if crew.lost is not None:
        raise crew.lost


def _is_of_cluster(error: OSError) -> bool:
    """Whether it is not the disk's or the storage's: distributed says of both what it could not connect to."""
    return isinstance(error, distributed.comm.CommClosedError) or "trying to connect to" in str(error)


def _check_divisible(model: Model) -> None:
    order = model.order
    for name in ("concurrency", "requests_per_minute", "tokens_per_minute"):
        if 0 < getattr(order, name) < model.processes:
            flag = "--" + name.replace("_", "-")
            raise UsageError(
                f"{flag} is {getattr(order, name)}, and the cluster has {model.processes} processes that share it. "
                "Raise it, or take fewer processes."
            )


class Crew:
    """Visits the processes until `dismiss`; `lost` says what one of them could not upload."""

    def __init__(self, model: Model, client: "distributed.Client") -> None:
        self.lost: PairmillError | None = None
        self._model, self._client = model, client
        self._order = model.share
        self._money = model.order.max_cost_usd
        self._error: PairmillError | None = None
        # By the process's address; those of processes that died stay.
        self._statuses: dict[str, Status] = {}
        # What those that are alive may spend, as far as is known.
        self._ceilings: dict[str, float] = {}
        progress.paid = lambda: sum(one.paid + one.failed for one in self._statuses.values())
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="crew", daemon=True)
        self._thread.start()

    def dismiss(self) -> None:
        """Stop paying everywhere, and wait until all is flushed."""
        self._over.set()
        self._thread.join()
        ended = {LEAD: session.leave(self._model.token, self._error or STOPPED)}
        # Those that cannot be reached stop by themselves.
        with suppress(OSError):
            ended |= self._client.run(_leave, self._model.token, self._error or STOPPED, on_error="ignore")
        self._statuses.update(ended)
        self.lost = next((one.error for one in ended.values() if one.error), None)
        paid, retried = (sum(getattr(one, name) for one in self._statuses.values()) for name in ("paid", "retried"))
        get_run_logger().info("%d calls paid, %d attempts repeated", paid, retried)

    def _run(self) -> None:
        while not self._over.wait(VISIT_SECONDS):
            # A scheduler that is gone is told by the steps' own futures.
            with suppress(OSError, RuntimeError):
                self._visit()

    def _visit(self) -> None:
        dealt = self._deal()
        found = self._run_on_each(_visit, self._model.token, dealt, self._error)
        found[LEAD] = session.visit(self._model.token, dealt.get(LEAD), self._error)
        for address in self._ceilings.keys() - found.keys():
            # Nobody knows what it has spent of it.
            self._money -= self._ceilings.pop(address)
        for address, status in found.items():
            if isinstance(status, Status):
                self._statuses[address] = status
                self._ceilings[address] = max(status.standing.ceiling, dealt.get(address, 0.0))
            elif address in dealt:
                self._ceilings[address] = max(self._ceilings[address], dealt[address])
        stopped = next((one.error for one in self._statuses.values() if one.error), None)
        if stopped and not self._error:
            self._error = stopped
            self._run_on_each(_visit, self._model.token, {}, stopped)

    def _run_on_each(self, function: Callable[..., Any], *args: Any) -> dict[str, Any]:
        """Run it in every process, and return what each answers, or the error in its place."""

        async def one(address: str) -> dict[str, Any]:
            run = self._client._run(function, *args, workers=[address], on_error="return")  # noqa: SLF001
            try:
                found: dict[str, Any] = await asyncio.wait_for(run, ANSWER_SECONDS)
            except OSError as error:
                return {address: error}
            return found

        async def each() -> dict[str, Any]:
            known = (await self._client.scheduler.identity(n_workers=-1))["workers"]
            return {name: said for found in await asyncio.gather(*map(one, known)) for name, said in found.items()}

        answered: dict[str, Any] = self._client.sync(each)
        return answered

    def _deal(self) -> dict[str, float]:
        if not self._model.order.max_cost_usd:
            return {}
        standings = {
            address: replace(self._statuses[address].standing, ceiling=ceiling)
            for address, ceiling in self._ceilings.items()
        }
        if is_spent(self._money, standings):
            asked = max(one.asked for one in standings.values())
            spent = self._model.order.max_cost_usd - self._money + sum(one.committed for one in standings.values())
            ledger = Budget(self._model.order.max_cost_usd, Price(0, 0), 0, spent=spent)
            self._error = self._error or ledger.used_up(NEXT_CALL.format(asked))
        return deal(self._money, standings, self._order.concurrency)


def _visit(
    token: str, dealt: Mapping[str, float], error: PairmillError | None, dask_worker: "distributed.Worker"
) -> Status:
    return session.visit(token, dealt.get(dask_worker.address), error)


async def _leave(token: str, error: PairmillError) -> Status:
    return await asyncio.to_thread(session.leave, token, error)


def _say(error: BaseException) -> str:
    line = " ".join(str(error).split()) or type(error).__name__
    return line if line.endswith((".", "?", "!")) else f"{line}."
