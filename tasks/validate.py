"""Step 3: a shard's completions are parsed and judged."""

from dataclasses import replace

from tasks.clients import frames
from tasks.core.columns import ACCEPTED, SHARD
from tasks.core.judging import judge_completions
from tasks.core.plans import Shard
from tasks.core.requests import Order
from tasks.policy import step


@step("validate", "validate shard {shard.label}", retries=3)
def validate_pairs(shard: Shard, order: Order) -> Shard:
    """Judge every row of `shard` and stage it with its `reasons`, none for an accepted row.

    Returns:
        Where the judged rows lie, and how many were rejected; see `judge_completions` for their columns.
    """
    judged = judge_completions(frames.read_frame(shard.uri, SHARD).lazy(), order)
    uri = f"{order.staging}/judged/{shard.number:06}.parquet"
    frames.write_frame(judged, uri)
    return replace(shard, uri=uri, rejected=judged.filter(~ACCEPTED).height)
