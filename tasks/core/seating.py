"""Which processes of a cluster may take part in a run: never more than its concurrency was divided by."""

from collections.abc import Collection
from dataclasses import dataclass, field


@dataclass
class Seating:
    """Gives `places` to processes by their names; one that is not seen for `patience` seconds gives its place up."""

    places: int
    patience: float
    _seen: dict[str, float] = field(default_factory=dict)

    def seat(self, known: Collection[str], waiting: Collection[str], now: float) -> list[str]:
        """Return those of `known` that have a place at `now`, in seconds of one clock.

        A place that falls free goes to one of those that are `waiting` for it first.
        """
        self._seen = {
            name: now if name in known else seen
            for name, seen in self._seen.items()
            if name in known or now - seen <= self.patience
        }
        others = sorted((name not in waiting, name) for name in known if name not in self._seen)
        self._seen |= {name: now for _, name in others[: self.places - len(self._seen)]}
        return [name for name in self._seen if name in known]
