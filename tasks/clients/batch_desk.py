"""What the batches of one recipe have in common, from the first that is sent to the last that is collected."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tasks.clients.batch_records import Records
from tasks.clients.budget import Budget
from tasks.clients.outcome import CallFault, Reply
from tasks.clients.patience import Patience
from tasks.core.batching import Job
from tasks.core.price import Price

# Requests, or results, that are held at once.
ROWS = 5_000


class Api(Protocol):
    """The provider's batch API; see batches."""

    def upload(self, path: Path) -> str: ...  # noqa: D102
    def create(self, file_id: str, name: str) -> Job: ...  # noqa: D102
    def retrieve(self, job_id: str) -> Job: ...  # noqa: D102
    def cancel(self, job_id: str) -> None: ...  # noqa: D102
    def find(self, names: Collection[str], since: float) -> dict[str, Job]: ...  # noqa: D102
    def download(self, file_id: str, path: Path, most_bytes: int) -> None: ...  # noqa: D102
    def delete(self, file_id: str) -> None: ...  # noqa: D102


class Lines(Protocol):
    """Writes and reads the lines of a batch's files; see batch_lines."""

    def write(self, key: str, prompt: str) -> bytes: ...  # noqa: D102
    def read(self, path: Path) -> Iterator[tuple[str, Reply | CallFault]]: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True)
class Desk:
    """What the batches of one recipe have in common.

    `folder` is this process's own, for files. `price` is that of a live call, None
    for what litellm says of a reply; `budget` is the run's, None for no limit.
    `note` is told what happens, one sentence each.
    """

    api: Api
    lines: Lines
    records: Records
    folder: Path
    recipe_id: str
    api_base: str = ""
    max_tokens: int
    price: Price | None = None
    budget: Budget | None = None
    patience: Patience = field(default_factory=Patience)
    note: Callable[[str], None] = lambda _: None
