"""What a run did, in figures; the same ones everywhere."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel


class LanguageFigures(BaseModel):
    """Rows judged in one language."""

    accepted: int
    rejected: int


class SamplePair(BaseModel):
    """One accepted pair, as an example."""

    task: str
    language: str
    input: str
    positive_document: str


class RunReport(BaseModel):
    """One run.

    `descriptions` are distinct ones and `already_served` counts descriptions x
    languages. judged = requests answered or refused for good, and accepted +
    rejected = judged. `failed` are calls without a reply,
    `retried` attempts that were repeated and `throttled` those told to wait;
    `calls_in_flight` is what the adaptive limit settled at, 0 where no call was made. Tokens and `cost_usd`
    (US dollars, null when unknown) are of the calls paid in this run, `seconds` of
    the whole run. `shortfall` are pairs still missing. `files` are the URIs of the
    partition's Parquet files, empty where nothing is published.
    """

    run_id: str
    partition: str
    published: bool
    source: str
    destination: str
    model_name: str
    languages: list[str]
    pairs_per_task: int
    on_published: str
    seed: int
    descriptions: int
    blank: int
    repeated: int
    already_served: int
    already_rejected: int
    requests: int
    cached: int
    paid: int
    failed: int
    retried: int
    throttled: int
    calls_in_flight: int = 0
    judged: int
    accepted: int
    rejected: int
    shortfall: int
    reasons: dict[str, int]
    by_language: dict[str, LanguageFigures]
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    seconds: float
    started_at: datetime
    finished_at: datetime
    pairs_uri: str
    pairs_version: int | None
    files: list[str]
    samples: list[SamplePair]
    objects: list[dict[str, str | int]]
    source_changes: list[str]


def headline(report: RunReport) -> str:
    """Say in one sentence how the run ended."""
    if not report.requests:
        wanted = report.descriptions * len(report.languages)
        return f"{report.partition}: nothing to do, {report.already_served:,} of {wanted:,} are served already"
    verb = "published" if report.published else "judged, not published:"
    return (
        f"{report.partition}: {verb} {report.accepted:,} pairs, {report.rejected:,} rejected, "
        f"{report.paid:,} calls paid, {report.cached:,} from the journal"
    )


def reason_rows(report: RunReport) -> list[dict[str, Any]]:
    """Return the reasons as rows of a table: reason, rows, share of the rows judged."""
    return [
        {"reason": reason, "rows": rows, "share": f"{rows / report.judged:.1%}"}
        for reason, rows in report.reasons.items()
    ]
