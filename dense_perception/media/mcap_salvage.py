"""Read what is left of an MCAP file that has lost its end, as a crashed recording leaves it.

An MCAP file is a list of records (opcode, length, content); everything needed to read on lies
before the messages, and the index that is missing here is only at the end. A chunk that was cut is
read as far as its compression allows. The format: https://mcap.dev/spec.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dense_perception.core.errors import InputError

MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK = 0x03, 0x04, 0x05, 0x06
_ENDINGS = (0x02, 0x0F)  # footer, end of data: what follows is the index
_MAX_CHUNK_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class McapChannel:
    """One topic of the file; ``definition`` is the message definition's text, perhaps empty."""

    topic: str
    msgtype: str
    definition_format: str
    definition: str


def scan_mcap(path: Path) -> Iterator[tuple[McapChannel, int, bytes]]:
    """Channel, log time in nanoseconds and CDR bytes of every whole message, in file order.

    :raises InputError: once nothing further can be read, if the file did not end properly.
    """
    channels: dict[int, McapChannel] = {}
    schemas: dict[int, tuple[str, str, str]] = {}
    with open(path, "rb") as stream:
        start = stream.read(8)
        if start != MAGIC:
            raise InputError(
                f"{path.name} starts with {start.hex(' ') or 'nothing'}, expected an MCAP file, "
                f"{MAGIC.hex(' ')}: copy the recording again, or give another file"
            )
        while True:
            head = stream.read(9)
            if len(head) < 9:
                raise _cut(path)
            opcode, length = head[0], int.from_bytes(head[1:], "little")
            if opcode in _ENDINGS:
                return
            if opcode == 0 or length > _MAX_CHUNK_BYTES:
                raise _cut(path)
            content = stream.read(length)
            if opcode == _CHUNK:
                records = _chunk_records(content)
            elif len(content) == length:
                records = head + content
            else:
                records = b""
            yield from _messages(records, schemas, channels)
            if len(content) < length:
                raise _cut(path)


def _messages(
    records: bytes, schemas: dict[int, tuple[str, str, str]], channels: dict[int, McapChannel]
) -> Iterator[tuple[McapChannel, int, bytes]]:
    """The whole records in ``records``; a cut last one is left out."""
    position = 0
    while position + 9 <= len(records):
        opcode = records[position]
        length = int.from_bytes(records[position + 1 : position + 9], "little")
        start, position = position + 9, position + 9 + length
        if position > len(records):
            return
        content = memoryview(records)[start:position]
        try:
            if opcode == _SCHEMA:
                reader = _Fields(content)
                key = reader.unsigned(2)
                schemas[key] = (reader.text(), reader.text(), reader.text())
            elif opcode == _CHANNEL:
                reader = _Fields(content)
                key, schema = reader.unsigned(2), reader.unsigned(2)
                name, encoding, definition = schemas.get(schema, ("", "", ""))
                channels[key] = McapChannel(reader.text(), name, encoding, definition)
            elif opcode == _MESSAGE:
                key, _, log_time = struct.unpack_from("<HIQ", content)
                if key in channels:
                    yield channels[key], log_time, bytes(content[22:])
        except (struct.error, UnicodeDecodeError, IndexError):
            continue  # one damaged record does not spoil the next


def _chunk_records(content: bytes) -> bytes:
    """The records inside a chunk, as far as they can be decompressed."""
    reader = _Fields(memoryview(content))
    try:
        reader.skip(16)
        size = reader.unsigned(8)
        reader.skip(4)
        compression = reader.text()
        reader.skip(8)
    except (struct.error, UnicodeDecodeError, IndexError):
        return b""
    if size > _MAX_CHUNK_BYTES:
        return b""
    packed = bytes(reader.rest())
    if compression == "":
        return packed
    return decompress_prefix(packed, compression, size)


def decompress_prefix(packed: bytes, compression: str, limit: int) -> bytes:
    """At most ``limit`` bytes from the start of damaged or cut lz4 or zstd data."""
    if compression not in ("lz4", "zstd"):
        return b""
    unpacker = _unpacker(compression)
    pieces: list[bytes] = []
    total, step = 0, 1 << 16
    for start in range(0, len(packed), step):
        try:
            # A few bytes of zstd can stand for gigabytes.
            piece = unpacker.decompress(packed[start : start + step], limit - total)
        except Exception:  # each library has its own
            break
        pieces.append(piece)
        total += len(piece)
        if total >= limit or unpacker.eof:
            break
    return b"".join(pieces)[:limit]


def _unpacker(compression: str) -> Any:
    if compression == "lz4":
        from lz4.frame import LZ4FrameDecompressor

        return LZ4FrameDecompressor()
    return zstd_module().ZstdDecompressor()


def zstd_module() -> Any:
    """The standard library's zstd where it has one, else its backport (rosbags brings it)."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


class _Fields:
    """Reads little-endian fields one after the other."""

    def __init__(self, content: memoryview) -> None:
        self._content = content
        self._position = 0

    def unsigned(self, size: int) -> int:
        return int.from_bytes(self._take(size), "little")

    def text(self) -> str:
        return bytes(self._take(self.unsigned(4))).decode()

    def skip(self, size: int) -> None:
        self._take(size)

    def rest(self) -> memoryview:
        return self._content[self._position :]

    def _take(self, size: int) -> memoryview:
        end = self._position + size
        if end > len(self._content):
            raise IndexError
        piece = self._content[self._position : end]
        self._position = end
        return piece


def _cut(path: Path) -> InputError:
    return InputError(
        f"{path.name} is cut off or damaged after {path.stat().st_size} bytes; what came before "
        "was read: copy the bag again if you have it whole"
    )
