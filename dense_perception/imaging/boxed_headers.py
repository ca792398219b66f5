"""Pictures in boxes (ISO base media): AVIF's size, HEIC by name."""

from __future__ import annotations

from collections.abc import Iterator

from dense_perception.core.errors import InputError

_AVIF = (b"avif", b"avis")
_STILL = (b"mif1", b"msf1", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", *_AVIF)
_CONTAINERS = {b"meta": 4, b"iprp": 0, b"ipco": 0}  # bytes before the boxes inside
_MAX_BOXES = 10_000


def is_boxed(head: bytes) -> bool:
    """Whether it is AVIF or HEIC, and not a video in boxes."""
    return head[4:8] == b"ftyp" and head[8:12] in _STILL


def avif_size(raw: memoryview) -> tuple[int, int, int]:
    """Width, height and bits (10 or 12, 0 for 8) of the largest picture in it.

    :raises InputError: if it is cut off or damaged, or is HEIC.
    """
    brands = bytes(raw[8 : int.from_bytes(raw[:4], "big")][:256])
    if not any(brand in brands for brand in _AVIF):
        raise InputError(
            "the picture is HEIC, which is not read: convert it with `heif-convert IN OUT.jpg`, or "
            "let the phone take JPEG (iPhone: Settings, Camera, Formats, Most Compatible)"
        )
    width = height = bits = 0
    for kind, content in _boxes(raw, {}):
        if kind == b"ispe" and len(content) >= 12:
            found = (int.from_bytes(content[4:8], "big"), int.from_bytes(content[8:12], "big"))
            if found[0] * found[1] > width * height:
                width, height = found
        elif kind == b"av1C" and len(content) >= 3 and content[2] & 0x40:
            bits = 12 if content[2] & 0x20 else 10
    return width, height, bits


def _boxes(raw: memoryview, seen: dict[str, int]) -> Iterator[tuple[bytes, memoryview]]:
    position = 0
    while position + 8 <= len(raw):
        size, kind = int.from_bytes(raw[position : position + 4], "big"), raw[position + 4 :][:4]
        start = position + 8
        if size == 1:
            size, start = int.from_bytes(raw[start : start + 8], "big"), start + 8
        end = len(raw) if size == 0 else position + size
        seen["count"] = seen.get("count", 0) + 1
        if end > len(raw) or end < start or seen["count"] > _MAX_BOXES:
            raise InputError(
                f"the AVIF picture is cut off or damaged ({len(raw)} bytes): send it again"
            )
        name = bytes(kind)
        yield name, raw[start:end]
        if name in _CONTAINERS:
            yield from _boxes(raw[start + _CONTAINERS[name] : end], seen)
        position = end
