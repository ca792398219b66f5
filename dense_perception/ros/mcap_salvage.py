"""Reads what is whole in an MCAP file whose end is missing (a full disk, a pulled plug).

Layout after https://mcap.dev/spec: after 8 bytes of magic, records of one byte opcode, eight bytes
length, content; chunks hold further records, compressed. A file that was not closed has no index,
so the records are walked from the start.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from dense_perception.core.errors import InputError

MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 0x03, 0x04, 0x05, 0x06, 0x0F
_MAX_RECORD_BYTES = 1 << 32


@dataclass(frozen=True, slots=True)
class SalvagedMessage:
    """One message: topic, type as ``package/msg/Name``, log time in nanoseconds, CDR bytes."""

    topic: str
    msgtype: str
    time_ns: int
    data: bytes


def salvage_mcap(path: Path) -> Iterator[SalvagedMessage]:
    """The messages of every whole record of the file, in file order.

    :raises InputError: at the place where the file stops making sense, after all before it was
        given; not at all if the file turns out to be whole.
    """
    with open(path, "rb") as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            raise InputError(f"{path} does not start like an MCAP file: copy it again")
        walker = _Walker(path)
        try:
            for opcode, content in _records(stream, path):
                if opcode == _DATA_END:
                    return
                yield from walker.messages(opcode, content)
        except (struct.error, UnicodeDecodeError, KeyError, IndexError) as error:
            raise InputError(f"{path} is damaged: {error!r}") from error


def _records(stream: BinaryIO, path: Path) -> Iterator[tuple[int, bytes]]:
    size = path.stat().st_size
    while head := stream.read(9):
        position = stream.tell()
        if len(head) < 9:
            raise InputError(f"{path} is cut off after {size} bytes")
        opcode, length = struct.unpack("<BQ", head)
        if length > min(_MAX_RECORD_BYTES, size - position):
            raise InputError(f"{path} is cut off after {size} bytes, inside a record")
        yield opcode, stream.read(length)
    raise InputError(f"{path} is cut off after {size} bytes, between two records")


class _Walker:
    """Keeps the schemas and channels met so far."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._schemas: dict[int, str] = {0: ""}
        self._channels: dict[int, tuple[str, str]] = {}

    def messages(self, opcode: int, content: bytes) -> Iterator[SalvagedMessage]:
        if opcode == _SCHEMA:
            (key,) = struct.unpack_from("<H", content)
            self._schemas[key] = _text(content, 2)[0]
        elif opcode == _CHANNEL:
            key, schema = struct.unpack_from("<HH", content)
            self._channels[key] = (_text(content, 4)[0], self._schemas[schema])
        elif opcode == _MESSAGE:
            channel, _, time_ns, _ = struct.unpack_from("<HIQQ", content)
            topic, msgtype = self._channels[channel]
            yield SalvagedMessage(topic, msgtype, time_ns, content[22:])
        elif opcode == _CHUNK:
            yield from self._chunk(content)

    def _chunk(self, content: bytes) -> Iterator[SalvagedMessage]:
        (size,) = struct.unpack_from("<Q", content, 16)
        compression, position = _text(content, 28)
        (length,) = struct.unpack_from("<Q", content, position)
        packed = content[position + 8 : position + 8 + length]
        try:
            records = _unpack(packed, compression, size)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{self._path} has a damaged {compression} chunk: {error}") from error
        position = 0
        while position + 9 <= len(records):
            opcode, length = struct.unpack_from("<BQ", records, position)
            position += 9
            yield from self.messages(opcode, records[position : position + length])
            position += length


def _unpack(packed: bytes, compression: str, size: int) -> bytes:
    if compression == "":
        return packed
    if size > _MAX_RECORD_BYTES:
        raise InputError(f"a chunk claims {size} bytes, expected at most {_MAX_RECORD_BYTES}")
    if compression == "lz4":
        import lz4.frame

        return bytes(lz4.frame.decompress(packed))
    if compression == "zstd":
        return bytes(_zstd().decompress(packed))
    raise InputError(f"a chunk is compressed with {compression!r}, expected zstd, lz4 or nothing")


def _zstd() -> Any:
    """The standard library's from Python 3.14 on, before it the back-port rosbags brings."""
    try:
        from compression import zstd
    except ImportError:
        try:
            from backports import zstd
        except ImportError:
            import zstandard as zstd
    return zstd


def _text(content: bytes, position: int) -> tuple[str, int]:
    """A length-prefixed text at ``position``, and where it ends."""
    (length,) = struct.unpack_from("<I", content, position)
    start = position + 4
    return content[start : start + length].decode(), start + length
