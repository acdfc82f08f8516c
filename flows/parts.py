"""Whether the parts that a run needs work: its source, its destination and its models."""

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NoReturn

from pydantic import BaseModel
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from tasks.core.counting import counted
from tasks.core.errors import PairmillError
from tasks.core.layout import split_uri
from tasks.core.requests import Order
from tasks.core.showing import shown
from tasks.core.wording import money

CALL_SECONDS = 120.0
WRITE = "write"
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


def try_parts(order: Order, *, without: str = "") -> Check:
    """Try all that the run of `order` needs, but for the part that is not needed."""
    from tasks.clients import storage  # noqa: PLC0415  (slow; the display is there first)
    from tasks.clients.descriptions import list_source  # noqa: PLC0415

    # Where only runs in flight have objects, so that nobody takes it for data.
    uri = f"{order.destination}/staging/check-{uuid.uuid4().hex}"

    def read() -> str:
        objects = list_source(order.source, order.destination)
        return f"{counted(len(objects), 'object')}, {counted(sum(item.size for item in objects), 'byte')}"

    def write() -> str:
        storage.require_bucket(order.destination)
        storage.write_bytes(uri, b"written")
        same = storage.read_bytes(uri) == b"written"
        return f"to {order.destination}/staging" if same else _fail("what was written reads otherwise")

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

    of_storage = {"source": read, WRITE: write, "conditional write": write_once, "delete": delete}
    of_storage.pop(without, None)
    several = len(order.models) > 1
    models = {f"model {name}" if several else "model": partial(call, name) for name in order.models}
    one_bucket = split_uri(order.source)[0] == split_uri(order.destination)[0]
    tried = [*_try(of_storage, one_bucket=one_bucket), *_try(models)]
    return Check(ok=all(part.ok for part in tried), parts=tried)


def _try(parts: Mapping[str, Callable[[], str]], *, one_bucket: bool = False) -> Iterator[Part]:
    """Try one part after the other, up to one without which the next cannot work and would only say the same.

    That is a write, a storage that does not answer, and, where all is in `one_bucket`, a bucket that is not there.
    """
    from tasks.clients.storage_errors import NoBucketError, TransientStorageError  # noqa: PLC0415

    for name, part in parts.items():
        try:
            yield Part(name=name, ok=True, said=part())
        except PairmillError as error:
            yield Part(name=name, ok=False, said=str(error))
            no_bucket = one_bucket and isinstance(error, NoBucketError)
            if name == WRITE or no_bucket or isinstance(error, TransientStorageError):
                return


def _fail(message: str) -> NoReturn:
    raise PairmillError(message)


async def _call(order: Order, model_name: str) -> str:
    from tasks.clients.lane import open_lane  # noqa: PLC0415
    from tasks.clients.outcome import NOT_REACHED, CallFault  # noqa: PLC0415
    from tasks.core.parsing import parse_pair  # noqa: PLC0415
    from tasks.core.prompts import build_prompt  # noqa: PLC0415
    from tasks.models import own_price  # noqa: PLC0415

    lane = open_lane(order.recipe_of(model_name), order.api_base_of(model_name))
    started = time.monotonic()
    try:
        reply = await asyncio.wait_for(lane.call(build_prompt(TRIED, order.languages[0])), CALL_SECONDS)
    except CallFault as fault:
        _fail(NOT_REACHED.format(fault.message) if fault.unreached else fault.message)
    except TimeoutError:
        _fail(f"{model_name} has not answered within {CALL_SECONDS:g} seconds")
    finally:
        await lane.close()
    seconds, cost = time.monotonic() - started, reply.at_price(own_price(order, model_name)).cost_usd
    pair = parse_pair(reply.text or "")
    tokens = counted(reply.input_tokens, "token") if reply.input_tokens is not None else "tokens unknown"
    return (
        f"{reply.model_answered} answered in {seconds:.1f} s, {tokens} in, {reply.output_tokens} out, "
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
