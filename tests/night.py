"""One destination, its source, and runs of the command line over them."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import polars as pl
from aiohttp import web

from tasks.clients import table
from tasks.core.variations import ask_for_variation
from tests.model_server import ModelServer, answer, good, read_prompt
from tests.s3_proxy import S3Proxy
from tests.zygote import LEASE_SECONDS, SHARD_ROWS, Run, Zygote

DAY = "2026-11-01"
CONCURRENCY = 8
# What a run says when it was held up for longer than its lease lasts, which is shorter here than it is elsewhere.
LOST_LEASE, MOST_HELD_UP = "so another run may hold it. Run again.", 20
# One description in ten: the reply to its first sample is no pair, and of its later ones about half are none.
SPOILED = "spoiled"
# What the prompts of later samples hold.
VARIED = ask_for_variation("", "", 1).split("\n")[2]


def spoil(request: web.Request, sent: dict[str, Any]) -> web.Response:
    """Answer to a prompt of such a description, always the same."""
    prompt = read_prompt(sent)
    return good(request, sent) if VARIED in prompt and len(prompt) % 2 else answer("no json")(request, sent)


@dataclass
class Night:
    """Runs of one partition, which find the storage behind `proxy`; `state` is their local folder.

    `into` is the destination's name, its own unless given, `attempts` the completions a wanted
    pair, `more` is put into their environment, `lease_seconds` is the term of their leases, and
    `shard_rows` what a shard holds. `held_up` counts those that lost a lease on a busy machine.
    """

    bucket: str
    name: str
    zygote: Zygote
    model_server: ModelServer
    proxy: S3Proxy
    state: Path
    day: str = DAY
    into: str = ""
    attempts: int = 1
    more: Mapping[str, str] = field(default_factory=dict)
    lease_seconds: float = LEASE_SECONDS
    shard_rows: int = SHARD_ROWS
    held_up: int = 0

    @property
    def destination(self) -> str:
        """Where the dataset goes."""
        return f"{self.bucket}/{self.into or self.name}"

    @property
    def source(self) -> str:
        """Where the descriptions lie."""
        return f"{self.bucket}/tasks-{self.name}"

    def put(self, first: int, rows: int) -> None:
        """Put descriptions `first` and following into the source, as one more object."""
        lines = [
            json.dumps({"task": f"match {SPOILED if row % 10 == 7 else 'good'} thing {row} with its name", "id": row})
            for row in range(first, first + rows)
        ]
        bucket, key = self.bucket.removeprefix("s3://"), f"tasks-{self.name}/{first:06}.jsonl"
        boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"]).put_object(
            Bucket=bucket, Key=key, Body="\n".join(lines).encode()
        )

    def serve(self, latency_seconds: float) -> None:
        """Make the model server answer anew, and forget what it was asked."""
        self.model_server.forget()
        self.model_server.latency_seconds = latency_seconds
        self.model_server.script(SPOILED, [spoil])

    def start(
        self, *options: str, environment: Mapping[str, str] | None = None, limits: dict[str, int] | None = None
    ) -> Run:
        """Start a run."""
        found = {**self.environment, **(environment or {})}
        return self.zygote.start([*self.options, *options], found, limits, self.lease_seconds, self.shard_rows)

    def start_upkeep(self, *options: str) -> Run:
        """Start an upkeep of the destination."""
        line = ["maintain", "--destination", self.destination, *options]
        return self.zygote.start(line, self.environment, lease_seconds=self.lease_seconds)

    @property
    def options(self) -> list[str]:
        """What every run is given."""
        given = ["--source", self.source, "--destination", self.destination, "--model-name", "openai/x"]
        given += ["--api-base", self.model_server.api_base, "--partition", self.day, "--concurrency", str(CONCURRENCY)]
        return [*given, "--max-attempts-per-pair", str(self.attempts)]

    @property
    def environment(self) -> dict[str, str]:
        """What a run finds in its environment."""
        return {"AWS_ENDPOINT_URL": self.proxy.url, "PAIRMILL_STATE": str(self.state), **self.more}

    @property
    def place(self) -> str:
        """The destination as the path of S3's requests holds it."""
        return f"/{self.destination.removeprefix('s3://')}"

    def finish(self, *options: str) -> dict[str, Any]:
        """Run to the end and return the report; where the machine held the run up, run again, as it says."""
        return self._finish(lambda: self.start(*options))

    def finish_upkeep(self) -> dict[str, Any]:
        """Keep the destination up, likewise."""
        return self._finish(self.start_upkeep)

    def _finish(self, start: Callable[[], Run]) -> dict[str, Any]:
        run = start()
        while run.wait() != 0:
            assert LOST_LEASE in run.said, run.said
            self.held_up += 1
            assert self.held_up <= MOST_HELD_UP, run.said
            run = start()
        return run.report

    def lose_machine(self) -> None:
        """Lose the local folder."""
        shutil.rmtree(self.state, ignore_errors=True)

    def rows(self, name: str) -> pl.DataFrame:
        """Return the rows of pairs or rejected."""
        found = table.scan(table.open_table(f"{self.destination}/{name}"))
        schema = {"task": pl.String, "id": pl.Int64, "sample_index": pl.Int64}
        return pl.DataFrame(schema=schema) if found is None else found.collect()

    def check_rows(self, rows: int, attempts: int = 0) -> tuple[int, int]:
        """Return how many of the descriptions 0 to `rows` are lost, and how many rows stand twice, over both tables.

        Each has its pair, or as many rejected rows as there were `attempts` (this night's unless given).
        """
        found = [self.rows(name).select("id", "sample_index") for name in ("pairs", "rejected")]
        pairs, rejected = (Counter(rows["id"]) for rows in found)
        lost = sum(not pairs[row] and rejected[row] < (attempts or self.attempts) for row in range(rows))
        samples = Counter(row for rows in found for row in rows.rows())
        return lost, samples.total() - len(samples) + pairs.total() - len(pairs)

    def count_rows(self) -> int:
        """Return how many rows both tables have."""
        return self.rows("pairs").height + self.rows("rejected").height

    def paid_twice(self) -> int:
        """Return how many completions the model server was asked for again: each has a prompt of its own."""
        return len(self.model_server.prompts) - len(set(self.model_server.prompts))
