"""The size that a TIFF picture claims, checked against the bytes that are there."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from dense_perception.core.errors import InputError

_TYPES = {1: "u1", 3: "u2", 4: "u4", 16: "u8"}
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION = 254, 256, 257, 258, 259
_SAMPLES, _TILE_WIDTH, _TILE_HEIGHT, _DNG = 277, 322, 323, 50706
_PLACES = ((273, 279), (324, 325))  # offsets and byte counts of strips, of tiles
_MAX_ENTRIES = 512
_MAX_SAMPLES = 16
_MAX_TILE_PIXELS = 1 << 24
_Entries: TypeAlias = "dict[int, np.ndarray]"


def tiff_size(raw: memoryview) -> tuple[int, int]:
    """Width and height of the first picture, which is the one that is read.

    :raises InputError: if it is cut off or damaged, or is the preview of a raw photograph.
    """
    entries = _entries(raw)
    width, height = _one(entries, _WIDTH, 0), _one(entries, _HEIGHT, 0)
    if _DNG in entries or _one(entries, _SUBFILE, 0) & 1:
        raise InputError(
            "the TIFF picture is a raw photograph (DNG, NEF, CR2), which is not read: convert it "
            "to PNG"
        )
    samples = _one(entries, _SAMPLES, 1)
    if samples > _MAX_SAMPLES:
        raise InputError(f"the TIFF picture has {samples} values a pixel, expected 1 to 4")
    if _one(entries, _TILE_WIDTH, 0) * _one(entries, _TILE_HEIGHT, 0) > _MAX_TILE_PIXELS:
        raise InputError("the TIFF picture has tiles beyond 16 million pixels: save it again")
    held = 0
    for offsets, counts in _PLACES:
        starts, sizes = (entries.get(tag, np.zeros(0, np.uint64)) for tag in (offsets, counts))
        shared = min(len(starts), len(sizes))
        ends = starts[:shared].astype(np.float64) + sizes[:shared]
        if shared and ends.max() > len(raw):
            raise InputError(f"the TIFF picture is cut off after {len(raw)} bytes: send it again")
        held += int(sizes.astype(np.float64).sum())
    bits = _one(entries, _BITS, 1)
    if _one(entries, _COMPRESSION, 1) == 1 and held * 8 < width * height * samples * bits:
        raise InputError(
            f"the TIFF picture claims {width}x{height} and holds {held} bytes: it is damaged"
        )
    return width, height


def _entries(raw: memoryview) -> _Entries:
    """The first directory: tag to its whole numbers."""
    order = "<" if bytes(raw[:2]) == b"II" else ">"
    big = bytes(raw[2:4]) in (b"+\0", b"\0+")  # 64-bit offsets
    word, head, size = ("u8", 8, 20) if big else ("u4", 4, 12)
    try:
        start = _number(raw, head, order + word)
        count = _number(raw, start, order + ("u8" if big else "u2"))
        start += 8 if big else 2
        if count > _MAX_ENTRIES:
            raise IndexError
        found: _Entries = {}
        for position in range(start, start + count * size, size):
            tag = _number(raw, position, order + "u2")
            kind = _TYPES.get(_number(raw, position + 2, order + "u2"))
            length = _number(raw, position + 4, order + word)
            if kind is None:
                found[tag] = np.zeros(0, np.uint64)
                continue
            dtype = np.dtype(order + kind)
            place = position + size - (8 if big else 4)
            if length * dtype.itemsize > (8 if big else 4):
                place = _number(raw, place, order + word)
            if place + length * dtype.itemsize > len(raw):
                raise IndexError
            values = np.frombuffer(raw, dtype, length, place)
            found[tag] = values.astype(np.uint64)
    except (IndexError, ValueError) as error:
        raise InputError(
            f"the TIFF picture is cut off or damaged ({len(raw)} bytes): send it again"
        ) from error
    return found


def _one(entries: _Entries, tag: int, default: int) -> int:
    values = entries.get(tag)
    return int(values.max()) if values is not None and len(values) else default


def _number(raw: memoryview, position: int, dtype: str) -> int:
    """
    :raises ValueError: if it lies beyond the end.
    """
    return int(np.frombuffer(raw, dtype, 1, position)[0])
