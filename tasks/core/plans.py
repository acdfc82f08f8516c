"""What the steps hand to each other: a plan, its shards, and what became of them; references and counts, never rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class TurnedDown:
    """Requests that one model would not or could not answer for one reason, and another took over.

    Tokens are of the replies paid for in this run and so is `paid_usd`; `cost_usd` is
    of all of them (US dollars), `unpriced` counts those whose cost is unknown.
    """

    model_name: str
    reason: str
    requests: int
    paid: int
    failed: int
    retried: int
    throttled: int
    input_tokens: int
    output_tokens: int
    cost_usd: float
    paid_usd: float
    unpriced: int


@dataclass(frozen=True)
class Shard:
    """A slice of the requests, by reference: one Parquet of them and what the journal knows.

    `round` counts from 0, the plan itself. `cached` counts the rows that the
    journal already answers, `rejected` those that validation has rejected, and
    `calls_in_flight` is where the adaptive limit stood when its calls were done, 0
    where none was made. `batches` are the names of the batches that have answered
    rows of it in this run, and `batched` counts those paid for. `label`
    names it among those of its round, from 1. `known_uri` is a Parquet of what the journal
    has for the keys of fallbacks, empty where it has nothing.
    """

    number: int
    uri: str
    round: int
    rows: int
    cached: int
    rejected: int = 0
    calls_in_flight: int = 0
    batched: int = 0
    batches: tuple[str, ...] = ()
    label: str = ""
    known_uri: str = ""
    turned_down: tuple[TurnedDown, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the extract step found and wants: references and counts, never rows.

    Counts are of distinct descriptions, but for `blank`, `too_long`, `repeated`
    and `unknown_languages` (by what they say), which were left out, `requests`, those of
    the first round, `already_served`, descriptions x languages, and `already_rejected`:
    requests whose completion this destination has judged and rejected before. `claimed` counts descriptions x
    languages that another run at work is making.
    `wanted` counts the pairs that were missing. `given_up` counts descriptions x
    languages that are short and have no attempt left; `given_up_pairs` their
    missing pairs by language and main reason, and some are in `given_up_examples`. `used_uri` is a
    Parquet of USED, empty where nothing was judged before. `pairs_version` is that
    of the pairs table then, -1 without one. `objects` are the source's objects with their ETags and sizes.
    """

    shards: tuple[Shard, ...] = ()
    descriptions: int = 0
    blank: int = 0
    too_long: int = 0
    repeated: int = 0
    unknown_languages: Mapping[str, int] = field(default_factory=dict)
    already_served: int = 0
    already_rejected: int = 0
    claimed: int = 0
    given_up: int = 0
    given_up_pairs: Mapping[tuple[str, str], int] = field(default_factory=dict)
    given_up_examples: tuple[dict[str, Any], ...] = ()
    used_uri: str = ""
    pairs_version: int = -1
    wanted: int = 0
    requests: int = 0
    cached: int = 0
    source_columns: tuple[str, ...] = ()
    objects: tuple[dict[str, str | int], ...] = ()
    source_changes: tuple[str, ...] = ()
