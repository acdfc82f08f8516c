"""How a run's models are reached: their lanes, journals, paces and prices, and the one budget."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal

from prefect import get_run_logger

from tasks.clients import llm
from tasks.clients.attempts import Attempts, Request
from tasks.clients.budget import Budget
from tasks.clients.calls import ModelClient
from tasks.clients.journal import Journal
from tasks.clients.lane import Lane, open_lane
from tasks.clients.outcome import Reply
from tasks.clients.pacing import Ceiling
from tasks.clients.rates import Rates
from tasks.core.duplicates import DUPLICATE
from tasks.core.judging import find_reason
from tasks.core.parsing import parse_pair
from tasks.core.price import Price
from tasks.core.requests import Order
from tasks.core.rules import REFUSAL, REFUSED, WRONG_LANGUAGE
from tasks.progress import progress

# What the first replies of a run must hold, or going on would only burn money.
Expects = Literal["nothing", "text", "shape", "pairs"]


@contextmanager
def connect(order: Order, expects: Expects) -> Iterator[ModelClient]:
    """Hold the client that pays for what `order` wants, and the journals of its models, inside the block.

    Raises:
        UsageError, ModelError: The model's name or key cannot work.
        StorageError: What an earlier process left behind cannot be uploaded, or, at the end, what this one paid for.
    """
    # First, since a name or key that cannot work leaves nothing behind.
    logger, lanes = get_run_logger(), open_lanes(order)
    ceiling, budget, records = Ceiling(order.concurrency), _budget(order), list[Journal]()

    def attempts(name: str, lane: Lane) -> Attempts:
        recipe = order.recipe_of(name)
        records.append(stack.enter_context(Journal(order.journal_of(name), recipe=recipe.canonical)))
        return Attempts(
            lane.call,
            records[-1],
            ceiling,
            rates=Rates(order.requests_per_minute, order.tokens_per_minute, tokens_a_call=recipe.max_tokens),
            budget=budget,
            price=own_price(order, name),
            find_problem=_problem_finder(expects, order.languages),
        )

    async def close() -> None:
        for lane in lanes.values():
            await lane.close()

    def flush() -> None:
        for record in records:
            record.flush()

    with ExitStack() as stack:
        each = {name: attempts(name, lane) for name, lane in lanes.items()}
        main = each.pop(order.recipe.model_name)
        client = stack.enter_context(ModelClient(main, others=each, close_call=close, flush=flush))
        progress.paid = lambda: client.answered
        yield client
    logger.info("%d calls paid, %d attempts repeated", client.paid, client.retried)
    for record in records:
        if record.lost is not None:
            raise record.lost


def open_lanes(order: Order) -> dict[str, Lane]:
    """Open the lane of each model, and log which it is and why.

    Raises:
        UsageError, ModelError: The model's name or key cannot work.
    """
    lanes = {name: open_lane(order.recipe_of(name), order.api_base_of(name)) for name in order.models}
    for name, lane in lanes.items():
        get_run_logger().info("%s: %s lane: %s", name, lane.name, lane.why)
    return lanes


def _problem_finder(expects: Expects, languages: Sequence[str]) -> Callable[[Request, Reply], str | None]:
    """Return what says of a run's first replies that nothing came of them.

    A reply that a fallback may take over is REFUSED here, as it is for the fallbacks. Of several `languages`
    one may be beyond a model.
    """
    seen = set[str]()

    def find_problem(request: Request, reply: Reply) -> str | None:
        if expects in ("nothing", "text"):
            return reply.error if expects == "text" else None
        if reply.error or reply.finish_reason == "length":
            return reply.error or "length"
        if reply.finish_reason == "content_filter" or reply.text is None:
            return REFUSED
        problem = parse_pair(reply.text).problem
        if problem or expects == "shape":
            return REFUSED if problem and re.search(REFUSAL, reply.text) else problem
        reason = find_reason(request.task, request.language, reply.text, reply.finish_reason)
        if reason == WRONG_LANGUAGE and languages != (request.language,):
            return None
        again = reply.text in seen
        seen.add(reply.text)
        return reason or (DUPLICATE if again else None)

    return find_problem


def own_price(order: Order, model_name: str) -> Price | None:
    """Return the price that the order gives for its main model, None where litellm's own counts."""
    price = Price(order.input_cost_per_token, order.output_cost_per_token)
    return price if any(price) and model_name == order.recipe.model_name else None


def find_prices(order: Order) -> dict[str, Price | None]:
    """Return what each model's tokens cost, None where that is unknown."""
    return {name: own_price(order, name) or llm.find_price(name) for name in order.models}


def _budget(order: Order) -> Budget | None:
    if not order.max_cost_usd:
        return None
    prices = {name: price for name, price in find_prices(order).items() if price}
    return Budget(order.max_cost_usd, prices[order.recipe.model_name], order.recipe.max_tokens, prices)
