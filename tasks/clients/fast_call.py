"""The fast lane: the request that litellm builds, carried by a session of our own."""

import urllib.request
from urllib.parse import urlsplit

import aiohttp
import orjson

from tasks.clients.concealment import one_line
from tasks.clients.faults import is_unreached, redirected
from tasks.clients.outcome import CallFault, Reply
from tasks.clients.plain_replies import REPLY_BYTES, PlainReplies
from tasks.clients.wire import Wire

CONNECT_SECONDS = 30.0


class FastCall:
    """Sends one prompt as one user turn, exactly once; its session belongs to the loop of the first call.

    Raises:
        LookupError: litellm reads a reply otherwise than we do.
    """

    def __init__(self, line: Wire, connect_seconds: float = CONNECT_SECONDS) -> None:
        self._wire, self._connect_seconds = line, connect_seconds
        self._headers = {**line.headers, "Accept": "application/json", "Accept-Encoding": "identity"}
        replies = PlainReplies(line)
        replies.check()
        self._read = replies.read
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, prompt: str) -> Reply:
        """Return the reply.

        Raises:
            CallFault: There is none.
        """
        body = b"%b%b%b" % (self._wire.before, orjson.dumps(prompt), self._wire.after)
        session = self._session or self._open_session()
        try:
            # With each call: a session's own headers, and so the key, are for a proxy, too.
            async with session.post(
                self._wire.url, data=body, headers=self._headers, allow_redirects=False
            ) as response:
                content = await _read_whole(response)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # What was never sent is not billed.
            unreached = is_unreached(error)
            said = f"{type(error).__name__}: {one_line(str(error), 300)}"
            raise CallFault("transient", said, billed=not unreached, unreached=unreached) from error
        headers = response.headers
        if 300 <= response.status < 400:
            raise redirected(headers.get("location", ""))
        if response.status >= 400:
            raise self._wire.fault(response.status, headers, content.decode(errors="replace"))
        return self._read(content, headers)

    async def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        self._session = aiohttp.ClientSession(
            # The limiter alone says how many calls are in flight.
            connector=aiohttp.TCPConnector(limit=0, ssl=self._wire.ssl),
            # The whole call's deadline is the client's.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=_find_proxy(self._wire.url),
        )
        return self._session


async def _read_whole(response: aiohttp.ClientResponse) -> bytes:
    """Return the body, at most REPLY_BYTES of it."""
    pieces, size = [], 0
    async for piece in response.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > REPLY_BYTES:
            response.close()
            raise ValueError(f"the reply is longer than {REPLY_BYTES:,} bytes")
    return b"".join(pieces)


def _find_proxy(url: str) -> str | None:
    """Return the proxy that the environment names for `url`, as litellm reads it.

    Asked once, since aiohttp would ask for each call.
    """
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    named = urllib.request.getproxies()
    proxy = named.get(parts.scheme) or named.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy
