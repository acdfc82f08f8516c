"""A reader of a destination's tables, in a process of its own, that polls them all the time.

    python -m tests.reader FILE

Each line of standard input names the destination to read from now on. FILE gets a
line for each state of a table that differs from the one before: its destination,
table and digest, or the error that a reader would have met.
"""

import hashlib
import json
import sys
import threading
import time

from tasks.clients import table

TABLES = ("pairs", "rejected")
POLL_SECONDS = 0.05


def digest(uri: str) -> str:
    """Return the number of rows of a table and a hash of its request keys, in whatever order."""
    rows = table.scan(table.open_table(uri))
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
    last: dict[str, str] = {}
    with open(path, "w") as out:
        while not ended.is_set():
            time.sleep(POLL_SECONDS)
            now = destination
            for name in TABLES if now else ():
                try:
                    state = digest(f"{now}/{name}")
                except Exception as error:  # noqa: BLE001  (whatever a reader may meet)
                    state = f"error: {error!r}"
                if last.get(name) != f"{now} {state}":
                    last[name] = f"{now} {state}"
                    out.write(json.dumps([now, name, state]) + "\n")
                    out.flush()


if __name__ == "__main__":
    read(sys.argv[1])
