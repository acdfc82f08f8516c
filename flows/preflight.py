"""Before a run: whether its parts work, and what it would do and cost."""

import asyncio
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from tasks.core.errors import PairmillError
from tasks.core.estimate import Estimate
from tasks.core.markdown import money
from tasks.core.showing import shown

if TYPE_CHECKING:
    from tasks.core.requests import Order

CALL_SECONDS = 120.0
# A description that no source holds: the answer to it is thrown away.
TRIED = "match a kind of weather with a sentence that describes it"


class Part(BaseModel):
    """One part that was tried; `said` is what it answered, or what is wrong with it."""

    name: str
    ok: bool
    said: str


class Check(BaseModel):
    """All the parts; `ok` when each of them works."""

    ok: bool
    parts: list[Part]


def check(**parameters: Any) -> Check:
    """Try the source, the destination and every model: one listing, writes and a delete, one paid call each.

    Args:
        **parameters: The flow's.

    Raises:
        UsageError: A parameter is missing or cannot be right.
    """
    from flows.order import place_order  # noqa: PLC0415  (not for --help)

    return try_parts(place_order(**parameters))


def try_parts(order: "Order", *, without: str = "") -> Check:
    """Try all that the run of `order` needs, but for the part that is not needed."""
    from tasks.clients import storage  # noqa: PLC0415  (not for --help)
    from tasks.clients.descriptions import list_source  # noqa: PLC0415

    # Where only runs in flight have objects, so that nobody takes it for data.
    uri = f"{order.destination}/staging/check-{uuid.uuid4().hex}"

    def read() -> str:
        objects = list_source(order.source, order.destination)
        return f"{len(objects):,} object{'s' * (len(objects) != 1)}, {sum(item.size for item in objects):,} bytes"

    def write() -> str:
        storage.write_bytes(uri, b"written")
        return uri if storage.read_bytes(uri) == b"written" else _fail("what was written reads otherwise")

    def write_once() -> str:
        if storage.create_bytes(uri, b"written by another"):
            _fail(
                "the storage ignores If-None-Match, so two runs at once could overwrite each other. "
                "Use one that honours conditional writes."
            )
        if storage.replace_bytes(uri, b"written by another", '"0123456789abcdef0123456789abcdef"'):
            _fail("the storage ignores If-Match, so two runs at once could publish together. Use one that honours it.")
        return "a second writer is refused"

    def delete() -> str:
        storage.delete_prefix(uri)
        return "gone" if storage.find_bytes(uri) is None else _fail(f"{uri} is still there")

    def call(model_name: str) -> str:
        return asyncio.run(_call(order, model_name))

    parts = {"source": read, "write": write, "conditional write": write_once, "delete": delete}
    several = len(order.models) > 1
    parts |= {f"model {name}" if several else "model": partial(call, name) for name in order.models}
    tried = [_try(name, part) for name, part in parts.items() if name != without]
    return Check(ok=all(part.ok for part in tried), parts=tried)


def _try(name: str, part: Callable[[], str]) -> Part:
    try:
        return Part(name=name, ok=True, said=part())
    except PairmillError as error:
        return Part(name=name, ok=False, said=str(error))


def _fail(message: str) -> str:
    raise PairmillError(message)


async def _call(order: "Order", model_name: str) -> str:
    from tasks.clients.lane import open_lane  # noqa: PLC0415
    from tasks.clients.outcome import CallFault  # noqa: PLC0415
    from tasks.core.parsing import parse_pair  # noqa: PLC0415
    from tasks.core.prompts import build_prompt  # noqa: PLC0415
    from tasks.models import own_price  # noqa: PLC0415

    lane = open_lane(order.recipe_of(model_name), order.api_base_of(model_name))
    started = time.monotonic()
    try:
        reply = await asyncio.wait_for(lane.call(build_prompt(TRIED, order.languages[0])), CALL_SECONDS)
    except CallFault as fault:
        _fail(fault.message)
    except TimeoutError:
        _fail(f"{model_name} has not answered within {CALL_SECONDS:g} seconds")
    finally:
        await lane.close()
    seconds, price = time.monotonic() - started, own_price(order, model_name)
    tokens = reply.input_tokens, reply.output_tokens
    cost = price.of(*tokens) if price and None not in tokens else reply.cost_usd  # type: ignore[arg-type]
    pair = parse_pair(reply.text or "")
    return (
        f"{reply.model_answered} answered in {seconds:.1f} s, {tokens[0]} tokens in, {tokens[1]} out, "
        f"cost {money(cost)}; the reply is {'a pair' if pair.input else f'no pair ({pair.problem})'}"
    )


