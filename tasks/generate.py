"""Step 2: a shard's requests get their completions, from the journal or paid."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from threading import Event, Lock

import polars as pl
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.context import TaskRunContext
from prefect.tasks import exponential_backoff

from tasks.clients import frames, journal, llm
from tasks.clients.attempts import Attempts, Request
from tasks.clients.budget import Budget
from tasks.clients.calls import ModelClient
from tasks.clients.lane import open_lane
from tasks.clients.outcome import Reply
from tasks.clients.rates import Rates
from tasks.core.columns import COMPLETIONS
from tasks.core.errors import StoppedError
from tasks.core.parsing import parse_pair
from tasks.core.price import Price
from tasks.core.prompts import build_prompt
from tasks.core.requests import Order, Plan, Shard
from tasks.policy import is_transient
from tasks.progress import progress

# Returns the process's one client, opening it the first time.
Model = Callable[[], ModelClient]

# Finish reasons of replies that hold no pair whatever their text is.
UNUSABLE = ("length", "content_filter")


@contextmanager
def open_model(order: Order, plan: Plan) -> Iterator[Model]:
    """Hold the process's model client and journal inside the block.

    Where the journal answers the whole plan, they are opened only by the first step
    that has something to pay for. Leaving the block by whatever way stops paying at
    once and flushes the journal.

    Raises:
        UsageError, ModelError: The model's name or key cannot work.
        StorageError: What an earlier process left behind cannot be uploaded.
    """
    if plan.requests:
        progress.begin("generate", plan.requests)
        progress.cached = plan.cached
    opening, closed = Lock(), Event()
    clients: list[ModelClient] = []
    with ExitStack() as stack:

        def model() -> ModelClient:
            with opening:
                if closed.is_set():
                    raise StoppedError("The run was stopped before its model was needed. Run the same command again.")
                if not clients:
                    clients.append(stack.enter_context(_connect(order, plan)))
                return clients[0]

        if plan.requests > plan.cached:
            model()
        try:
            yield model
        finally:
            with opening:
                closed.set()


@contextmanager
def _connect(order: Order, plan: Plan) -> Iterator[ModelClient]:
    # First, since a name or key that cannot work leaves nothing behind.
    lane = open_lane(order.recipe, order.api_base)
    get_run_logger().info("%s lane: %s", lane.name, lane.why)
    with journal.Journal(order.layout.journal(order.recipe.recipe_id), recipe=order.recipe.canonical) as record:
        attempts = Attempts(
            lane.call,
            record,
            order.concurrency,
            rates=Rates(order.requests_per_minute, order.tokens_per_minute, tokens_a_call=order.recipe.max_tokens),
            budget=_budget(order),
            price=own_price(order),
            find_problem=_problem_finder(plan),
        )
        with ModelClient(attempts, close_call=lane.close) as client:
            progress.paid = lambda: attempts.paid + attempts.failed
            yield client
        get_run_logger().info("%d calls paid, %d attempts repeated", attempts.paid, attempts.retried)
    if record.lost is not None:
        raise record.lost


def _problem_finder(plan: Plan) -> Callable[[Reply], str | None]:
    """Return what says of a run's first replies that no pair came of them.

    Where the destination has judged descriptions of this source before, those left
    may well be the ones that nothing ever comes of: then nothing is said.
    """
    if not plan.requests:
        return lambda reply: reply.error
    if plan.already_served or plan.already_rejected:
        return lambda _: None

    def find_problem(reply: Reply) -> str | None:
        if reply.error or reply.text is None:
            return reply.error or "refused"
        return reply.finish_reason if reply.finish_reason in UNUSABLE else parse_pair(reply.text).problem

    return find_problem


def own_price(order: Order) -> Price | None:
    """Return the price that the order gives, None where litellm's own counts."""
    price = Price(order.input_cost_per_token, order.output_cost_per_token)
    return price if any(price) else None


def _budget(order: Order) -> Budget | None:
    price = own_price(order) or (llm.find_price(order.recipe.model_name) if order.max_cost_usd else None)
    return Budget(order.max_cost_usd, price, order.recipe.max_tokens) if order.max_cost_usd and price else None


@task(
    name="generate",
    task_run_name="generate shard {shard.number}",
    retries=2,
    retry_delay_seconds=exponential_backoff(2),
    retry_jitter_factor=0.5,
    retry_condition_fn=is_transient,
    cache_policy=NO_CACHE,
)
def generate_completions(shard: Shard, order: Order, model: Model) -> Shard:
    """Give every request of `shard` its completion, each durable before it counts.

    Writes the shard's rows with the columns of COMPLETIONS filled in.

    Returns:
        Where they lie.

    Raises:
        UsageError, ModelError, StoppedError: The run is over; what was paid for is in the journal.
    """
    rows = frames.read_frame(shard.uri)
    context = TaskRunContext.get()
    if context is not None and context.task_run.run_count > 1:
        rows = _look_up_again(rows, order)
    wanted = rows.filter(~pl.col("cached"))
    if wanted.height:
        prompts = map(build_prompt, wanted["task"], wanted["language"], wanted["sample_index"])
        completions = model().complete([Request(*pair) for pair in zip(wanted["request_key"], prompts, strict=True)])
        answered = wanted.drop(COMPLETIONS).hstack(pl.DataFrame(completions, schema=COMPLETIONS, orient="row"))
        rows = pl.concat([rows.filter(pl.col("cached")), answered.select(rows.columns)]).sort("plan_row")
    uri = f"{order.staging}/completions/{shard.number:06}.parquet"
    frames.write_frame(rows, uri)
    return replace(shard, uri=uri, calls_in_flight=model().limit if wanted.height else 0)


def _look_up_again(rows: pl.DataFrame, order: Order) -> pl.DataFrame:
    """Find what an attempt of this step paid for before it failed."""
    uri = order.layout.journal(order.recipe.recipe_id)
    journal.upload_leftovers(journal.local_folder() / "journal", uri)
    keys = rows.filter(~pl.col("cached")).select("request_key")
    found = journal.keep_earliest(journal.look_up(uri, keys.lazy()).collect(engine="streaming"))
    known = rows.drop(COMPLETIONS).join(found.drop("segment"), on="request_key", how="inner")
    rest = rows.join(found, on="request_key", how="anti")
    return pl.concat([rest, known.select(rows.columns)]).sort("plan_row")
