"""What a run did, in figures; the same ones everywhere."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, computed_field

from tasks.core.counting import counted
from tasks.core.drift import Changes, Drift, Profile, SamplePair


class LanguageFigures(BaseModel):
    """Rows judged in one language, and the pairs that are still missing in it."""

    accepted: int
    rejected: int
    missing: int = 0


class Shortfall(BaseModel):
    """Pairs that one description lacks in one language, and the most frequent reason of its rejected rows."""

    task: str
    language: str
    missing: int
    reason: str


class GroupFigures(BaseModel):
    """Accepted pairs that share a text with another one, and the groups they form."""

    groups: int = 0
    pairs: int = 0
    largest: int = 0


class VariationFigures(BaseModel):
    """Rows asked for with one value of a variation.

    `distinct_2` is distinct pairs of words a pair of words in 200 pairs, null where there
    are fewer.
    """

    accepted: int
    rejected: int
    duplicates: int
    distinct_2: float | None


class ModelFigures(BaseModel):
    """What one model did.

    `judged` = accepted + rejected are the rows of its completions, `taken_over` those of them that
    another model had turned down, and `turned_down` its own requests that another took over, by
    reason. `cost_usd` (US dollars, null when unknown) is of all its completions, whenever they were paid for.
    """

    judged: int = 0
    accepted: int = 0
    rejected: int = 0
    taken_over: int = 0
    turned_down: dict[str, int] = {}
    cost_usd: float | None = 0.0

    @computed_field  # type: ignore[prop-decorator]  # pydantic's own way
    @property
    def cost_per_pair(self) -> float | None:
        """US dollars an accepted pair, null where there is none or the cost is unknown."""
        return self.cost_usd / self.accepted if self.accepted and self.cost_usd is not None else None


class RunReport(BaseModel):
    """One run.

    `descriptions` are distinct ones, `too_long` rows left out for a description of more than
    MOST_CHARACTERS, `unknown_languages` rows left out for what their column language says, and
    `already_served` counts descriptions x languages. judged = requests answered or refused for good, and accepted +
    rejected = judged. `turned_down` counts requests that one model turned down and another took
    over; they are judged once, but paid and failed count the calls of both. `failed` are calls without a reply,
    `retried` attempts that were repeated and `throttled` those told to wait;
    `calls_in_flight` is what the adaptive limit settled at, or the most that were in flight where that is less, 0
    where no call was made. `batched` of the
    calls paid were answered by `batches` of the provider's batch API, at half price. Tokens and `cost_usd`
    (US dollars, null when unknown) are of the calls paid in this run, `seconds` of
    the whole run. `rounds` are those of asking again. `shortfall` are pairs still missing,
    `shortfall_reasons` the same by main reason and `shortfalls` the first descriptions
    they belong to; `given_up` counts descriptions x languages whose attempts were used
    up before this run, so that it asked nothing for them, and `claimed` those that were
    left to another run at work. `files` are the URIs of the
    partition's Parquet files, empty where nothing is published. `profile` describes the
    judged rows, `drift` compares them with the partition before, and `changes` with what a
    redo replaces; each is null where there is nothing to describe or compare.
    """

    run_id: str
    partition: str
    published: bool
    source: str
    destination: str
    model_name: str
    languages: list[str]
    language_mix: str
    pairs_per_task: int
    max_attempts_per_pair: int
    on_published: str
    seed: int
    descriptions: int
    blank: int
    too_long: int = 0
    repeated: int
    unknown_languages: dict[str, int]
    already_served: int
    already_rejected: int
    claimed: int = 0
    given_up: int
    requests: int
    rounds: int
    cached: int
    paid: int
    failed: int
    retried: int
    throttled: int
    calls_in_flight: int = 0
    batched: int = 0
    batches: int = 0
    judged: int
    accepted: int
    rejected: int
    shortfall: int
    shortfall_reasons: dict[str, int]
    shortfalls: list[Shortfall]
    reasons: dict[str, int]
    flags: dict[str, int] = {}
    shared_texts: GroupFigures = GroupFigures()
    by_language: dict[str, LanguageFigures]
    by_variation: dict[str, VariationFigures] = {}
    turned_down: int = 0
    by_model: dict[str, ModelFigures] = {}
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
    profile: Profile | None = None
    drift: Drift | None = None
    changes: Changes | None = None


def without_texts(report: RunReport) -> RunReport:
    """Return `report` without any text of a source or a model."""
    return report.model_copy(update={"samples": [], "shortfalls": [], "profile": None})


def headline(report: RunReport) -> str:
    """Say in one sentence how the run ended."""
    if not report.requests and not report.published:
        short = f", {counted(report.claimed, 'is', 'are')} left to another run at work" if report.claimed else ""
        short += f", {counted(report.given_up, 'has', 'have')} no attempt left" if report.given_up else ""
        served = counted(report.already_served, "description x language is", "descriptions x languages are")
        return f"{report.partition}: nothing to do, {served} served{short}"
    verb = "published" if report.published else "judged, not published:"
    return (
        f"{report.partition}: {verb} {counted(report.accepted, 'pair')}, {report.rejected:,} rejected, "
        f"{counted(report.paid, 'call')} paid, {report.cached:,} from the journal"
        + (f", {report.shortfall:,} still missing" if report.shortfall else "")
    )


def reason_rows(report: RunReport) -> list[dict[str, Any]]:
    """Return the reasons as rows of a table: reason, rows, share of the rows judged."""
    return [
        {"reason": reason, "rows": rows, "share": f"{rows / report.judged:.1%}"}
        for reason, rows in report.reasons.items()
    ]
