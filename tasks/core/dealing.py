"""One run's money among the processes that spend it: who may spend how much by now."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

# A process is lent what so many times all its calls in flight can cost, so that one that dies loses little.
ROUNDS_LENT = 2
# What buys a call, in what it can cost: sums of dollars are rounded.
ENOUGH = 1 + 1e-6


@dataclass(frozen=True)
class Standing:
    """How one process stands with its money, in US dollars.

    It may spend `ceiling` in all, has `spent` and `reserved` for calls in flight,
    `asked` is the most that its latest call could cost, and `short` says that this
    one waits for money. `busy` says that it has a shard in hand, and `in_flight`
    counts its calls.
    """

    ceiling: float = 0.0
    spent: float = 0.0
    reserved: float = 0.0
    asked: float = 0.0
    in_flight: int = 0
    short: bool = False
    busy: bool = False

    @property
    def committed(self) -> float:
        """What it has spent or may yet have spent."""
        return self.spent + self.reserved


def deal(money: float, standings: Mapping[str, Standing], most_in_flight: int) -> dict[str, float]:
    """Return what each process may spend in all from now on.

    What is left goes in equal parts to those at work, or to as many of them as it
    buys a call each, the cheaper calls first; the others give back what they have not used. The sum of the
    ceilings in force, and of those dealt where they are higher, is never above
    `money`: what is given back is dealt out only when its ceiling is down.

    Args:
        money: What the run may cost, without what was lent to processes that died.
        standings: By the process's name.
        most_in_flight: Calls that one process may have in flight.
    """
    rest = money - sum(one.committed for one in standings.values())
    busy = sorted((not one.short, one.asked, name) for name, one in standings.items() if one.busy)
    most = list(accumulate((asked for _, asked, _ in busy), max))
    count = max((at for at, asked in enumerate(most, 1) if rest >= at * asked * ENOUGH), default=0)
    served = [name for _, _, name in busy[:count]]
    part = min(rest / count, ROUNDS_LENT * most_in_flight * most[count - 1]) if count else 0.0
    free = max(0.0, money - sum(one.ceiling for one in standings.values()))
    dealt = {}
    for name, one in standings.items():
        wanted = one.committed + (part if name in served else 0.0)
        raised = min(max(0.0, wanted - one.ceiling), free)
        free -= raised
        dealt[name] = min(wanted, one.ceiling + raised)
    return dealt


def is_spent(money: float, standings: Mapping[str, Standing]) -> bool:
    """Whether nobody has a call in flight and what is left buys none of those that wait."""
    busy = [one for one in standings.values() if one.busy]
    if not busy or any(one.in_flight or not one.short for one in busy):
        return False
    rest = money - sum(one.committed for one in standings.values())
    return rest < min(one.asked for one in busy) * ENOUGH
