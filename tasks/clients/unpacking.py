"""The bytes of a source object, unpacked, in pieces of bounded size, whatever it holds."""

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from tasks.core.errors import SourceError

PIECE_BYTES = 2 << 20
# A line is a description with its columns, and is held whole in memory: what is longer is no list of them.
LINE_BYTES = 16 << 20
# Packed text of people is a tenth of it, of machines seldom a hundredth; what is made to fill a disk, far less.
UNPACKED_TIMES = 200
# What any object may unpack to.
UNPACKED_BYTES = 1 << 30
# Packed behind what is read: zstandard alone does not say that it has missed an end. Packed, it has other bytes.
_END = bytes(64)


def unpack(path: Path, uri: str) -> Iterator[bytes]:
    """Yield what the local copy of `uri` unpacks to, in blocks of PIECE_BYTES at most.

    Raises:
        SourceError: It is cut off or no such pack, or unpacks to far more than a list of descriptions would.
    """
    import zstandard  # noqa: PLC0415  (only needed where a source is packed)

    name = uri.lower()
    read = _read_gz if name.endswith(".gz") else _read_zst if name.endswith(".zst") else _read_file
    most = max(UNPACKED_BYTES, UNPACKED_TIMES * path.stat().st_size)
    size = 0
    try:
        for block in read(path):
            size += len(block)
            if size > most and read is not _read_file:
                raise SourceError(
                    f"{uri} unpacks to more than {UNPACKED_TIMES} times its size, which task descriptions do not. "
                    "Remove it, or upload it unpacked."
                )
            yield block
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise SourceError(f"{uri} cannot be unpacked: {error}. Upload it again.") from error


def split_lines(blocks: Iterator[bytes], uri: str) -> Iterator[tuple[int, bytes]]:
    """Yield pieces of whole lines, without a byte order mark, each with the number of its first line from 1.

    Raises:
        SourceError: A line is longer than LINE_BYTES; names it.
    """
    first, size = 1, 0
    held: list[bytes] = []
    for number, block in enumerate(blocks):
        text = block.removeprefix(b"\xef\xbb\xbf") if number == 0 else block
        end = text.find(b"\n")
        if size + (end if end >= 0 else len(text)) > LINE_BYTES:
            raise too_long("line", first, uri)
        cut = text.rfind(b"\n") + 1
        if cut:
            piece = b"".join([*held, text[:cut]])
            yield first, piece
            first += piece.count(b"\n")
            held, size = [], 0
        held.append(text[cut:])
        size += len(held[-1])
    if size:
        yield first, b"".join(held)


def measure_rows(blocks: Iterator[bytes], uri: str) -> float:
    """Return the mean length of a CSV's rows in bytes, each of which has an end.

    By its quotes, as polars counts them: of a row without an end it would hold all that follows.

    Raises:
        SourceError: A row is longer than LINE_BYTES; names the line that it begins in.
    """
    first, line, size, quoted = 1, 1, 0, False
    rows = read = 0
    for block in blocks:
        parts = block.split(b'"')
        size += len(block)
        read += len(block)
        line += block.count(b"\n")
        rows += sum(part.count(b"\n") for part in parts[quoted::2])
        last = next((at for at in range(len(parts))[::-1] if (at % 2 == 1) == quoted and b"\n" in parts[at]), None)
        if last is not None:
            first, size = line - sum(part.count(b"\n") for part in parts[last + 1 :]), 0
        elif size > LINE_BYTES:
            raise too_long("row", first, uri)
        quoted ^= len(parts) % 2 == 0
    return read / max(1, rows)


def too_long(what: str, line: int, uri: str) -> SourceError:
    """Return the error of a line, or a row that begins in it, that does not end within LINE_BYTES."""
    return SourceError(
        f"{uri}, line {line}: this {what} has no end within {LINE_BYTES >> 20} MiB, which no task description needs. "
        "Mend or remove it, and run again."
    )


def with_line_feeds(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the blocks with a line feed for each end of a line that is a carriage return, or both."""
    held = b""
    for block in blocks:
        text = held + block
        # A line feed may follow in the next one.
        held = b"\r" if text.endswith(b"\r") else b""
        yield text.removesuffix(held).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if held:
        yield b"\n"


def _read_file(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        yield from _blocks(stream.read)


def _read_gz(path: Path) -> Iterator[bytes]:
    with gzip.open(path) as stream:
        yield from _blocks(stream.read)


def _read_zst(path: Path) -> Iterator[bytes]:
    import zstandard  # noqa: PLC0415

    end = b""
    with path.open("rb") as file:
        ended = cast("BinaryIO", _Ended(file, zstandard.compress(_END)))
        stream = zstandard.ZstdDecompressor().stream_reader(ended, read_across_frames=True)
        for block in _blocks(stream.read):
            text = end + block
            end = text[-len(_END) :]
            if len(text) > len(_END):
                yield text[: -len(_END)]
    if end != _END:
        raise EOFError("its end is missing")


class _Ended:
    """A file with more bytes behind it."""

    def __init__(self, file: BinaryIO, more: bytes) -> None:
        self._file, self._rest = file, more

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            # Together with the last bytes: alone it would be read as a whole one behind a header that is cut off.
            data, self._rest = data + self._rest, b""
        return data


def _blocks(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while block := read(PIECE_BYTES):
        yield block
