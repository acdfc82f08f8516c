"""A lease: one object that only one run can hold at a time.

Its owner renews it while it works. Whoever waits takes it over when it has not
changed for a whole term by the waiter's own clock, so the clocks of two machines
are never compared.
"""

import json
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress

from tasks.clients import storage, storage_errors
from tasks.clients.documents import parse_document
from tasks.core.errors import StorageError

TERM_SECONDS = 30.0
PATIENCE_SECONDS = 24 * 3600.0
POLL_SECONDS = 0.5


class Lease:
    """A lease that this process took; see `hold_lease`."""

    def __init__(self, uri: str, owner: str, term: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.uri = uri
        self.term = term
        self._clock = clock
        self._owner = owner
        self._token, self._beats = uuid.uuid4().hex, 0
        self._etag = ""
        self._renewed = 0.0
        self._seen: tuple[str, float] | None = None
        self._ended = threading.Event()

    def check(self) -> None:
        """Check that no other run can have taken the lease over.

        Raises:
            TransientStorageError: One can; this process was stopped or cut off for longer than a term.
        """
        if self._clock() - self._renewed > self.term:
            raise storage_errors.TransientStorageError(
                f"{self.uri} was not renewed for {self.term:g} seconds, so another run may hold it. Run again."
            )

    def take(self) -> bool:
        """Take the lease where it is free or its owner is dead; False where it is held."""
        asked = self._clock()
        body = self._body()
        if not storage.create_bytes(self.uri, body):
            held = storage.find_bytes(self.uri)
            if held is None or not self._expired(held[1]):
                return False
            # Whatever it answers: of a write that was tried again the first reply may have been lost.
            storage.replace_bytes(self.uri, body, held[1])
        found = storage.find_bytes(self.uri)
        if found is None or found[0] != body:
            return False
        self._etag, self._renewed = found[1], asked
        return True

    def keep(self) -> None:
        """Renew the lease until `release`; a renewal that fails is tried again."""
        while not self._ended.wait(self.term / 4):
            asked = self._clock()
            body = self._body()
            with suppress(StorageError):
                storage.replace_bytes(self.uri, body, self._etag)
                found = storage.find_bytes(self.uri)
                if found is None or _read(found[0])["token"] != self._token:
                    self._renewed = float("-inf")
                    return
                self._etag = found[1]
                if found[0] == body:
                    self._renewed = asked

    def release(self, keeper: threading.Thread | None = None) -> None:
        """Let the next run have it; where the storage fails it expires."""
        self._ended.set()
        if keeper is not None:
            keeper.join(POLL_SECONDS)
        with suppress(StorageError):
            found = storage.find_bytes(self.uri)
            if found is not None and _read(found[0])["token"] == self._token:
                storage.delete_objects([self.uri])

    def _body(self) -> bytes:
        self._beats += 1
        return json.dumps({"owner": self._owner, "token": self._token, "beat": self._beats}).encode()

    def _expired(self, etag: str) -> bool:
        now = self._clock()
        if self._seen is None or self._seen[0] != etag:
            self._seen = etag, now
        return now - self._seen[1] > self.term


def find_renewed(uris: Collection[str], term: float | None = None) -> set[str]:
    """Return the leases that a living owner renews: waits for that, for `term` seconds (TERM_SECONDS) at most."""
    term = term or TERM_SECONDS
    waiting = {uri: found for uri in uris if (found := storage.find_bytes(uri))}
    renewed, began = set[str](), time.monotonic()
    while waiting and time.monotonic() - began <= term:
        time.sleep(min(POLL_SECONDS, term / 4))
        for uri, (body, etag) in list(waiting.items()):
            now = storage.find_bytes(uri)
            if now is None or _read(now[0])["token"] != _read(body)["token"]:
                del waiting[uri]
            elif now[1] != etag:
                renewed.add(uri)
                del waiting[uri]
    return renewed


def find_fresh(uris: Collection[str], term: float | None = None) -> set[str]:
    """Return the leases that were renewed within `term` seconds, by the storage's own clock: at once, but not for sure.

    Their owners may have died since. Where the storage does not tell its time it is waited as `find_renewed` does.
    """
    ages = {uri: age for uri in uris if (age := storage.seconds_since_written(uri)) is not None}
    unknown = {uri for uri, age in ages.items() if age == float("inf")}
    fresh = {uri for uri, age in ages.items() if age <= (term or TERM_SECONDS)}
    return fresh | find_renewed(unknown, term)


def find_owner(uri: str) -> str:
    """Return who holds the lease, empty text where nobody does."""
    held = storage.find_bytes(uri)
    return _read(held[0])["owner"] if held else ""


def _read(body: bytes) -> dict[str, str]:
    """Return a lease's owner and token; what is none of ours is held by nobody that could be named."""
    known = parse_document(body) or {}
    return {name: str(known.get(name, "")) for name in ("owner", "token")}


@contextmanager
def hold_lease(
    uri: str, owner: str, *, term: float | None = None, on_wait: Callable[[], None] | None = None
) -> Iterator[Lease]:
    """Hold the lease at `uri` inside the block, waiting while another owner has it.

    Args:
        uri: The lease's object.
        owner: Who holds it, for people who look.
        term: Seconds without a renewal after which its owner counts as dead, TERM_SECONDS unless given.
        on_wait: Called once, when it is not free at once.

    Raises:
        StorageError: Another owner kept it for a day.
    """
    lease = Lease(uri, owner, term or TERM_SECONDS)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not lease.take():
        if on_wait is not None:
            on_wait()
            on_wait = None
        if time.monotonic() > deadline:
            raise StorageError(f"Another run keeps {uri}. End it, and run again.")
        time.sleep(min(POLL_SECONDS, lease.term / 4))
    keeper = threading.Thread(target=lease.keep, name="lease", daemon=True)
    keeper.start()
    try:
        yield lease
    finally:
        lease.release(keeper)
