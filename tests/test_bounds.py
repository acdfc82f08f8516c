"""No answer of a provider goes on for ever, in bytes or in seconds, whatever it is packed as."""

import gzip
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tasks.clients.batches import BatchApi
from tasks.clients.bounds import _meter
from tasks.clients.outcome import CallFault
from tasks.core.requests import Recipe

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
Sender = Callable[[socket.socket, threading.Event], None]


def flood(taken: socket.socket, over: threading.Event) -> None:
    taken.sendall(HEAD)
    while not over.is_set():
        taken.sendall(b" " * 1_000_000)


def drip_body(taken: socket.socket, over: threading.Event) -> None:
    taken.sendall(HEAD)
    while not over.wait(0.05):
        taken.sendall(b" ")


def drip_headers(taken: socket.socket, over: threading.Event) -> None:
    taken.sendall(HEAD[:-2] + b"X-Long: ")
    while not over.wait(0.05):
        taken.sendall(b"x")


def hang(taken: socket.socket, over: threading.Event) -> None:
    over.wait()


@contextmanager
def serve(send: Sender) -> Iterator[str]:
    """Answer every connection by `send`."""
    over = threading.Event()

    def answer(taken: socket.socket) -> None:
        with taken, suppress(OSError):
            taken.recv(1 << 16)
            send(taken, over)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listening.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        over.set()
        listening.shutdown(socket.SHUT_RDWR)


OPERATIONS: dict[str, Callable[[BatchApi], object]] = {
    "create": lambda api: api.create("file-1", "ours"),
    "retrieve": lambda api: api.retrieve("batch-1"),
    "find": lambda api: api.find({"ours"}, 0.0),
    "cancel": lambda api: api.cancel("batch-1"),
    "delete": lambda api: api.delete("file-1"),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_endless_answer_of_the_batch_api_is_cut_off(name: str) -> None:
    with serve(flood) as api_base, pytest.raises(CallFault) as caught:
        OPERATIONS[name](BatchApi(Recipe(model_name="openai/gpt-4o-mini"), api_base))
    assert caught.value.kind == "transient"


# The shorter time is over before there is a connection.
@pytest.mark.parametrize("seconds", [1.0, 0.0001])
@pytest.mark.parametrize("send", [drip_body, drip_headers])
def test_an_answer_of_the_batch_api_that_never_ends_is_given_up(send: Sender, seconds: float) -> None:
    late = f"no whole reply within {seconds:g} seconds"
    with serve(send) as api_base, pytest.raises(CallFault, match=late) as caught:
        BatchApi(Recipe(model_name="openai/gpt-4o-mini"), api_base, seconds=seconds).retrieve("batch-1")
    assert caught.value.kind == "transient"


# More than any connection holds that nobody reads from.
UPLOAD_BYTES = 64 << 20


@pytest.mark.parametrize("send", [drip_body, drip_headers, hang])
@pytest.mark.parametrize("moved", ["upload", "download"])
def test_a_file_that_never_arrives_is_given_up(send: Sender, moved: str, tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_bytes(b" " * UPLOAD_BYTES)
    moves: dict[str, Callable[[BatchApi], object]] = {
        "upload": lambda api: api.upload(path),
        "download": lambda api: api.download("file-1", path, UPLOAD_BYTES),
    }
    with serve(send) as api_base, pytest.raises(CallFault, match="no whole reply within 1 seconds") as caught:
        moves[moved](BatchApi(Recipe(model_name="openai/gpt-4o-mini"), api_base, transfer_seconds=1.0))
    assert caught.value.kind == "transient"


@pytest.mark.parametrize("junk", [b"\0" * 1000, gzip.compress(b"x" * 100)])
def test_what_comes_after_a_packed_reply_counts(junk: bytes) -> None:
    check = _meter(10_000, "gzip")
    check(gzip.compress(b" "))
    with pytest.raises(httpx.ReadError, match="longer than"):
        list(map(check, [junk] * 1000))


def test_a_packed_reply_counts_unpacked() -> None:
    packed = gzip.compress(b" " * 1_000_000)
    _meter(1_000_000, "gzip")(packed)
    with pytest.raises(httpx.ReadError, match="longer than"):
        _meter(999_999, "gzip")(packed)
    with pytest.raises(httpx.ReadError, match="not packed as it says"):
        _meter(1000, "gzip")(b"no gzip at all")
    with pytest.raises(httpx.ReadError, match="not asked for"):
        _meter(1000, "br")
