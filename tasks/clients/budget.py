"""What a run may cost: a ledger that is asked before each call."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from tasks.core.dealing import Standing
from tasks.core.errors import AGAIN, StoppedError
from tasks.core.price import Price
from tasks.core.prompts import RESPONSE_SCHEMA

# What a provider puts around a prompt: its chat template and the schema.
AROUND_PROMPT_TOKENS = 256 + len(str(RESPONSE_SCHEMA))
NEXT_CALL = "the next call may cost ${:,.4f}, which would exceed"


@dataclass
class Budget:
    """Lets no call start whose worst case would take the run above `max_cost_usd`.

    `price` is that of every model that is not in `prices`. `spent` counts replies at
    their cost, and at their worst case where a reply was lost on the way or did not say
    what it took. `leased` says that more may be lent: then a call waits for it, `short`,
    however long. `asked` is the most that the latest call could cost. For use in one event loop.
    """

    max_cost_usd: float
    price: Price
    max_tokens: int
    prices: Mapping[str, Price] = field(default_factory=dict)
    spent: float = 0.0
    reserved: float = 0.0
    in_flight: int = 0
    leased: bool = False
    asked: float = 0.0
    short: bool = False

    def __post_init__(self) -> None:
        self._settled = asyncio.Event()

    async def reserve(self, prompt: str, model_name: str) -> float:
        """Reserve the most that one call can cost, waiting for calls in flight where that is needed.

        Raises:
            StoppedError: Nothing is in flight and the rest is not enough.
        """
        worst = self.asked = self.worst(prompt, model_name)
        while not self.allows(worst):
            if not self.in_flight and not self.leased:
                raise self.used_up(NEXT_CALL.format(worst))
            self.short = True
            self._settled.clear()
            await self._settled.wait()
        self.short = False
        self.hold(worst)
        return worst

    def allows(self, worst: float) -> bool:
        """Whether `worst` more cannot take the run above `max_cost_usd`."""
        return self.spent + self.reserved + worst <= self.max_cost_usd

    def hold(self, worst: float) -> None:
        """Reserve `worst` at once."""
        self.reserved += worst
        self.in_flight += 1

    def used_up(self, what: str) -> StoppedError:
        """Return the error of a run that stops; `what` would exceed its limit."""
        stopped = f"Stopped at ${self.spent:,.4f}: {what} the ${self.max_cost_usd:,.4f} of --max-cost-usd."
        if not self.spent:
            return StoppedError(f"{stopped} Run again with a higher one, or with fewer --max-tokens.")
        return StoppedError(
            f"{stopped} What was paid for is kept: {AGAIN} to go on with as much money, or give another --max-cost-usd."
        )

    def standing(self, *, busy: bool) -> Standing:
        """Return how a process stands with this money; `busy` as there."""
        return Standing(
            ceiling=self.max_cost_usd,
            spent=self.spent,
            reserved=self.reserved,
            asked=self.asked,
            in_flight=self.in_flight,
            short=self.short,
            busy=busy,
        )

    def borrow(self) -> None:
        """Let calls cost nothing but what `lend` allows."""
        self.leased, self.max_cost_usd = True, 0.0

    def lend(self, max_cost_usd: float) -> None:
        """Let calls cost so much in all, or what they may have cost by now where that is more."""
        self.max_cost_usd = max(max_cost_usd, self.spent + self.reserved)
        self._settled.set()

    def settle(self, reserved: float, cost_usd: float | None) -> None:
        """Put what a call did cost in the place of what was reserved for it; None: the whole of it."""
        self.in_flight -= 1
        self.reserved = self.reserved - reserved if self.in_flight else 0.0
        self.spent += reserved if cost_usd is None else cost_usd
        self._settled.set()

    def worst(self, prompt: str, model_name: str = "") -> float:
        """Return the most that a call can cost: no token is shorter than a byte."""
        return self.prices.get(model_name, self.price).of(len(prompt.encode()) + AROUND_PROMPT_TOKENS, self.max_tokens)
