"""From a source's descriptions to the requests that are wanted of them, and what was counted on the way."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any

import polars as pl

from tasks.clients import table
from tasks.clients.claims import find_claimed
from tasks.clients.descriptions import Descriptions
from tasks.clients.holdings import find_judged, find_served, find_source_changes
from tasks.clients.lease import find_renewed
from tasks.core.distinct import number_hashes
from tasks.core.errors import StoppedError
from tasks.core.planning import CLAIMED, USED, count_missing, find_lacking, plan_requests
from tasks.core.plans import Plan
from tasks.core.requests import Order
from tasks.staging import Scratch

# Descriptions named in the report of those that cannot be served.
GIVEN_UP_EXAMPLES = 100
# Spellings of unknown languages that are named there, the most frequent ones.
UNKNOWN_LANGUAGES = 20


def plan_into(
    requests: Scratch,
    order: Order,
    found: Descriptions,
    find_living: Callable[[Collection[str]], set[str]] = find_renewed,
) -> tuple[Plan, pl.DataFrame]:
    """Append the wanted requests to `requests`, and count what was found; writes nothing elsewhere.

    `find_living` tells the leases of other runs that are at work.

    Returns:
        The plan, without its shards, and the samples that are used up (USED).

    Raises:
        StoppedError: A redo meets another run's descriptions.
    """
    numbers = pl.concat(
        [pl.DataFrame(schema={"number": pl.Int128})]
        + [frame.select(number=number_hashes(pl.col("description_hash"))) for frame in found.frames()]
    )
    languages = {*order.languages, *found.languages}
    claimed = pl.DataFrame(schema=CLAIMED) if order.limit else find_claimed(order, numbers, languages, find_living)
    if order.on_published == "redo" and claimed.height:
        # What it left to the other run, it would remove from the partition that it replaces.
        raise StoppedError(
            f"Another run makes pairs for {claimed.height:,} of these descriptions x languages, and a redo replaces "
            f"all of {order.partition}. Run again when it has ended."
        )
    pairs, rejected = table.open_table(order.layout.pairs), table.open_table(order.layout.rejected)
    found.fit(table.read_schema(rejected) | table.read_schema(pairs), order.destination)
    served = find_served(pairs, numbers, languages, order)
    judged = find_judged(pairs, rejected, numbers, served, order)
    descriptions = numbers["number"].n_unique() if found.languages else numbers.height
    del numbers  # the one thing here that grows with the source
    wanted = already_served = left_to_others = taken = 0
    used, given_up = [pl.DataFrame(schema=USED)], _GivenUp()
    for frame, passed_over in _choose(found, served, order):
        taken += frame.height
        already_served += passed_over
        for planned in plan_requests(frame, served, judged, claimed, order):
            requests.append(planned.requests)
            wanted += planned.wanted
            already_served += planned.served
            left_to_others += planned.claimed
            used.append(planned.used)
            given_up.add(planned.given_up)
    before = pl.concat(used)
    plan = Plan(
        descriptions=taken if order.limit else descriptions,
        blank=found.blank,
        too_long=found.too_long,
        repeated=found.repeated,
        unknown_languages=dict(found.unknown_languages.most_common(UNKNOWN_LANGUAGES)),
        already_served=already_served,
        already_rejected=before["reason"].count(),
        claimed=left_to_others,
        given_up=given_up.groups,
        given_up_pairs=given_up.pairs,
        given_up_examples=tuple(given_up.examples),
        wanted=wanted,
        requests=requests.rows,
        pairs_version=pairs.version() if pairs is not None else -1,
        source_columns=tuple(found.spelled.values()),
        objects=tuple({"uri": item.uri, "etag": item.etag, "size": item.size} for item in found.objects),
        source_changes=find_source_changes([pairs, rejected], order, found.objects),
    )
    return plan, before


def _choose(found: Descriptions, served: pl.DataFrame, order: Order) -> Iterator[tuple[pl.DataFrame, int]]:
    """Yield the descriptions that are planned for: all, or of a preview the first ones that are not served.

    With each frame comes how many descriptions x languages a preview passes over, since they are served.
    """
    left = order.limit
    for frame in found.frames():
        if not order.limit:
            yield frame, 0
            continue
        lacking = find_lacking(frame, served, order)
        some = lacking.head(left)
        left -= some.height
        yield some, count_missing(frame.join(lacking, on="description_hash", how="anti"), served, order).height


class _GivenUp:
    """Counts what cannot be served any more."""

    def __init__(self) -> None:
        self.groups = 0
        self.pairs: Counter[tuple[str, str]] = Counter()
        self.examples: list[dict[str, Any]] = []

    def add(self, given_up: pl.DataFrame) -> None:
        self.groups += given_up.height
        pairs = given_up.group_by("language", "reason").agg(pl.col("missing").sum())
        self.pairs.update({(language, reason): missing for language, reason, missing in pairs.iter_rows()})
        self.examples += given_up.head(GIVEN_UP_EXAMPLES - len(self.examples)).to_dicts()
