"""litellm's files and batches: one attempt per call, its jobs and errors in our words.

Its synchronous functions, called from the run's own thread, where Ctrl-C reaches
them. (Its asynchronous aretrieve_batch downloads a finished batch's results each time, to count their cost.)
"""

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from tasks.clients.bounds import allow, bound_batches
from tasks.clients.concealment import one_line
from tasks.clients.faults import classify
from tasks.clients.llm import check_key, check_model, import_litellm
from tasks.clients.outcome import CallFault
from tasks.core.batching import PROVIDERS, Job
from tasks.core.errors import UsageError
from tasks.core.requests import Recipe

# Our mark on a batch, by which it is found again where its record was lost.
MARK = "pairmill"
# Between two pieces of whatever is sent or received.
TIMEOUT_SECONDS = 60.0
# Of a whole call, and of one that moves a file.
CALL_SECONDS, TRANSFER_SECONDS = 120.0, 3600.0
# A page of a listing holds PAGE batches, each with up to 16 marks of 512 characters and its errors.
ANSWER_BYTES = 16 << 20
PAGE = 100
# Of a listing: more batches than this within a day are nobody's.
MOST_PAGES = 1_000
# What becomes a part of an address.
_ID = re.compile(r"(?!\.)[A-Za-z0-9_.=-]{1,512}")
_NO_SUCH_API = (404, 405, 501)


class BatchApi:
    """The batch API of a recipe's provider.

    Each method makes one attempt, which takes at most `seconds`, and `transfer_seconds` where it moves a file.

    Raises:
        UsageError: The provider has none that is known here.
        ModelError: Its key is not set.
    """

    def __init__(
        self,
        recipe: Recipe,
        api_base: str,
        seconds: float = CALL_SECONDS,
        transfer_seconds: float = TRANSFER_SECONDS,
    ) -> None:
        litellm = import_litellm()
        bound_batches()
        check_batches(recipe.model_name)
        check_key(litellm, recipe.model_name, api_base)
        _, provider, key, base = litellm.get_llm_provider(recipe.model_name, api_base=api_base or None)
        self._litellm, self._model_name = litellm, recipe.model_name
        self._seconds, self._transfer_seconds = seconds, transfer_seconds
        self._given: dict[str, Any] = {"custom_llm_provider": provider, "max_retries": 0, "timeout": TIMEOUT_SECONDS}
        self._given |= {name: value for name, value in (("api_key", key), ("api_base", base or api_base)) if value}

    def upload(self, path: Path) -> str:
        """Upload a file of requests and return the provider's name of it."""
        with path.open("rb") as file:
            sent = self._call(
                self._litellm.create_file,
                file=(path.name, file, "application/jsonl"),
                purpose="batch",
                creates=True,
                seconds=self._transfer_seconds,
            )
        return _check_id(sent.id)

    def create(self, file_id: str, name: str) -> Job:
        """Have the provider begin a batch; one that fails may have begun all the same, see `find`."""
        return _read_job(
            self._call(
                self._litellm.create_batch,
                input_file_id=file_id,
                completion_window="24h",
                endpoint="/v1/chat/completions",
                metadata={MARK: name},
                creates=True,
            )
        )

    def retrieve(self, job_id: str) -> Job:
        """Return how far a batch is."""
        return _read_job(self._call(self._litellm.retrieve_batch, batch_id=_check_id(job_id)))

    def cancel(self, job_id: str) -> None:
        """Ask the provider to end a batch; what is answered stays."""
        self._call(self._litellm.cancel_batch, batch_id=_check_id(job_id))

    def find(self, names: Collection[str], since: float) -> dict[str, Job]:
        """Return the batches of these names, by name, created at `since` or later (seconds since 1970)."""
        found: dict[str, Job] = {}
        for job in self._list(since):
            # Of two, the earlier: the provider lists the newest first.
            if job.name in names:
                found[job.name] = job
        return found

    def download(self, file_id: str, path: Path, most_bytes: int) -> None:
        """Write a file of results to `path`.

        Raises:
            CallFault: It does not come, or has more than `most_bytes`.
        """
        size = 0
        try:
            with allow(None, self._transfer_seconds):
                result = self._ask(self._litellm.file_content, file_id=_check_id(file_id), stream=True)
                with path.open("wb") as file, closing(result.stream_iterator) as pieces:
                    for piece in pieces:
                        size += len(piece)
                        if size > most_bytes:
                            raise CallFault("fatal", f"the results of a batch are larger than {most_bytes:,} bytes")
                        file.write(piece)
        except (OSError, CallFault):
            raise
        except Exception as error:  # httpx's
            raise CallFault("transient", f"{type(error).__name__}: {one_line(str(error), 300)}") from error

    def delete(self, file_id: str) -> None:
        """Remove a file at the provider."""
        self._call(self._litellm.file_delete, file_id=_check_id(file_id))

    def _list(self, since: float) -> Iterator[Job]:
        after = None
        for _ in range(MOST_PAGES):
            page = self._call(self._litellm.list_batches, after=after, limit=PAGE)
            jobs = [_read_job(one) for one in page.data or []]
            yield from jobs
            if not page.has_more or not jobs or jobs[-1].created_at < since or jobs[-1].id == after:
                return
            after = jobs[-1].id

    def _call(self, function: Callable[..., Any], *, seconds: float = 0.0, **arguments: Any) -> Any:
        with allow(ANSWER_BYTES, seconds or self._seconds):
            return self._ask(function, **arguments)

    def _ask(self, function: Callable[..., Any], *, creates: bool = False, **arguments: Any) -> Any:
        try:
            return function(**arguments, **self._given)
        except Exception as error:  # litellm raises classes of its own, openai's and httpx's
            if creates and getattr(error, "status_code", None) in _NO_SUCH_API:
                here = self._given.get("api_base", "its own address")
                message = f"{self._model_name}: its provider has no batch API at {here}. Leave --batch out"
                raise CallFault("fatal", message) from error
            raise classify(error, self._model_name) from error


def check_batches(model_name: str) -> None:
    """Check that the model's provider is one whose batch API is known here.

    Raises:
        UsageError: It is not.
    """
    _, provider = check_model(model_name)
    if provider not in PROVIDERS:
        raise UsageError(
            f"--batch is for the batch API of {', '.join(PROVIDERS)}, and {model_name} is of {provider}. Leave it out."
        )


def _read_job(batch: Any) -> Job:
    counts, errors = batch.request_counts, getattr(batch.errors, "data", None) or []
    return Job(
        id=_check_id(batch.id),
        name=str((batch.metadata or {}).get(MARK, "")),
        status=str(batch.status),
        created_at=float(batch.created_at or 0),
        answered=(counts.completed or 0) + (counts.failed or 0) if counts else 0,
        input_file=batch.input_file_id or "",
        output_file=batch.output_file_id or "",
        error_file=batch.error_file_id or "",
        problem="; ".join(one_line(f"{error.code}: {error.message}", 300) for error in errors[:3]),
    )


def _check_id(name: str) -> str:
    """Return a provider's name of something, which becomes a part of an address."""
    if not isinstance(name, str) or not _ID.fullmatch(name):
        raise CallFault("fatal", f"the provider names a file or batch {one_line(str(name), 80)!r}, which is no name")
    return name
