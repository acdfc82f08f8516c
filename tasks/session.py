"""A run's model as its steps hold it: one client in every process that generates, opened when it is needed."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from tasks.clients.calls import ModelClient
from tasks.core.errors import StoppedError
from tasks.core.requests import Order, Plan
from tasks.models import Expects, connect
from tasks.progress import progress
from tasks.window import STEPS_IN_FLIGHT


@dataclass(frozen=True)
class Model:
    """A run's model; it crosses process borders.

    Called, it returns this process's one client, opened by the first step that has
    something to pay for.
    """

    order: Order
    expects: Expects
    token: str = field(default_factory=lambda: uuid4().hex)

    def __call__(self) -> ModelClient:
        """Return this process's client.

        Raises:
            UsageError, ModelError: The model's name or key cannot work.
            StorageError: What an earlier process left behind cannot be uploaded.
            StoppedError: The run is over.
        """
        return _sessions.get(self.token, _OVER).open()

    @property
    def steps_in_flight(self) -> int:
        """How many generate steps keep it busy."""
        return STEPS_IN_FLIGHT


class Session:
    """This process's part in a run: its client, once a step needs it; `stack` closes it."""

    def __init__(self, model: Model | None, stack: ExitStack | None = None) -> None:
        self._model, self._stack = model, stack
        self._lock = threading.Lock()
        self._client: ModelClient | None = None

    def open(self) -> ModelClient:
        """Return the client; see `Model`."""
        with self._lock:
            if self._model is None or self._stack is None:
                raise StoppedError("The run was stopped before its model was needed. Run the same command again.")
            if self._client is None:
                self._client = self._stack.enter_context(connect(self._model.order, self._model.expects))
            return self._client

    def end(self) -> None:
        """Open nothing any more."""
        with self._lock:
            self._model = None


# Of the runs that are generating in this process, by the token of their models.
_sessions: dict[str, Session] = {}
_OVER = Session(None)


@contextmanager
def open_model(order: Order, plan: Plan) -> Iterator[Model]:
    """Hold the run's model client and journal inside the block.

    Where the journal answers the whole plan, they are opened only by the first step
    that has something to pay for. Leaving the block by whatever way stops paying at
    once and flushes the journal.

    Raises:
        UsageError, ModelError: The model's name or key cannot work.
        StorageError: What an earlier process left behind cannot be uploaded.
    """
    progress.begin("generate", plan.requests)
    progress.cached = plan.cached
    model = Model(order, _expects(plan))
    with ExitStack() as stack:
        session = _sessions[model.token] = Session(model, stack)
        try:
            if plan.requests > plan.cached:
                model()
            yield model
        finally:
            session.end()
            del _sessions[model.token]


def _expects(plan: Plan) -> Expects:
    """Return what the first replies must hold.

    Where the destination has judged descriptions of this source before, those left
    may well be the ones that nothing ever comes of.
    """
    if not plan.requests:
        return "text"
    return "nothing" if plan.already_served or plan.already_rejected else "pairs"
