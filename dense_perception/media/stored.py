"""What the storage formats of bags share: topics as they are stored, and bounded decompression."""

from __future__ import annotations

import heapq
import sys
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
MAX_UNPACKED_BYTES = 1 << 30
_MAX_HELD_BYTES = 256 << 20
_FREE_BYTES = 64 << 20
_MAX_RATIO = 200
_NO_END = 2**63

Note: TypeAlias = Callable[[str], None]
"""Takes one line about something that was lost."""


@dataclass(frozen=True, slots=True)
class StoredTopic:
    """A topic as one file knows it.

    ``encoding`` says how its messages are serialised (``cdr``, ``ros1``, ``json``...);
    ``definition`` is the message definition's text, perhaps empty; ``qos`` the text (or list) of
    what the publishers offered.
    """

    name: str
    msgtype: str
    encoding: str = "cdr"
    definition_format: str = ""
    definition: str = ""
    qos: Any = ""


StoredMessage: TypeAlias = "tuple[StoredTopic, int, bytes]"
"""Topic, time of recording in nanoseconds, and the message as it was serialised."""


@dataclass(frozen=True, slots=True, order=True)
class Piece:
    """A chunk, or a message outside any chunk: its first time stamp, and where its record is.

    ``end_ns``: its last time stamp as far as the file says.
    """

    start_ns: int
    offset: int
    length: int
    is_chunk: bool
    end_ns: int = _NO_END


def from_time(pieces: Iterable[Piece], start_ns: int | None) -> Iterator[Piece]:
    """The pieces that may hold messages of ``start_ns`` or later; None is all."""
    return (piece for piece in pieces if start_ns is None or piece.end_ns >= start_ns)


def time_span(pieces: Iterable[Piece]) -> tuple[int, int] | None:
    """The first and the last time of what the pieces hold, as far as they say; None without any.

    An empty chunk says 0 of both its times.
    """
    spans = [
        (piece.start_ns, piece.end_ns if piece.start_ns <= piece.end_ns < _NO_END else 0)
        for piece in pieces
        if piece.end_ns > 0
    ]
    return (min(start for start, _ in spans), max(map(max, spans))) if spans else None


def by_time(
    pieces: Iterable[Piece], read: Callable[[Piece], list[StoredMessage]]
) -> Iterator[StoredMessage]:
    """The messages of all pieces; pieces that overlap are merged as far as they fit in 256 MiB."""
    pending = sorted(pieces, reverse=True)
    waiting: list[tuple[int, int, StoredTopic, bytes]] = []
    order = held = 0
    while pending or waiting:
        while pending and (
            not waiting or (pending[-1].start_ns <= waiting[0][0] and held < _MAX_HELD_BYTES)
        ):
            found = read(pending.pop())
            if not waiting:
                # As a rule a chunk is in order and ends before the next one starts.
                found.sort(key=_time)
                ready = len(found)
                if pending:
                    ready = bisect_left(found, pending[-1].start_ns, key=_time)
                yield from found[:ready]
                found = found[ready:]
            for topic, time_ns, data in found:
                heapq.heappush(waiting, (time_ns, order, topic, data))
                order += 1
                held += len(data)
        if waiting:
            time_ns, _, topic, data = heapq.heappop(waiting)
            held -= len(data)
            yield topic, time_ns, data


def _time(message: StoredMessage) -> int:
    return message[1]


class StorageFile(Protocol):
    """One file of a bag."""

    def topics(self) -> Iterator[tuple[StoredTopic, int]]:
        """Every topic with its number of messages."""
        ...

    def messages(
        self, names: Collection[str] | None, start_ns: int | None = None
    ) -> Iterator[StoredMessage]:
        """The messages of all or of the named topics; what is damaged is noted and left out.

        :param start_ns: leave out what was recorded earlier, at the cost of what is read alone.
        """
        ...

    def time_span(self) -> tuple[int, int] | None:
        """The first and about the last time of recording in nanoseconds; None without any."""
        ...

    def close(self) -> None: ...


def ros2_type(name: str) -> str:
    """``sensor_msgs/Image``, as ROS 1 has it, with ROS 2's ``msg`` in the middle."""
    package, slash, kind = name.partition("/")
    return f"{package}/msg/{kind}" if slash and "/" not in kind else name


def unpacked_limit(packed_bytes: int) -> int:
    """How much so many compressed bytes may stand for.

    Images shrink to a hundredth at best; a few kilobytes made to do harm grow to gigabytes.
    """
    return _FREE_BYTES + _MAX_RATIO * packed_bytes


def decompress_prefix(packed: bytes, compression: str, limit: int) -> bytes:
    """At most ``limit`` bytes from the start of damaged or cut lz4, zstd or bz2 data."""
    if compression not in ("lz4", "zstd", "bz2"):
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
    if compression == "bz2":
        from bz2 import BZ2Decompressor

        return BZ2Decompressor()
    return zstd_module().ZstdDecompressor()


def zstd_module() -> Any:
    """The standard library's zstd where it has one, else its backport (rosbags brings it)."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd
