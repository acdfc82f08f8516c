"""What a run would do and cost, found out as a run would, but for paying and writing."""

import tempfile
from pathlib import Path

import polars as pl

from tasks.clients import llm, storage, table
from tasks.clients.descriptions import list_source, read_descriptions
from tasks.clients.lease import find_fresh
from tasks.clients.leftovers import local_keys
from tasks.clients.lookup import find_segments, scan_segments
from tasks.clients.storage_errors import storage_errors
from tasks.core.batching import SHARE_OF_PRICE
from tasks.core.counting import counted
from tasks.core.estimate import COUNT_ERROR, FEWEST_TOKENS, Estimate, Part, TokensPerCall, estimate
from tasks.core.price import Price
from tasks.core.prompts import build_prompt
from tasks.core.requests import Order
from tasks.models import find_prices, own_price
from tasks.plan import plan_into
from tasks.progress import progress
from tasks.staging import Scratch, look_up_requests

SAMPLED_PROMPTS = 200
# What is likely: the range that four fifths of the calls so far lie in.
LIKELY = (0.1, 0.9)


def estimate_run(order: Order) -> Estimate:
    """Say what the run of `order` would do and cost; pays for nothing and writes nothing.

    Raises:
        SourceError: Nothing to read, or an object that cannot be read.
        SchemaError: A source column does not fit the published table.
        StorageError: Bucket, credentials or endpoint.
        UsageError: litellm does not know the model's provider.
    """
    progress.begin("extract")
    with storage_errors(order.destination):
        return _estimate(order)


def _estimate(order: Order) -> Estimate:
    storage.require_bucket(order.destination)
    table.check_outside(order.destination)
    objects = list_source(order.source, order.destination)
    with tempfile.TemporaryDirectory(prefix="pairmill-") as folder:
        requests = Scratch(Path(folder))
        plan, _ = plan_into(requests, order, read_descriptions(objects, Path(folder), order), find_fresh)
        calls = _count_calls(order, requests)
        parts = [
            Part(
                name,
                count,
                _learn_tokens(order, name) or _count_tokens(order, requests, name),
                *_price(order, name),
            )
            for name, count in calls.items()
        ]
    return estimate(order, plan, cached=requests.rows - sum(calls.values()), parts=parts)


def _price(order: Order, model_name: str) -> tuple[Price | None, str]:
    """Return what a model's tokens cost, and where that is known from."""
    price = find_prices(order)[model_name]
    if price is None:
        return None, "nowhere"
    source = "the parameters" if own_price(order, model_name) else f"litellm, for {model_name}"
    if order.batch and not order.limit and model_name == order.recipe.model_name:
        return price.times(SHARE_OF_PRICE), f"{source}, for batches half of it"
    return price, source


def _count_calls(order: Order, requests: Scratch) -> dict[str, int]:
    """Count each model's calls: what no journal answers, nor what a killed run has left on this machine."""
    calls = dict.fromkeys(order.shares, 0)
    if not requests.rows:
        return calls
    local = {name: local_keys(order.journal_of(name)).implode() for name in order.models}
    for rows, _, _ in look_up_requests(order, requests):
        for name in rows["model_name"].unique():
            unknown = ~pl.col("cached") & (pl.col("model_name") == name) & ~pl.col("request_key").is_in(local[name])
            count = rows.filter(unknown).height
            if count:
                calls[name] = calls.get(name, 0) + count
    return calls


def _learn_tokens(order: Order, model_name: str) -> TokensPerCall | None:
    """Return what this model's calls took so far: those of this recipe in the journal, else those published."""
    journalled = find_segments(order.journal_of(model_name))
    held = [table.scan(table.open_table(uri)) for uri in (order.layout.pairs, order.layout.rejected)]
    of_model = pl.col("model_name") == model_name
    for rows, where in (
        (scan_segments(journalled) if journalled else None, "in the journal"),
        (
            pl.concat([_tokens(one.filter(of_model)) for one in held if one is not None] or [_tokens(_NONE)]),
            "published",
        ),
    ):
        if rows is None:
            continue
        low, high = (pl.all().quantile(share, interpolation="nearest").name.suffix(f"_{share}") for share in LIKELY)
        found = _tokens(rows).select(low, high, calls=pl.len()).collect(engine="streaming").row(0, named=True)
        if found["calls"]:
            ranges = [
                (float(found[f"{column}_{LIKELY[0]}"]), float(found[f"{column}_{LIKELY[1]}"]))
                for column in ("input_tokens", "output_tokens")
            ]
            return TokensPerCall(ranges[0], ranges[1], f"{counted(found['calls'], 'completion')} of this model {where}")
    return None


_NONE = pl.LazyFrame(schema={"input_tokens": pl.Int64, "output_tokens": pl.Int64})


def _tokens(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.select("input_tokens", "output_tokens").drop_nulls()


def _count_tokens(order: Order, requests: Scratch, model_name: str) -> TokensPerCall:
    """Count the tokens of some prompts, evenly over the plan."""
    source = "its prompts as litellm counts them; what it answers is not known yet"
    if not requests.rows:
        return TokensPerCall((0, 0), (0, 0), source)
    every = max(1, requests.rows // SAMPLED_PROMPTS)
    some = requests.scan().filter(pl.col("plan_row") % every == 0)
    rows = some.select("task", "language", "sample_index").collect(engine="streaming")
    counted = llm.count_tokens(model_name, [build_prompt(*row) for row in rows.iter_rows()])
    mean = sum(counted) / len(counted)
    most = float(order.recipe.max_tokens)
    return TokensPerCall((mean * (1 - COUNT_ERROR), mean * (1 + COUNT_ERROR)), (min(FEWEST_TOKENS, most), most), source)
