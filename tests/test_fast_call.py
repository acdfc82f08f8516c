import asyncio
import socket
from contextlib import ExitStack
from typing import Any

import pytest
from aiohttp import web

from tasks.clients.fast_call import FastCall
from tasks.clients.outcome import CallFault, Reply
from tasks.clients.plain_replies import REPLY_BYTES
from tasks.clients.wire import open_wire
from tasks.core.requests import Recipe
from tests import model_server as server
from tests.lanes import MODELS, call, outcome
from tests.model_server import ModelServer

pytestmark = pytest.mark.usefixtures("lane_as_it_is")


@pytest.mark.parametrize(("size", "whole"), [(REPLY_BYTES - 1000, True), (REPLY_BYTES, False)])
def test_a_reply_that_is_too_long_is_cut_off(model_server: ModelServer, size: int, whole: bool) -> None:
    model_server.default = server.answer("x" * size)
    found = call(model_server)
    assert isinstance(found, Reply) == whole
    if isinstance(found, CallFault):
        assert (found.kind, "longer than" in found.message) == ("transient", True)


def test_a_server_that_takes_no_connection_is_sent_nothing_and_paid_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, ExitStack() as stack:
        address = server.getsockname()
        for _ in range(4):  # whoever comes after these is let wait
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)

        async def ask() -> Reply | CallFault:
            wire = open_wire(Recipe(model_name=MODELS[0]), f"http://127.0.0.1:{address[1]}/v1")
            call = FastCall(wire, connect_seconds=0.2)
            try:
                return await outcome(call, "a prompt")
            finally:
                await call.close()

        found = asyncio.run(ask())
    assert isinstance(found, CallFault)
    assert (found.kind, found.unreached, found.billed) == ("transient", True, False)


def test_an_endless_reply_is_cut_off(model_server: ModelServer) -> None:
    async def endless(request: Any, sent: Any) -> Any:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * (1 << 16))

    model_server.default = endless
    found = call(model_server)
    assert isinstance(found, CallFault)
    assert "longer than" in found.message


def test_a_server_that_says_the_key_shows_it_to_nobody(
    model_server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def echo(request: Any, sent: Any) -> Any:
        assert request.transport is not None
        request.transport.write(f"HTTP/1.1 Authorization: {request.headers['Authorization']}\r\n\r\n".encode())
        request.transport.close()
        return web.Response()

    monkeypatch.setenv("OPENAI_API_KEY", "canary-5f2c9d7e1b")
    model_server.default = echo
    found = call(model_server)
    assert isinstance(found, CallFault)
    assert model_server.keys == ["Bearer canary-5f2c9d7e1b"]
    assert "[OPENAI_API_KEY]" in found.message, "an error that says nothing proves nothing"
    assert ("canary" in found.message, "\n" in found.message) == (False, False)


def test_a_wire_does_not_show_the_key_that_it_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "canary-5f2c9d7e1b")
    wire = open_wire(Recipe(model_name=MODELS[0]), "http://127.0.0.1:1/v1")
    assert "canary" in wire.headers["Authorization"]
    assert "canary" not in repr(wire)
