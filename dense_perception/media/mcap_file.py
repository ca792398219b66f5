"""MCAP files, whole or cut: what the chunks hold is believed, not what the index says.

An MCAP file is a list of records (opcode, length, content); everything needed to read on lies
before the messages. The index at the end is often missing, incomplete or wrong, so the file is
walked from chunk to chunk instead, and the index only helps beyond a damaged place. A chunk that
was cut is read as far as its compression allows. The format: https://mcap.dev/spec.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from os import SEEK_CUR
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

from dense_perception.core.errors import InputError
from dense_perception.media.stored import (
    MAX_UNPACKED_BYTES,
    Note,
    Piece,
    StoredMessage,
    StoredTopic,
    by_time,
    decompress_prefix,
    from_time,
    ros2_type,
    time_span,
    unpacked_limit,
)

MAGIC = b"\x89MCAP0\r\n"
_FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK = 0x02, 0x03, 0x04, 0x05, 0x06
_CHUNK_INDEX, _STATISTICS = 0x08, 0x0B
_RECORD_HEAD = struct.Struct("<BQ")  # opcode, length
_MESSAGE_HEAD = struct.Struct("<HIQ")  # channel, number, time of recording
_MAX_CHUNK_HEAD_BYTES = 256  # times, sizes and the name of the compression
_LARGE_CHUNK_BYTES = 16 << 20
_MAX_RECORD_BYTES = 16 << 20  # schemas, channels and statistics


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A chunk's head: ``packed_size`` bytes that are there, of ``size`` bytes of records."""

    compression: str
    packed_size: int
    size: int
    checksum: int


