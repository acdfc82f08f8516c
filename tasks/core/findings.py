"""What a brainstorming has found so far, and its report."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from tasks.core.brainstorming import Brainstorm, ListRequest
from tasks.core.columns import NO_CHOICES
from tasks.core.counting import counted

SAMPLES = 5


class ListRound(BaseModel):
    """One round: lists, descriptions in them (one for a list that is none), and the good ones in no list before."""

    lists: int
    items: int
    new: int


@dataclass
class Findings:
    """What a brainstorming of `wanted` descriptions has brought so far, beside those that were there `before`.

    `kept` rows have task, model_name, category, topic and persona, `rejected` ones also
    `reasons`; `completions` have the columns of COMPLETIONS and `cached`: paid for before
    this run. `lists` were asked for, and the latest `barren` of them held no description.
    """

    wanted: int
    before: int
    kept: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    completions: list[dict[str, Any]] = field(default_factory=list)
    rounds: list[ListRound] = field(default_factory=list)
    surplus: int = 0
    lists: int = 0
    barren: int = 0
    stopped: str = "enough"

    @property
    def missing(self) -> int:
        """Descriptions that are still to come."""
        return self.wanted - self.before - len(self.kept)

    def sort(self, wish: Brainstorm, request: ListRequest, text: str, reasons: list[str]) -> None:
        """Put a description of a list among those that are kept or turned down, or count it as beyond those wanted."""
        row = {"task": text, "model_name": wish.order.recipe.model_name, "category": wish.category}
        row |= {"topic": request.topic, "persona": request.persona}
        if reasons:
            self.rejected.append(row | {"reasons": reasons})
        elif self.missing > 0:
            self.kept.append(row)
        else:
            self.surplus += 1


class BrainstormReport(BaseModel):
    """One brainstorming.

    total = before + added, at most `wanted`. `stopped` says why it ended: enough,
    little new (hardly anything in the last round, or nothing to read in the last lists),
    or most lists. `lists` = cached + paid + failed. The `items` in them = added +
    rejected (a row may have several `reasons`) + `surplus`, good ones beyond those
    wanted. Tokens and `cost_usd` (US dollars, null when unknown) are of the calls paid
    in this run; `spent_usd` is what counted against max_cost_usd, with the worst case of
    a reply that was lost or did not say what it took, and 0 without that limit. `uri`
    holds the new descriptions, `source` all.
    """

    run_id: str
    model_name: str
    category: str
    seed: int
    destination: str
    source: str
    uri: str
    rejected_uri: str
    wanted: int
    before: int
    added: int
    total: int
    stopped: str
    lists: int
    cached: int
    paid: int
    failed: int
    items: int
    rejected: int
    surplus: int
    reasons: dict[str, int]
    rounds: list[ListRound]
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    spent_usd: float = 0.0
    seconds: float
    samples: list[str]


def brainstorm_headline(report: BrainstormReport) -> str:
    """Say in one sentence how a brainstorming ended."""
    end = "" if report.stopped == "enough" else f", stopped: {report.stopped}"
    return (
        f"{counted(report.total, 'task description')} of {report.wanted:,} wanted, {report.added:,} of them new, "
        f"{counted(report.paid, 'call')} paid{end}"
    )


def report_findings(
    wish: Brainstorm, found: Findings, *, uri: str, spent_usd: float, finished_at: datetime
) -> BrainstormReport:
    """Return the report of a brainstorming that wrote its new descriptions to `uri`, empty where there are none."""
    paid = [row for row in found.completions if not row["cached"] and row["error"] in (None, NO_CHOICES)]
    costs = [row["cost_usd"] for row in paid]
    reasons = Counter(reason for row in found.rejected for reason in row["reasons"])
    order = wish.order
    return BrainstormReport(
        run_id=order.run_id,
        model_name=order.recipe.model_name,
        category=wish.category,
        seed=order.recipe.seed,
        destination=order.destination,
        source=order.source,
        uri=uri,
        rejected_uri=order.layout.rejected_tasks(order.run_id) if found.rejected else "",
        wanted=wish.wanted,
        before=found.before,
        added=len(found.kept),
        total=found.before + len(found.kept),
        stopped=found.stopped,
        lists=found.lists,
        cached=sum(row["cached"] for row in found.completions),
        paid=len(paid),
        failed=sum(not row["cached"] for row in found.completions) - len(paid),
        items=sum(one.items for one in found.rounds),
        rejected=len(found.rejected),
        surplus=found.surplus,
        reasons=dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        rounds=found.rounds,
        input_tokens=sum(row["input_tokens"] or 0 for row in paid),
        output_tokens=sum(row["output_tokens"] or 0 for row in paid),
        cost_usd=None if None in costs else sum(costs),
        spent_usd=spent_usd,
        seconds=round((finished_at - order.started_at).total_seconds(), 3),
        samples=[row["task"] for row in found.kept[:: max(1, len(found.kept) // SAMPLES)][:SAMPLES]],
    )
