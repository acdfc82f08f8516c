"""What a run would do and cost, in figures."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import BaseModel

from tasks.core.planning import leaves_nothing
from tasks.core.plans import Plan
from tasks.core.price import Price
from tasks.core.requests import Order

# A pair needs at least so many tokens.
FEWEST_TOKENS = 20
# How far another model's tokens, and a longer day's descriptions, may be from what was counted.
COUNT_ERROR = 0.15


class TokensPerCall(NamedTuple):
    """Tokens of one call, (fewest, most) of what is likely; `source` says where that is known from."""

    input: tuple[float, float]
    output: tuple[float, float]
    source: str


class Part(NamedTuple):
    """What one model has to do: its calls, their tokens, and its price, None where that is unknown."""

    model_name: str
    calls: int
    per_call: TokensPerCall
    price: Price | None
    price_from: str


class Estimate(BaseModel):
    """What a run would do, estimated without a call and without a write.

    `descriptions` are distinct ones, `too_long` rows left out for a description of more than MOST_CHARACTERS,
    `unknown_languages` rows left out for what their column language says, and
    `claimed` those (x languages) that a run at work is making, which are in no other figure. `calls` would be paid for
    at first and `calls_most` with all that may be asked for again (a redo asks for nothing again). Tokens and
    `cost_usd` (US dollars, null where the price is unknown) are of `calls`: (at least, at most) of
    what is likely; `tokens_from` and `price_from` say where they are known from.
    """

    ok: bool = True
    partition: str
    source: str
    destination: str
    model_name: str
    descriptions: int
    blank: int
    too_long: int = 0
    repeated: int
    unknown_languages: dict[str, int] = {}
    already_served: int
    already_rejected: int
    claimed: int
    requests: int
    cached: int
    calls: int
    calls_most: int
    input_tokens: tuple[int, int]
    output_tokens: tuple[int, int]
    tokens_from: str
    cost_usd: tuple[float, float] | None
    price_from: str
    max_cost_usd: float
    would_publish: bool
    source_changes: list[str]


class RangeEstimate(BaseModel):
    """What the days of a backfill would do; `problems` are those of days that cannot run, by day.

    The figures are sums over the days. Of descriptions that several days hold, each day counts its own.
    `days_alike` counts the days of a source that is the same every day, of which `days` holds the first; else it is 0.
    """

    ok: bool
    days: list[Estimate]
    problems: dict[str, str]
    claimed: int
    requests: int
    cached: int
    calls: int
    calls_most: int
    cost_usd: tuple[float, float] | None
    max_cost_usd: float
    days_alike: int = 0


def add_up(days: list[Estimate], problems: dict[str, str], max_cost_usd: float, days_alike: int = 0) -> RangeEstimate:
    """Return the estimate of a range from those of its days; the cost is unknown where one day's is."""
    costs = [day.cost_usd for day in days]
    known = [cost for cost in costs if cost is not None]
    return RangeEstimate(
        ok=not problems,
        days=days,
        problems=problems,
        claimed=sum(day.claimed for day in days),
        requests=sum(day.requests for day in days),
        cached=sum(day.cached for day in days),
        calls=sum(day.calls for day in days),
        calls_most=sum(day.calls_most for day in days),
        cost_usd=(sum(low for low, _ in known), sum(high for _, high in known)) if len(known) == len(costs) else None,
        max_cost_usd=max_cost_usd,
        days_alike=days_alike,
    )


class ListEstimate(BaseModel):
    """What a brainstorming would do, each (at least, at most).

    `before` descriptions are there, `cached` lists are in the journal. `cost_usd` in US dollars, null where unknown.
    """

    ok: bool = True
    destination: str
    source: str
    model_name: str
    wanted: int
    before: int
    lists: tuple[int, int]
    cached: int
    calls: tuple[int, int]
    input_tokens: tuple[int, int]
    output_tokens: tuple[int, int]
    cost_usd: tuple[float, float] | None
    max_cost_usd: float


class _Taken(NamedTuple):
    """Tokens and US dollars of all parts, or those parts that have a price."""

    input: int
    output: int
    cost_usd: float


def _add_up_parts(parts: Sequence[Part], end: Literal[0, 1]) -> _Taken:
    """Add up what the calls take at least (0) or at most (1) of what is likely."""
    tokens = [
        (round(one.calls * one.per_call.input[end]), round(one.calls * one.per_call.output[end])) for one in parts
    ]
    costs = [one.price.of(*taken) for one, taken in zip(parts, tokens, strict=True) if one.price]
    return _Taken(sum(given for given, _ in tokens), sum(made for _, made in tokens), sum(costs))


def estimate(order: Order, plan: Plan, *, cached: int, parts: Sequence[Part]) -> Estimate:
    """Return what the run of `order` would do.

    Args:
        order: The run.
        plan: What its extract step would find.
        cached: Requests that the journal answers.
        parts: What each model has to do; what fallbacks may take over of that is not known.
    """
    calls = plan.requests - cached
    attempts = 1 if order.on_published == "redo" else order.max_attempts_per_pair
    least, most = (_add_up_parts(parts, end) for end in (0, 1))
    return Estimate(
        partition=order.partition,
        source=order.source,
        destination=order.destination,
        model_name=", ".join(one.model_name for one in parts),
        descriptions=plan.descriptions,
        blank=plan.blank,
        too_long=plan.too_long,
        repeated=plan.repeated,
        unknown_languages=dict(plan.unknown_languages),
        already_served=plan.already_served,
        already_rejected=plan.already_rejected,
        claimed=plan.claimed,
        requests=plan.requests,
        cached=cached,
        calls=calls,
        calls_most=max(calls, plan.requests * attempts - cached),
        input_tokens=(least.input, most.input),
        output_tokens=(least.output, most.output),
        tokens_from="; ".join(dict.fromkeys(one.per_call.source for one in parts)),
        cost_usd=(least.cost_usd, most.cost_usd) if all(one.price or not one.calls for one in parts) else None,
        price_from="; ".join(dict.fromkeys(one.price_from for one in parts)),
        max_cost_usd=order.max_cost_usd,
        would_publish=(plan.requests > 0 and not order.limit)
        or leaves_nothing(order, descriptions=plan.descriptions, requests=plan.requests),
        source_changes=list(plan.source_changes),
    )
