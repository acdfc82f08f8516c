"""What litellm's connections may do: they follow no redirect, and bring so many bytes and no more.

litellm itself reads whatever comes and goes wherever it is sent, with keys and prompts, and has
no setting for either.
"""

import threading
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from socket import SHUT_RDWR
from typing import Any

from tasks.clients.faults import redirected
from tasks.clients.llm import import_litellm
from tasks.clients.outcome import CallFault


@dataclass
class Allowed:
    """What a call of the batch API may bring and take; `most_bytes` None where the caller counts."""

    most_bytes: int | None
    seconds: float
    over: bool = False
    _streams: list[Any] = field(default_factory=list)

    def note(self, event: str, told: dict[str, Any]) -> None:
        """Keep each connection that httpx opens."""
        stream = told.get("return_value")
        if event.startswith("connection.") and hasattr(stream, "get_extra_info"):
            self._streams.append(stream)
            if self.over:  # it was opened too late
                self.end()

    def end(self) -> None:
        """End the call, whatever it waits for."""
        self.over = True
        for stream in self._streams:
            with suppress(OSError, AttributeError):
                stream.get_extra_info("socket").shutdown(SHUT_RDWR)


_allowed: ContextVar[Allowed | None] = ContextVar("_allowed", default=None)


@contextmanager
def allow(most_bytes: int | None, seconds: float) -> Iterator[Allowed]:
    """Bound what is called of the batch API within.

    Raises:
        CallFault: It took longer.
    """
    allowed = Allowed(most_bytes, seconds)
    timer = threading.Timer(seconds, allowed.end)
    timer.daemon = True
    token = _allowed.set(allowed)
    late = CallFault("transient", f"no whole reply within {seconds:g} seconds", billed=True)
    timer.start()
    try:
        yield allowed
    except Exception as error:
        if allowed.over:
            raise late from error
        raise
    else:
        # A body whose length was not told looks whole when its connection is ended.
        if allowed.over:
            raise late
    finally:
        timer.cancel()
        _allowed.reset(token)


def bound_batches() -> None:
    """Let litellm's files and batches go through a client of ours, which heeds `allow`."""
    import_litellm()
    from litellm.batches.main import openai_batches_instance  # noqa: PLC0415
    from litellm.files.main import openai_files_instance  # noqa: PLC0415

    for api in (openai_batches_instance, openai_files_instance):
        connect = api.get_openai_client
        if not hasattr(connect, "bounded"):
            api.get_openai_client = _bounded(connect)


def _bounded(connect: Callable[..., Any]) -> Callable[..., Any]:
    def connect_bounded(*args: Any, **kwargs: Any) -> Any:
        return connect(*args, **kwargs).with_options(http_client=_open_client())

    connect_bounded.bounded = True  # type: ignore[attr-defined]
    return connect_bounded


@cache
def _open_client() -> Any:
    import httpx  # noqa: PLC0415  (litellm's own)
    from litellm.llms.custom_httpx.http_handler import get_ssl_configuration  # noqa: PLC0415

    class Bounded(httpx.SyncByteStream):
        def __init__(self, stream: Any, most_bytes: int, encoding: str) -> None:
            self._stream, self._check = stream, _meter(most_bytes, encoding)

        def __iter__(self) -> Iterator[bytes]:
            for piece in self._stream:
                self._check(piece)
                yield piece

        def close(self) -> None:
            self._stream.close()

    def watch(request: Any) -> None:
        request.headers["accept-encoding"] = "identity"
        allowed = _allowed.get()
        if allowed is not None:
            request.extensions["trace"] = allowed.note

    def bound(response: Any) -> None:
        if 300 <= response.status_code < 400:
            raise redirected(response.headers.get("location", ""))
        allowed = _allowed.get()
        if allowed is not None and allowed.most_bytes is not None:
            encoding = response.headers.get("content-encoding", "identity")
            response.stream = Bounded(response.stream, allowed.most_bytes, encoding)

    return httpx.Client(
        follow_redirects=False,
        # The certificates that live calls trust.
        verify=get_ssl_configuration(),
        # The provider's answers are minutes apart.
        limits=httpx.Limits(max_keepalive_connections=0),
        event_hooks={"request": [watch], "response": [bound]},
    )


def bound_replies(most_bytes: int) -> None:
    """Let every connection that litellm opens for calls cut a longer reply off, as if it had been dropped."""
    import httpx  # noqa: PLC0415  (litellm's own)

    import_litellm()
    from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler  # noqa: PLC0415

    connect = AsyncHTTPHandler.create_async_transport
    if hasattr(connect, "most_bytes"):
        return

    class Bounded(httpx.AsyncByteStream):
        def __init__(self, stream: Any, encoding: str) -> None:
            self._stream, self._check = stream, _meter(most_bytes, encoding)

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for piece in self._stream:
                self._check(piece)
                yield piece

        async def aclose(self) -> None:
            await self._stream.aclose()

    def connect_bounded(*args: Any, **kwargs: Any) -> Any:
        transport = connect(*args, **kwargs)
        send = transport.handle_async_request

        async def send_bounded(request: Any) -> Any:
            request.headers["accept-encoding"] = "identity"
            response = await send(request)
            if 300 <= response.status_code < 400:
                await response.aclose()
                raise redirected(response.headers.get("location", ""))
            response.stream = Bounded(response.stream, response.headers.get("content-encoding", "identity"))
            return response

        transport.handle_async_request = send_bounded
        return transport

    connect_bounded.most_bytes = most_bytes  # type: ignore[attr-defined]
    AsyncHTTPHandler.create_async_transport = staticmethod(connect_bounded)


def _meter(most_bytes: int, encoding: str) -> Callable[[bytes], None]:
    """Return what is given each piece of a reply, and raises where it is longer than `most_bytes`, packed or not."""
    import httpx  # noqa: PLC0415  (litellm's own)

    encoding = encoding.strip().lower() or "identity"
    if encoding not in ("identity", "gzip"):
        raise httpx.ReadError(f"the reply is packed as {encoding}, which was not asked for")
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16) if encoding == "gzip" else None
    size = 0

    def check(piece: bytes) -> None:
        nonlocal size
        try:
            unpacked = unpacker.decompress(piece, most_bytes + 1) if unpacker else piece
        except zlib.error as error:
            raise httpx.ReadError(f"the reply is not packed as it says: {error}") from error
        # What comes after the end of the packed part is none of it, and counts all the same.
        size += max(len(piece), len(unpacked))
        if size > most_bytes:
            raise httpx.ReadError(f"the reply is longer than {most_bytes:,} bytes")

    return check
