"""Batches for the provider's batch API: what bounds them, and what is kept of each."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

# Providers whose batch API is OpenAI's: files of lines, each with a chat completion.
PROVIDERS = ("openai", "hosted_vllm", "litellm_proxy")
# What a call of a batch costs of a live call's price. Source: the price lists of the providers that have a batch API.
SHARE_OF_PRICE = 0.5
# OpenAI's limits on one file; the second leaves room for what surrounds it in the upload.
MOST_LINES = 50_000
MOST_BYTES = 190_000_000
# Batches that one request is tried in, within one run, before a live call answers it.
ATTEMPTS = 3
# Of a later round, fewer requests than this are not worth hours of waiting.
FEWEST_REQUESTS = 100
# Seconds between two looks at the provider's batches: from the first, growing to the last.
POLL_SECONDS = (5.0, 180.0)
POLL_GROWTH = 1.3


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One batch as it is kept in the bucket.

    `name` is made of its requests, `most_usd` is its worst case in US dollars, 0
    where no budget is kept, and `written_at` is in seconds since 1970. `job` and
    `file` are the provider's names of it and of its input, empty until it has taken it.
    """

    name: str
    attempt: int
    requests: int
    most_usd: float
    api_base: str
    written_at: float
    job: str = ""
    file: str = ""

    def to_json(self) -> bytes:
        """Return it as it is stored."""
        return json.dumps(asdict(self)).encode()


@dataclass(frozen=True)
class Job:
    """A batch as the provider tells of it; counts are of its requests.

    `name` is ours, empty for a batch of somebody else's. `problem` says why the
    whole of it failed. Files are the provider's names, empty where there is none.
    """

    id: str
    name: str
    status: str
    created_at: float = 0.0
    answered: int = 0
    input_file: str = ""
    output_file: str = ""
    error_file: str = ""
    problem: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status in ("completed", "failed", "expired", "cancelled")

    @property
    def too_much(self) -> bool:
        """Whether the provider has turned it down, since too many tokens wait there already."""
        return self.status == "failed" and "token_limit_exceeded" in self.problem


def name_batch(recipe_id: str, attempt: int, keys: Iterable[str]) -> str:
    """Return the name of the batch of these requests: 128 bits in hex, equal for equal requests in their order."""
    digest = hashlib.blake2b(f"{recipe_id} {attempt}".encode(), digest_size=16)
    for key in keys:
        digest.update(key.encode())
    return digest.hexdigest()


def next_pause(pause: float) -> float:
    """Return how long to wait after a look at which nothing had ended, in seconds; `pause` is the wait before it."""
    first, last = POLL_SECONDS
    return min(last, max(first, pause * POLL_GROWTH))
