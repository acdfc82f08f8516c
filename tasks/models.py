"""How a run's model is reached: its lane, journal, pace, price and budget."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from prefect import get_run_logger

from tasks.clients import journal, llm
from tasks.clients.attempts import Attempts
from tasks.clients.budget import Budget
from tasks.clients.calls import ModelClient
from tasks.clients.lane import open_lane
from tasks.clients.outcome import Reply
from tasks.clients.rates import Rates
from tasks.core.parsing import parse_pair
from tasks.core.price import Price
from tasks.core.requests import Order
from tasks.progress import progress

# What the first replies of a run must hold, or going on would only burn money.
Expects = Literal["text", "pairs", "nothing"]

# Finish reasons of replies that hold no pair whatever their text is.
UNUSABLE = ("length", "content_filter")


@contextmanager
def connect(order: Order, expects: Expects) -> Iterator[ModelClient]:
    """Hold the client that pays for what `order` wants, and its journal, inside the block.

    Raises:
        UsageError, ModelError: The model's name or key cannot work.
        StorageError: What an earlier process left behind cannot be uploaded, or, at the end, what this one paid for.
    """
    # First, since a name or key that cannot work leaves nothing behind.
    lane = open_lane(order.recipe, order.api_base)
    logger = get_run_logger()
    logger.info("%s lane: %s", lane.name, lane.why)
    with journal.Journal(order.layout.journal(order.recipe.recipe_id), recipe=order.recipe.canonical) as record:
        attempts = Attempts(
            lane.call,
            record,
            order.concurrency,
            rates=Rates(order.requests_per_minute, order.tokens_per_minute, tokens_a_call=order.recipe.max_tokens),
            budget=_budget(order),
            price=own_price(order),
            find_problem=_problem_finder(expects),
        )
        with ModelClient(attempts, close_call=lane.close, flush=record.flush) as client:
            progress.paid = lambda: attempts.paid + attempts.failed
            yield client
        logger.info("%d calls paid, %d attempts repeated", attempts.paid, attempts.retried)
    if record.lost is not None:
        raise record.lost


def _problem_finder(expects: Expects) -> Callable[[Reply], str | None]:
    """Return what says of a run's first replies that nothing came of them."""

    def find_problem(reply: Reply) -> str | None:
        if expects != "pairs":
            return reply.error if expects == "text" else None
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
