"""What a proxy that the environment names is asked and told, in both lanes."""

import asyncio

import pytest

from tasks.clients import lane
from tasks.clients.lane import open_lane
from tasks.clients.outcome import CallFault, Reply
from tasks.core.requests import Recipe

KEY = "canary-8d1f0b6c2e"
LANES = ["fast", "stock"]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def ask(api_base: str, setting: str, value: str, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], CallFault]:
    """Make one call with a proxy, {} in `value`, that refuses; return what it was told, and the fault."""
    told: list[str] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def call() -> Reply:
        proxy = await asyncio.start_server(refuse, "127.0.0.1", 0)
        address = "{}:{}".format(*proxy.sockets[0].getsockname())
        monkeypatch.setenv(setting, value.format(address))
        opened = open_lane(Recipe(model_name="openai/gpt-4o-mini"), api_base)
        try:
            return await opened.call("a prompt")
        finally:
            await opened.close()
            proxy.close()

    with pytest.raises(CallFault) as caught:
        asyncio.run(call())
    return told, caught.value


@pytest.mark.parametrize("name", LANES)
def test_a_proxy_in_front_of_tls_is_told_no_key_and_what_it_refuses_costs_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(lane.SETTING, name)
    told, fault = ask(f"https://{name}.invalid/v1", "HTTPS_PROXY", "http://{}", monkeypatch)
    assert [one.split("\r\n")[0] for one in told] == [f"CONNECT {name}.invalid:443 HTTP/1.1"]
    assert KEY not in told[0]
    assert (fault.kind, fault.unreached, fault.billed) == ("transient", True, False)


SETTINGS = {
    "address": ("HTTP_PROXY", "http://{}"),
    "short": ("HTTP_PROXY", "{}"),
    "for all": ("ALL_PROXY", "http://{}"),
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", LANES)
def test_both_lanes_find_the_same_proxy_and_give_it_no_key_of_its_own(
    name: str, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(lane.SETTING, name)
    host = f"{name}-{setting.replace(' ', '-')}.invalid"
    told, _ = ask(f"http://{host}/v1", *SETTINGS[setting], monkeypatch)
    assert [one.split("\r\n")[0] for one in told] == [f"POST http://{host}/v1/chat/completions HTTP/1.1"]
    assert "proxy-authorization" not in told[0].lower()


@pytest.mark.parametrize("name", LANES)
def test_a_server_that_is_excepted_is_reached_past_the_proxy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(lane.SETTING, name)
    monkeypatch.setenv("NO_PROXY", ".invalid")
    told, fault = ask(f"http://{name}-excepted.invalid/v1", "HTTP_PROXY", "http://{}", monkeypatch)
    assert (told, fault.unreached) == ([], True)
