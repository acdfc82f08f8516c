"""A run's model as its steps hold it, in whatever process: called, it is that process's one client."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from uuid import uuid4

from tasks import session
from tasks.clients.calls import ModelClient
from tasks.core.requests import Order
from tasks.models import Expects, connect
from tasks.window import STEPS_IN_FLIGHT


@dataclass(frozen=True)
class Model:
    """A run's model; it crosses process borders.

    Called, it returns this process's one client, opened by the first step that has
    something to pay for. `processes` of a cluster share the order's concurrency and
    rates; where it is 0 the run generates in the process that leads it.
    """

    order: Order
    expects: Expects
    processes: int = 0
    token: str = field(default_factory=lambda: uuid4().hex)

    def __call__(self) -> ModelClient:
        """Return this process's client.

        Raises:
            UsageError, ModelError: The model's name or key cannot work.
            StorageError: What an earlier process left behind cannot be uploaded.
            StoppedError: The run is over.
        """
        return session.join(self.token, self.connect, led=self.processes > 0).open()

    def keep(self) -> None:
        """Put what was paid for into the bucket where another machine may have to go on with the shard."""
        if self.processes:
            self().flush()

    def flush(self) -> None:
        """Put what this process has paid for into the bucket, where a step that is tried again looks for it.

        Raises:
            StorageError: The bucket does not take it.
        """
        if held := session.find(self.token):
            held.flush()

    @property
    def calls_in_flight(self) -> int:
        """Where the adaptive limit on calls in flight stands, over all processes."""
        return self().limit * max(1, self.processes)

    @property
    def spent_usd(self) -> float:
        """What this process has spent of the order's limit, worst cases where a cost is unknown; 0 without a limit."""
        held = session.find(self.token)
        return held.status().standing.spent if held else 0.0

    @property
    def steps_in_flight(self) -> int:
        """How many generate steps keep all processes busy."""
        return STEPS_IN_FLIGHT * max(1, self.processes)

    @property
    def share(self) -> Order:
        """One process's part of the order's concurrency and rates."""

        def part(whole: int) -> int:
            return max(1, whole // self.processes) if whole and self.processes else whole

        return replace(
            self.order,
            concurrency=part(self.order.concurrency),
            requests_per_minute=part(self.order.requests_per_minute),
            tokens_per_minute=part(self.order.tokens_per_minute),
        )

    def connect(self) -> AbstractContextManager[ModelClient]:
        """Return what opens this process's client, with its share of the order, and closes it."""
        return connect(self.share, self.expects)


@contextmanager
def hold_model(model: Model, *, now: bool) -> Iterator[None]:
    """Hold this process's client and journals inside the block, opened `now` or by the first step that needs them."""
    with session.hold(model.token, model.connect) as held:
        if now:
            held.open()
        yield
