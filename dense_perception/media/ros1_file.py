"""ROS 1 recordings (``.bag``), whole or cut: what the chunks hold is believed, not the index.

The file is a list of records, each a header of named fields and its data; it is walked from chunk
to chunk. The format: http://wiki.ros.org/Bags/Format/2.0.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

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

MAGIC = b"#ROSBAG V2.0\n"
_MESSAGE, _BAG, _INDEX, _CHUNK, _CONNECTION = 0x02, 0x03, 0x04, 0x05, 0x07
_MAX_HEADER_BYTES = 1 << 20
_MAX_DEFINITION_BYTES = 16 << 20
_SECONDS, _NANOSECONDS = 1_000_000_000, 1
_COMPRESSIONS = {b"none": "", b"bz2": "bz2", b"lz4": "lz4"}


class Ros1File:
    """One ``.bag`` file; what is damaged goes to ``note`` and the rest is read.

    :raises InputError: if it is no bag of ROS 1, or of the format before 2.0.
    """

    def __init__(self, path: Path, note: Note) -> None:
        self.path = path
        self._note = note
        self._topics: dict[int, StoredTopic] = {}
        self._counts: Counter[int] = Counter()
        self._pieces: list[Piece] = []
        self._size = path.stat().st_size
        self._stream: BinaryIO = open(path, "rb")  # noqa: SIM115 (closed by close)
        start = self._stream.read(len(MAGIC))
        if start != MAGIC:
            self._stream.close()
            raise InputError(
                f"{path.name} starts with {start[:12]!r}, expected a ROS 1 bag of format 2.0: copy "
                "the recording again, or run `rosbag fix` on an older one"
            )
        self._is_indexed = True
        self._walk()
        if not self._is_indexed:
            self._index_again()

    def close(self) -> None:
        self._stream.close()

    def topics(self) -> Iterator[tuple[StoredTopic, int]]:
        """Every topic with its number of messages, counted where the index is missing."""
        sums: dict[str, tuple[StoredTopic, int]] = {}
        for key, topic in self._topics.items():  # one topic has a connection for each publisher
            first, count = sums.get(topic.name, (topic, 0))
            sums[topic.name] = (first, count + self._counts[key])
        yield from sums.values()

    def messages(
        self, names: Collection[str] | None, start_ns: int | None = None
    ) -> Iterator[StoredMessage]:
        """By time, as :func:`~dense_perception.media.stored.by_time` merges them."""
        pieces = from_time(self._pieces, start_ns)
        yield from by_time(pieces, lambda piece: self._read(piece, names))

    def time_span(self) -> tuple[int, int] | None:
        return time_span(self._pieces)

    def _walk(self) -> None:
        """Note where every chunk is, when it starts, and what its index says."""
        position = len(MAGIC)
        chunk: Piece | None = None
        span: list[int] = []
        while position < self._size:
            self._stream.seek(position)
            fields, data_size = self._head()
            if fields is None:
                self._note_damage()
                break
            data_start = self._stream.tell()
            position = data_start + data_size
            kind = _code(fields)
            if kind != _INDEX:
                self._keep(chunk, span)
                chunk, span = None, []
            if kind == _BAG:
                index = int.from_bytes(fields.get(b"index_pos", b""), "little")
                if not 0 < index <= self._size:  # cut off, or its recorder died
                    self._note_damage()
            elif kind == _CHUNK:
                left = min(position, self._size) - data_start
                chunk = Piece(0, data_start - 8 - self._header_size, left, True)
            elif kind == _INDEX and data_size <= self._size - data_start:
                key = int.from_bytes(fields.get(b"conn", b""), "little")
                entries = np.frombuffer(self._stream.read(data_size - data_size % 12), "<u4")
                times = entries.reshape(-1, 3)[:, :2].astype(np.int64) @ (_SECONDS, _NANOSECONDS)
                self._counts[key] += len(times)
                span += [int(times.min()), int(times.max())] if len(times) else []
            elif kind == _CONNECTION and data_size <= _MAX_DEFINITION_BYTES:
                self._define(fields, self._stream.read(data_size))
            if position > self._size:
                self._note_damage()
        self._keep(chunk, span)

    def _keep(self, chunk: Piece | None, span: list[int]) -> None:
        if chunk is not None:
            self._is_indexed = self._is_indexed and bool(span)
            start_ns, end_ns = min(span, default=0), max(span, default=0)
            self._pieces.append(Piece(start_ns, chunk.offset, chunk.length, True, end_ns))

    def _index_again(self) -> None:
        """Read every chunk in the order of recording: the first ones define the topics."""
        counts: Counter[int] = Counter()
        for index, piece in enumerate(self._pieces):
            found = self._read(piece, None)
            counts.update(id(topic) for topic, _, _ in found)
            times = [time_ns for _, time_ns, _ in found] or [0]
            self._pieces[index] = Piece(min(times), piece.offset, piece.length, True, max(times))
        self._counts = Counter({key: counts[id(topic)] for key, topic in self._topics.items()})

    def _head(self) -> tuple[dict[bytes, bytes] | None, int]:
        """The fields of the record at the current place, and the size of its data."""
        size = int.from_bytes(self._stream.read(4), "little")
        self._header_size = size
        if size > min(_MAX_HEADER_BYTES, self._size):
            return None, 0
        header = self._stream.read(size)
        data_size = self._stream.read(4)
        fields = _fields(header)
        if fields is None or len(data_size) < 4 or b"op" not in fields:
            return None, 0
        return fields, int.from_bytes(data_size, "little")

    def _read(self, piece: Piece, names: Collection[str] | None) -> list[StoredMessage]:
        self._stream.seek(piece.offset)
        fields, _ = self._head()
        found: list[StoredMessage] = []
        if fields is None or piece.length > MAX_UNPACKED_BYTES:
            self._note_damage()
            return found
        records = self._unpack(fields, self._stream.read(piece.length))
        position = 0
        while position + 8 <= len(records):
            header_size = int.from_bytes(records[position : position + 4], "little")
            data_start = position + 8 + header_size
            header = _fields(records[position + 4 : position + 4 + header_size])
            size = int.from_bytes(records[data_start - 4 : data_start], "little")
            if header is None or data_start + size > len(records):
                break  # a cut last one is left out
            position = data_start + size
            kind = _code(header)
            if kind == _MESSAGE:
                topic = self._topics.get(int.from_bytes(header.get(b"conn", b""), "little"))
                time = header.get(b"time", b"")
                if topic is not None and len(time) == 8 and (names is None or topic.name in names):
                    seconds, nanoseconds = struct.unpack("<II", time)
                    time_ns = seconds * _SECONDS + nanoseconds
                    found.append((topic, time_ns, records[data_start:position]))
            elif kind == _CONNECTION:
                self._define(header, records[data_start:position])
        if position != len(records):
            self._note_damage()
        return found

    def _unpack(self, fields: dict[bytes, bytes], packed: bytes) -> bytes:
        compression = _COMPRESSIONS.get(fields.get(b"compression", b""))
        size = int.from_bytes(fields.get(b"size", b""), "little")
        if compression is None:
            self._note(
                f"{self.path.name} is compressed with {fields.get(b'compression', b'')!r}, "
                "expected none, bz2 or lz4: run `rosbag decompress` on it"
            )
            return b""
        if compression and size > min(unpacked_limit(len(packed)), MAX_UNPACKED_BYTES):
            self._note(
                f"{self.path.name}: {len(packed)} compressed bytes claim to be {size}, which is "
                "more than any recording: the chunk was left out"
            )
            return b""
        records = decompress_prefix(packed, compression, size) if compression else packed
        if len(records) != size:
            self._note_damage()
        return records

    def _define(self, fields: dict[bytes, bytes], data: bytes) -> None:
        """A topic, from a connection's record."""
        key = int.from_bytes(fields.get(b"conn", b""), "little")
        described = _fields(data)
        if key in self._topics or described is None:
            return
        name, kind, definition = (
            text.decode("utf-8", "replace")
            for text in (
                fields.get(b"topic", b""),
                described.get(b"type", b""),
                described.get(b"message_definition", b""),
            )
        )
        self._topics[key] = StoredTopic(name, ros2_type(kind), "ros1", "ros1msg", definition)

    def _note_damage(self) -> None:
        self._note(
            f"{self.path.name} is cut off or damaged (it has {self._size} bytes); what could be "
            "found was read: copy the bag again, or run `rosbag reindex` on it"
        )


def _fields(header: bytes) -> dict[bytes, bytes] | None:
    """Names and values of a header; ``None`` where it is damaged."""
    found: dict[bytes, bytes] = {}
    position = 0
    while position + 4 <= len(header):
        end = position + 4 + int.from_bytes(header[position : position + 4], "little")
        name, equals, value = header[position + 4 : end].partition(b"=")
        if end > len(header) or not equals:
            return None
        found[name] = value
        position = end
    return found if position == len(header) else None


def _code(fields: dict[bytes, bytes]) -> int:
    return int.from_bytes(fields.get(b"op", b"")[:1], "little")
