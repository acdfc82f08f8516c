"""A reader of a destination's tables, in a process of its own, that polls them all the time.

    python -m tests.reader FILE

Each line of standard input names the destination to read from now on. FILE gets a
line for each version of a table: its destination, table and digest, or the error
that a reader would have met.
"""

import hashlib
import json
import sys
import threading
import time

from tasks.clients import table

TABLES = ("pairs", "rejected")
POLL_SECONDS = 0.5


def digest(uri: str, version: int | None = None) -> str:
    """Return the number of rows of a table's version and a hash of its request keys, in whatever order."""
    rows = table.scan(table.open_table(uri, version))
    keys = [] if rows is None else sorted(rows.select("request_key").collect()["request_key"])
    return f"{len(keys)} {hashlib.blake2b(' '.join(keys).encode(), digest_size=8).hexdigest()}"


def read(path: str) -> None:
    """Poll until standard input ends."""
    destination = ""
    ended = threading.Event()

    def listen() -> None:
        nonlocal destination
        for line in sys.stdin:
            destination = line.strip()
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    known: dict[str, int] = {}
    with open(path, "w") as out:
        while not ended.is_set():
            time.sleep(POLL_SECONDS)
            now = destination
            for name in TABLES if now else ():
                uri = f"{now}/{name}"
                try:
                    held = table.open_table(uri)
                    # Also those that came and went between two polls: some other reader has met them.
                    new = range(known.get(uri, -1) + 1, held.version() + 1) if held else ()
                    states = [digest(uri, version) for version in new]
                    known[uri] = held.version() if held else -1
                except Exception as error:  # noqa: BLE001  (whatever a reader may meet)
                    states = [f"error: {error!r}"]
                for state in states:
                    out.write(json.dumps([now, name, state]) + "\n")
                    out.flush()


if __name__ == "__main__":
    read(sys.argv[1])
