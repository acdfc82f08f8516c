"""Where everything lies under a destination."""

import hashlib
import re
from dataclasses import dataclass
from datetime import date

from tasks.core.errors import UsageError

PARTITION_FIELD = "{partition}"
_URI = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<key>.*))?", re.DOTALL)

_REFUSED = '%?#*[]{}|^<>"`\\'


def check_uri(uri: str, option: str) -> str:
    """Return `uri` without its trailing slash.

    Raises:
        UsageError: Not of the form s3://bucket/prefix.
    """
    match = _URI.fullmatch(uri)
    if match is None:
        raise UsageError(
            f"{option} is {uri!r}, but only s3://bucket/prefix is understood. "
            "For any other S3-compatible storage keep s3:// and set AWS_ENDPOINT_URL."
        )
    parts = (match["key"] or "").rstrip("/").split("/")
    # Between the libraries that open it, the rest would mean a pattern, a query or an escape.
    if any(ord(c) < 32 or c in _REFUSED for c in uri) or ".." in parts or "" in parts[:-1]:
        raise UsageError(
            f"{option} is {uri!r}: an empty part, '..', control characters and {' '.join(_REFUSED)} are refused."
        )
    return uri.rstrip("/")


def check_partition(partition: str, option: str = "--partition") -> str:
    """Return `partition`, a calendar day as YYYY-MM-DD.

    Raises:
        UsageError: Anything else; it becomes part of object names.
    """
    try:
        if date.fromisoformat(partition).isoformat() == partition:
            return partition
    except ValueError:
        pass
    raise UsageError(f"{option} is {partition!r}. Give a day as YYYY-MM-DD, or leave it out.")


def split_uri(uri: str) -> tuple[str, str]:
    """Return (bucket, key) of an s3:// URI; the key may be empty."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def _short_hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


# The names of its two Delta tables.
TABLES = ("pairs", "rejected")


@dataclass(frozen=True)
class Layout:
    """The names under one destination; see README, "How to read the result"."""

    destination: str

    @property
    def pairs(self) -> str:
        """The Delta table of accepted rows."""
        return f"{self.destination}/pairs"

    @property
    def rejected(self) -> str:
        """The Delta table of rejected rows, with reasons and raw text."""
        return f"{self.destination}/rejected"

    def journal(self, recipe_id: str) -> str:
        """The prefix of every completion paid for under one recipe."""
        return f"{self.destination}/journal/recipe={recipe_id}"

    def batches(self, recipe_id: str, source: str) -> str:
        """The prefix of what is known of one source's batches at the provider, under one recipe."""
        return f"{self.journal(recipe_id)}/batches/source-{_short_hash(source)}"

    def staging(self, partition: str, run_id: str) -> str:
        """The prefix of one run's plan and shard files."""
        return f"{self.destination}/staging/{partition}/{run_id}"

    @property
    def lease(self) -> str:
        """The object that only one publishing run can hold."""
        return f"{self.destination}/staging/publish.lease"

    @property
    def plan_lease(self) -> str:
        """The object that only one planning run can hold."""
        return f"{self.destination}/staging/plan.lease"

    @property
    def forget_lease(self) -> str:
        """The object that only one run that erases a description, or exports, can hold."""
        return f"{self.destination}/staging/forget.lease"

    @property
    def source_leases(self) -> str:
        """What the names of all sources' leases begin with."""
        return f"{self.destination}/staging/source-"

    def source_lease(self, source: str) -> str:
        """The object that only one run of `source` can hold."""
        return f"{self.source_leases}{_short_hash(source)}.lease"

    def preview_lease(self, run_id: str) -> str:
        """The object that a preview holds, beside any run of its source."""
        return f"{self.destination}/staging/preview-{run_id}.lease"

    @property
    def run_leases(self) -> tuple[str, ...]:
        """What the names of the leases of all runs that generate begin with."""
        return self.source_leases, f"{self.destination}/staging/preview-"

    @property
    def tasks(self) -> str:
        """The prefix of brainstormed task descriptions, a source like any other."""
        return f"{self.destination}/tasks"

    def rejected_tasks(self, run_id: str) -> str:
        """The brainstormed descriptions that one run turned down, with reasons."""
        return f"{self.destination}/rejected-tasks/{run_id}.jsonl"

    def report(self, run_id: str) -> str:
        """The JSON report of one run."""
        return f"{self.destination}/runs/{run_id}.json"

    def export(self, version: str) -> str:
        """The prefix of one immutable export."""
        return f"{self.destination}/exports/{version}"

    def report_page(self, run_id: str, ending: str) -> str:
        """The report of one run for a person: html or md."""
        return f"{self.destination}/runs/{run_id}.{ending}"
