"""Visits to the processes of a Dask cluster: one at a time to each, and one that is silent holds up no other."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import distributed

# One that does not answer keeps the others unvisited for no longer, once; far below session.PATIENCE_SECONDS.
ANSWER_SECONDS = 5.0
# What a process may take to upload the last of what was paid for.
LEAVE_SECONDS = 60.0


class Visits:
    """Runs functions in the processes, from one thread.

    `known` are the processes that the scheduler knows, by their addresses, `sent` those of them that the
    last visit was sent to, and `silent` those that owe an answer, with the time (monotonic) since when.
    """

    def __init__(self, client: "distributed.Client") -> None:
        self.known: set[str] = set(client.scheduler_info(n_workers=-1)["workers"])
        self.sent: set[str] = set()
        self.silent: dict[str, float] = {}
        self._client = client
        self._open: dict[str, asyncio.Task[Any]] = {}
        self._restarts: set[asyncio.Task[Any]] = set()

    def make(self, function: Callable[..., Any], *args: Any) -> dict[str, Any]:
        """Run it in every process that owes no answer, and return what has been answered by now.

        In the place of an answer stands the error that there was.
        """
        answered: dict[str, Any] = self._client.sync(self._make, function, *args)
        return answered

    def make_last(self, function: Callable[..., Any], *args: Any) -> dict[str, Any]:
        """Run it in every process, and return what each answers; those that do not are left out."""
        answered: dict[str, Any] = self._client.sync(self._make_last, function, *args)
        return answered

    def restart(self, address: str) -> None:
        """Have the scheduler end a process and give its steps to others; who looks after it starts a new one."""
        self._client.sync(self._restart, address)

    async def _make(self, function: Callable[..., Any], *args: Any) -> dict[str, Any]:
        self.known = await self._find_known()
        for address in self._open.keys() - self.known:
            self._open.pop(address).cancel()
        self.sent = self.known - self._open.keys()
        self._open |= {address: self._send(address, function, *args) for address in self.sent}
        awaited = [self._open[address] for address in self.sent - self.silent.keys()]
        if awaited:
            await asyncio.wait(awaited, timeout=ANSWER_SECONDS)
        found = {address: self._open.pop(address).result() for address, one in list(self._open.items()) if one.done()}
        heard = {address for address, answer in found.items() if not isinstance(answer, OSError)}
        now = time.monotonic()
        self.silent = {address: self.silent.get(address, now) for address in self.known - heard}
        return found

    async def _make_last(self, function: Callable[..., Any], *args: Any) -> dict[str, Any]:
        for one in self._open.values():
            one.cancel()
        sent = {address: self._send(address, function, *args) for address in await self._find_known()}
        if sent:
            rest = [one for address, one in sent.items() if address not in self.silent]
            await asyncio.wait(rest or sent.values(), timeout=LEAVE_SECONDS if rest else ANSWER_SECONDS)
        for one in sent.values():
            if not one.done():
                one.cancel()
        ended = {address: one.result() for address, one in sent.items() if one.done() and not one.cancelled()}
        return {address: answer for address, answer in ended.items() if not isinstance(answer, Exception)}

    async def _find_known(self) -> set[str]:
        return set((await self._client.scheduler.identity(n_workers=-1))["workers"])

    def _send(self, address: str, function: Callable[..., Any], *args: Any) -> "asyncio.Task[Any]":
        async def send() -> Any:
            try:
                found = await self._client._run(function, *args, workers=[address], on_error="return")  # noqa: SLF001
            except OSError as error:
                return error
            return found[address]

        return asyncio.create_task(send())

    async def _restart(self, address: str) -> None:
        async def ask() -> None:
            with suppress(OSError):
                await self._client.scheduler.restart_workers(
                    workers=[address], wait_for_workers=False, on_error="return", stimulus_id=f"silent-{address}"
                )

        # Not waited for: who looks after the process may be silent as well.
        self._restarts.add(asyncio.create_task(ask()))