def show_check(result: Check) -> None:
    """Print which parts work."""
    grid = Table.grid("", "", Column(overflow="fold"), padding=(0, 2))
    for part in result.parts:
        mark = Text("ok", style="green") if part.ok else Text("failed", style="bold red")
        grid.add_row(mark, part.name, Text(shown(part.said)))
    console = Console(highlight=False)
    console.print(grid)
    console.print("All parts work." if result.ok else "Put right what failed, and check again.")


def dry_run(**parameters: Any) -> Estimate:
    """Find out what the main flow would do and cost; pays for nothing and writes nothing.

    Args:
        **parameters: The flow's.

    Raises:
        UsageError: A parameter is missing or cannot be right.
    """
    from flows.order import place_order  # noqa: PLC0415  (not for --help)
    from tasks.estimate import estimate_run  # noqa: PLC0415

    return estimate_run(place_order(**parameters))


def show_estimate(found: Estimate) -> None:
    """Print what a run would do and cost."""
    grid = Table.grid(padding=(0, 2))
    left_out = {
        "served already": found.already_served,
        "rejected before": found.already_rejected,
        "repeated": found.repeated,
        "blank": found.blank,
    }
    again = found.calls_most - found.calls
    cost = show_cost(found.cost_usd)
    rows = [
        (
            "task descriptions",
            f"{found.descriptions:,}",
            ", ".join(f"{n:,} {what}" for what, n in left_out.items() if n),
        ),
        ("at work", f"{found.claimed:,}", "descriptions that a run at work is making"),
        ("requests", f"{found.requests:,}", f"{found.cached:,} of them in the journal"),
        ("calls to pay", f"{found.calls:,}", f"at most {again:,} more for what validation rejects" if again else ""),
        ("tokens in", show_range(found.input_tokens), f"from {found.tokens_from}" if found.calls else ""),
        ("tokens out", show_range(found.output_tokens), ""),
        ("cost", cost, f"price from {found.price_from}" if found.cost_usd is not None else ""),
    ]
    for name, value, remark in rows:
        if name != "at work" or found.claimed:
            grid.add_row(Text(name, style="dim"), Text(value, style="bold"), Text(remark))
    console = Console(highlight=False)
    console.print(f"[bold]{found.partition}[/]: a dry run, nothing is paid for or published")
    console.print(grid)
    for note in _notes(found):
        console.print(Text(shown(note), style="yellow"))


def _notes(found: Estimate) -> list[str]:
    notes = []
    if found.claimed:
        notes.append("What a run at work is making is paid for by that run; what it leaves, the next one asks for.")
    if not found.requests:
        other = "else " if found.claimed else ""
        notes.append(f"There is nothing {other}to do: what the source holds is served, or was judged before.")
    elif not found.would_publish:
        notes.append("With --limit a run shows a preview and does not publish.")
    if found.cost_usd is None:
        notes.append(
            f"litellm knows no price for {found.model_name}. To know the cost, give --input-cost-per-token and "
            "--output-cost-per-token in US dollars a token ($0.40 a million is 0.0000004)."
        )
    elif found.max_cost_usd and found.cost_usd[1] > found.max_cost_usd:
        notes.append(f"It may stop at --max-cost-usd {found.max_cost_usd:,.2f}; the same command then goes on.")
    return notes


def show_cost(between: tuple[float, float] | None) -> str:
    """Return a range of US dollars as text."""
    return "price unknown" if between is None else show_range(between, money)


def show_range(between: tuple[float, float], write: Callable[[float], str] = "{:,.0f}".format) -> str:
    """Return a range as text, one number where both ends are equal."""
    low, high = map(write, between)
    return low if low == high else f"{low} to {high}"
