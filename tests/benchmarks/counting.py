"""A TCP relay that counts what passes: python -m tests.benchmarks.counting PORT TARGET_PORT.

GET /_taken answers with the bytes that came back and the requests that went, by
method, since the last GET /_taken. A LIST is a GET with list-type in its line.
"""

import asyncio
import json
import re
import sys
from collections import Counter

# Bodies are sent in pieces of their own, so a request line stands at a piece's start.
_REQUEST = re.compile(rb"(GET|PUT|HEAD|POST|DELETE) (\S+) HTTP/1\.[01]\r\n")


async def serve(port: int, target: int) -> None:
    """Relay until the process ends."""
    taken: Counter[str] = Counter()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", target, limit=1 << 20)

        async def back() -> None:
            while piece := await there_reader.read(1 << 20):
                taken["bytes"] += len(piece)
                writer.write(piece)
                await writer.drain()
            writer.close()

        task = asyncio.create_task(back())
        try:
            while piece := await reader.read(1 << 20):
                found = _REQUEST.match(piece)
                if found and found[2] == b"/_taken":
                    body = json.dumps(taken).encode()
                    taken.clear()
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                    continue
                if found:
                    taken["LIST" if b"list-type" in found[2] else found[1].decode()] += 1
                there_writer.write(piece)
                await there_writer.drain()
        except ConnectionError:
            pass
        finally:
            there_writer.close()
            task.cancel()

    server = await asyncio.start_server(relay, "127.0.0.1", port, limit=1 << 20)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2])))
