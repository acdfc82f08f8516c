"""What a brainstorming would do and cost, found out as it would, but for paying and writing."""

from math import ceil

import polars as pl

from tasks.brainstorm import read_known
from tasks.clients import llm, storage
from tasks.clients.leftovers import local_keys
from tasks.clients.lookup import look_up, whole_segments
from tasks.clients.storage_errors import storage_errors
from tasks.core.brainstorming import LIST_LENGTH, Brainstorm, most_lists, request_lists
from tasks.core.estimate import FEWEST_TOKENS, ListEstimate
from tasks.core.linting import Linter
from tasks.core.requests import Order
from tasks.models import find_prices
from tasks.progress import progress


def estimate_lists(wish: Brainstorm) -> ListEstimate:
    """Say what a brainstorming would do and cost; pays for nothing and writes nothing.

    Raises:
        StorageError: Bucket, credentials or endpoint.
    """
    order, name = wish.order, wish.order.recipe.model_name
    progress.begin("brainstorm")
    with storage_errors(order.destination):
        storage.require_bucket(order.destination)
        before = Linter().remember(read_known(order.source, order.run_id))
        missing = max(0, wish.wanted - before)
        fewest, most = ceil(missing / LIST_LENGTH), most_lists(wish) if missing else 0
        requests = request_lists(wish, 0, most)
        known = [_count_known(order, name, [one.key for one in requests[:count]]) for count in (fewest, most)]
    calls = max(0, fewest - known[0]), most - known[1]
    counted = llm.count_tokens(name, [one.prompt for one in requests]) or [0]
    given = sum(counted) / len(counted)
    tokens = [
        (round(count * given), round(count * made))
        for count, made in zip(calls, (LIST_LENGTH * FEWEST_TOKENS / 2, order.recipe.max_tokens), strict=True)
    ]
    price = find_prices(order)[name]
    cost = (price.of(*tokens[0]), price.of(*tokens[1])) if price else None
    return ListEstimate(
        destination=order.destination,
        source=order.source,
        model_name=name,
        wanted=wish.wanted,
        before=before,
        lists=(fewest, most),
        cached=known[1],
        calls=calls,
        input_tokens=(tokens[0][0], tokens[1][0]),
        output_tokens=(tokens[0][1], tokens[1][1]),
        cost_usd=cost if calls[1] else (0.0, 0.0),
        max_cost_usd=order.max_cost_usd,
    )


def _count_known(order: Order, model_name: str, request_keys: list[str]) -> int:
    """Count the requests that a model's journal answers, or what a killed run has left on this machine."""
    uri = order.journal_of(model_name)
    keys = pl.LazyFrame({"request_key": request_keys}, schema={"request_key": pl.String})
    local = local_keys(uri).to_frame().lazy()
    known = [look_up(uri, keys).select("request_key"), keys.join(local, on="request_key", how="semi")]
    with whole_segments(uri):
        return int(pl.concat(known).select(pl.col("request_key").n_unique()).collect(engine="streaming").item())
