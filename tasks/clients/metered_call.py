"""One call within its deadline, and what it took: its cost on the budget, its tokens on the pace."""

import asyncio
import time
from collections.abc import Mapping

from tasks.clients.budget import Budget
from tasks.clients.outcome import Call, CallFault, Reply
from tasks.clients.rates import Place, Rates
from tasks.core.price import Price


class MeteredCall:
    """Makes one attempt at a time of one place; `reached` once anybody has taken a connection.

    Args:
        call: Makes the attempt.
        rates: Heeds what replies say of rate limits.
        budget: What the run may cost, None for no limit.
        price: What a reply's cost is made from, None for what it says.
        deadline_seconds: Of one whole attempt.
    """

    def __init__(
        self, call: Call, rates: Rates, budget: Budget | None, price: Price | None, deadline_seconds: float
    ) -> None:
        self.reached = False
        self._call, self._rates, self._budget, self._price = call, rates, budget, price
        self._deadline = deadline_seconds

    async def __call__(self, prompt: str, model_name: str, place: Place) -> Reply:
        """Return the reply; whatever comes of the call, the ledgers are settled.

        Raises:
            CallFault: It brought no reply.
            StoppedError: The budget does not allow it.
        """
        reserved = await self._budget.reserve(prompt, model_name) if self._budget else 0.0
        # Cancelled in flight, it may be billed all the same.
        cost: float | None = None
        tokens: int | None = None
        headers: Mapping[str, str] = {}
        try:
            try:
                async with asyncio.timeout(self._deadline):
                    reply = (await self._call(prompt)).at_price(self._price)
            except TimeoutError:
                message = f"no whole reply within {self._deadline:g} seconds"
                raise CallFault("transient", message, billed=True) from None
            self.reached = True
            cost, headers = reply.cost_usd, reply.headers
            tokens = (reply.input_tokens or 0) + (reply.output_tokens or 0)
            return reply
        except CallFault as fault:
            self.reached |= not fault.unreached
            cost, headers = None if fault.billed else 0.0, fault.headers
            raise
        finally:
            self._rates.settle(place, tokens)
            if headers:
                self._rates.heed(place, headers, time.monotonic())
            if self._budget:
                self._budget.settle(reserved, cost)