class McapFile:
    """One MCAP file; what is damaged goes to ``note`` and the rest is read.

    :raises InputError: if it is no MCAP file.
    """

    def __init__(self, path: Path, note: Note) -> None:
        self.path = path
        self._note = note
        self._schemas: dict[int, tuple[str, str, str]] = {}
        self._channels: dict[int, StoredTopic] = {}
        self._pieces: list[Piece] = []
        self._statistics: dict[int, int] | None = None
        self._stream: BinaryIO = open(path, "rb")  # noqa: SIM115 (closed by close)
        self._size = path.stat().st_size
        start = self._stream.read(8)
        if start != MAGIC:
            self._stream.close()
            raise InputError(
                f"{path.name} starts with {start.hex(' ') or 'nothing'}, expected an MCAP file, "
                f"{MAGIC.hex(' ')}: copy the recording again, or give another file"
            )
        self._is_whole = self._walk()
        if not self._is_whole:
            self._note_damage()
            self._add_indexed_chunks()

    def close(self) -> None:
        self._stream.close()

    def topics(self) -> Iterator[tuple[StoredTopic, int]]:
        """Every topic with its number of messages, counted where the file's sums are missing."""
        counts: Counter[StoredTopic] = Counter()
        if self._is_whole and self._statistics and self._channels:
            for key, topic in self._channels.items():
                counts[topic] += self._statistics.get(key, 0)
        else:
            for topic, _, _ in self.messages(None):
                counts[topic] += 1
            for topic in self._channels.values():
                counts[topic] += 0
        yield from counts.items()

    def messages(
        self, names: Collection[str] | None, start_ns: int | None = None
    ) -> Iterator[StoredMessage]:
        """By time, as :func:`~dense_perception.media.stored.by_time` merges them."""
        pieces = from_time(self._pieces, start_ns)
        yield from by_time(pieces, lambda piece: self._read(piece, names))

    def time_span(self) -> tuple[int, int] | None:
        return time_span(self._pieces)

    def _walk(self) -> bool:
        """Note where every chunk is; whether the file ends as it should."""
        position = len(MAGIC)
        while True:
            self._stream.seek(position)
            head = self._stream.read(9)
            if len(head) < 9 or head[0] == 0:
                return False
            opcode, length = head[0], int.from_bytes(head[1:], "little")
            position += 9
            if opcode == _FOOTER:
                return True
            left = min(length, self._size - position)
            if opcode in (_CHUNK, _MESSAGE):
                start = self._stream.read(16)
                if opcode == _CHUNK and len(start) == 16:
                    first_ns, last_ns = struct.unpack("<2Q", start)
                    self._pieces.append(Piece(first_ns, position, left, True, last_ns))
                elif opcode == _MESSAGE and length == left and len(start) >= 14:
                    first_ns = int.from_bytes(start[6:14], "little")
                    self._pieces.append(Piece(first_ns, position, length, False, first_ns))
            elif opcode in (_SCHEMA, _CHANNEL, _STATISTICS) and left <= _MAX_RECORD_BYTES:
                self._define(opcode, memoryview(self._stream.read(left)))
            if left < length:
                return False
            position += length

    def _add_indexed_chunks(self) -> None:
        """Chunks beyond a damaged place, where the index at the end is still there."""
        if self._size < 45:
            return
        self._stream.seek(self._size - 37)
        footer = self._stream.read(37)
        summary = int.from_bytes(footer[9:17], "little")
        if footer[0] != _FOOTER or footer[29:] != MAGIC or not 0 < summary < self._size:
            return
        known = {piece.offset for piece in self._pieces}
        position = summary
        while position + 9 <= self._size:
            self._stream.seek(position)
            head = self._stream.read(9)
            length = int.from_bytes(head[1:], "little")
            position += 9 + length
            if head[0] in (_FOOTER, 0) or length > _MAX_RECORD_BYTES:
                return
            content = self._stream.read(length)
            if head[0] == _CHUNK_INDEX and len(content) >= 32:
                first_ns, last_ns, start, size = struct.unpack_from("<4Q", content)
                if start + 9 not in known and start + size <= self._size and size > 9:
                    self._pieces.append(Piece(first_ns, start + 9, size - 9, True, last_ns))
            elif head[0] in (_SCHEMA, _CHANNEL):
                self._define(head[0], memoryview(content))

    def _read(self, piece: Piece, names: Collection[str] | None) -> list[StoredMessage]:
        self._stream.seek(piece.offset)
        found: list[StoredMessage] = []
        if not piece.is_chunk:
            if 22 <= piece.length <= MAX_UNPACKED_BYTES:
                record = self._stream.read(piece.length)
                key, _, time_ns = _MESSAGE_HEAD.unpack_from(record)
                topic = self._channels.get(key)
                if topic is not None and (names is None or topic.name in names):
                    found.append((topic, time_ns, record[22:]))
            return found
        if piece.length > MAX_UNPACKED_BYTES:
            self._note_damage()
            return found
        chunk = self._chunk(piece.length)
        if chunk is None:
            self._note_damage()
            return found
        if not chunk.compression and chunk.packed_size > _LARGE_CHUNK_BYTES:
            return self._read_large(chunk, names)
        records = self._unpack(chunk)
        size, position = len(records), 0
        record_head, message_head = _RECORD_HEAD.unpack_from, _MESSAGE_HEAD.unpack_from
        while position + 9 <= size:
            opcode, length = record_head(records, position)
            start, position = position + 9, position + 9 + length
            if position > size:
                break  # a cut last one is left out
            if opcode == _MESSAGE:
                if length < 22:
                    continue
                key, _, time_ns = message_head(records, start)
                topic = self._channels.get(key)
                if topic is not None and (names is None or topic.name in names):
                    found.append((topic, time_ns, records[start + 22 : position]))
            elif opcode in (_SCHEMA, _CHANNEL):
                self._define(opcode, memoryview(records)[start:position])
        if position != size:
            self._note_damage()
        return found

    def _read_large(self, chunk: _Chunk, names: Collection[str] | None) -> list[StoredMessage]:
        """An uncompressed chunk, record by record: none of it is in memory twice."""
        found: list[StoredMessage] = []
        left, checksum = chunk.packed_size, 0

        def take(size: int) -> bytes:
            nonlocal left, checksum
            content = self._stream.read(size)
            left, checksum = left - size, crc32(content, checksum)
            return content

        while left >= 9:
            opcode, length = _RECORD_HEAD.unpack(take(9))
            if length > left:
                break  # a cut last one is left out
            if opcode != _MESSAGE or length < 22:
                content = take(length)
                if opcode in (_SCHEMA, _CHANNEL):
                    self._define(opcode, memoryview(content))
                continue
            key, _, time_ns = _MESSAGE_HEAD.unpack_from(take(22))
            topic, data = self._channels.get(key), take(length - 22)
            if topic is not None and (names is None or topic.name in names):
                found.append((topic, time_ns, data))
        if left or chunk.packed_size != chunk.size or chunk.checksum not in (0, checksum):
            self._note_damage()
        return found

    def _define(self, opcode: int, content: memoryview) -> None:
        reader = _Fields(content)
        try:
            if opcode == _SCHEMA:
                key = reader.unsigned(2)
                self._schemas[key] = (reader.text(), reader.text(), reader.text())
            elif opcode == _CHANNEL:
                key, schema = reader.unsigned(2), reader.unsigned(2)
                name, encoding, definition = self._schemas.get(schema, ("", "", ""))
                topic, serialised = reader.text(), reader.text()
                qos = _entry(reader, "offered_qos_profiles")
                self._channels[key] = StoredTopic(
                    topic, ros2_type(name), serialised or "cdr", encoding, definition, qos
                )
            else:
                reader.skip(42)
                pairs = struct.iter_unpack("<HQ", reader.piece())
                self._statistics = dict(pairs)
        except (struct.error, UnicodeDecodeError, IndexError):
            return  # one damaged record does not spoil the next

    def _chunk(self, length: int) -> _Chunk | None:
        """The head of the chunk that starts here; its content is what the stream gives next."""
        head = self._stream.read(min(length, _MAX_CHUNK_HEAD_BYTES))
        reader = _Fields(memoryview(head))
        try:
            reader.skip(16)
            size, checksum = reader.unsigned(8), reader.unsigned(4)
            compression = reader.text()
            packed_size = reader.unsigned(8)
        except (struct.error, UnicodeDecodeError, IndexError):
            return None
        behind = len(reader.rest())
        self._stream.seek(-behind, SEEK_CUR)
        packed_size = min(packed_size, length - len(head) + behind)
        return _Chunk(compression, packed_size, size, checksum)

    def _unpack(self, chunk: _Chunk) -> bytes:
        """The records inside the chunk, as far as they can be decompressed."""
        compression, size = chunk.compression, chunk.size
        packed = self._stream.read(chunk.packed_size)
        limit = min(unpacked_limit(len(packed)), MAX_UNPACKED_BYTES)
        if compression and compression not in ("lz4", "zstd"):
            self._note(
                f"{self.path.name} is compressed with {compression!r}, expected lz4, zstd or "
                "nothing: convert it with `mcap compress`"
            )
            return b""
        if compression and size > limit:
            self._note(
                f"{self.path.name}: {len(packed)} compressed bytes claim to be {size}, which is "
                "more than any recording: the chunk was left out"
            )
            return b""
        records = decompress_prefix(packed, compression, size) if compression else packed
        if len(records) != size or (chunk.checksum and crc32(records) != chunk.checksum):
            self._note_damage()
        return records

    def _note_damage(self) -> None:
        self._note(
            f"{self.path.name} is cut off or damaged (it has {self._size} bytes); what could be "
            "found was read: copy the bag again if you have it whole"
        )


class _Fields:
    """Reads little-endian fields one after the other."""

    def __init__(self, content: memoryview) -> None:
        self._content = content
        self._position = 0

    def unsigned(self, size: int) -> int:
        return int.from_bytes(self._take(size), "little")

    def text(self) -> str:
        return bytes(self.piece()).decode()

    def piece(self) -> memoryview:
        return self._take(self.unsigned(4))

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


def _entry(reader: _Fields, wanted: str) -> str:
    """The value of one key of a map from text to text; empty where it is missing."""
    entries = _Fields(reader.piece())
    while len(entries.rest()) > 0:
        key, value = entries.text(), entries.text()
        if key == wanted:
            return value
    return ""
