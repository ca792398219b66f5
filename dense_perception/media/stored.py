"""What the storage formats of bags share: topics as they are stored, and bounded decompression."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
MAX_UNPACKED_BYTES = 1 << 30
_FREE_BYTES = 64 << 20
_MAX_RATIO = 200

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


class StorageFile(Protocol):
    """One file of a bag."""

    def topics(self) -> Iterator[tuple[StoredTopic, int]]:
        """Every topic with its number of messages."""
        ...

    def messages(self, names: Collection[str] | None) -> Iterator[StoredMessage]:
        """The messages of all or of the named topics; what is damaged is noted and left out."""
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
