"""What the header of a picture claims: format, size and bits, read before any decoder allocates.

A few kilobytes can claim gigabytes, and decoders believe them. Every format that
:mod:`dense_perception.imaging.decode` takes is therefore checked here against the bytes that are
there; others are refused by name.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from dense_perception.core.errors import InputError
from dense_perception.core.limits import MAX_JPEG_SCANS, MAX_SCANNED_PIXELS
from dense_perception.imaging.boxed_headers import avif_size, is_boxed
from dense_perception.imaging.tiff_header import tiff_size

PNG_START = b"\x89PNG\r\n\x1a\n"
# A marker with a length. libjpeg takes TEM (01) and restarts (D0 to D7) without one, FF 00 is data,
# and between segments it passes over whatever is no marker.
_MARKER = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")
_PNM_FIELD = re.compile(rb"(?:\s|#[^\n]*\n)*(\d{1,9})")
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_PNM_SAMPLES = {b"P2": 1, b"P3": 3, b"P5": 1, b"P6": 3}
# Starts of what is no picture that OpenCV reads, and what to do about it.
_REFUSED = (
    (b"\0\x05\x16\x07", "a companion that macOS leaves beside a file ('._'): give the file itself"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000, which is not read: convert it to PNG"),
    (b"\xff\x4f\xff\x51", "JPEG 2000, which is not read: convert it to PNG"),
    (b"\xff\x0a", "JPEG XL, which is not read: convert it to PNG"),
    (b"\0\0\0\x0cJXL ", "JPEG XL, which is not read: convert it to PNG"),
    (b"#?RADIANCE", "Radiance HDR, which is not read: convert it to PNG"),
    (b"\x76\x2f\x31\x01", "OpenEXR, which is not read: convert it to PNG"),
    (b"8BPS", "a Photoshop file, which is not read: convert it to PNG"),
    (b"P7", "PAM, which is not read: convert it to PNG"),
)
EXPECTED = "JPEG, PNG, BMP, WebP, TIFF, PNM, GIF or AVIF"
"""The formats that are read, for messages."""


@dataclass(frozen=True, slots=True)
class Header:
    """``kind`` is the format's name; ``bits`` of 16-bit pixels that count, 0 where it is open.

    ``peak`` is the value of white where it is another than 255 and decoders do not heed it, else 0.
    ``held`` is "progressive" or "animated" where a decoder holds the whole before it makes pixels:
    a key of :data:`dense_perception.core.limits.HELD_SHARE`, else empty.
    """

    kind: str
    width: int
    height: int
    bits: int = 0
    peak: int = 0
    held: str = ""


def read_header(raw: memoryview, max_scans: int = MAX_JPEG_SCANS) -> Header:
    """
    :raises InputError: if the picture is cut off, damaged or of a format that is not read.
    """
    head = bytes(raw[:32])
    if head.startswith(b"\xff\xd8"):
        return _jpeg(raw, max_scans)
    for matches, read in _READERS:
        if matches(head):
            return read(raw)
    for start, what in _REFUSED:
        if head.startswith(start):
            raise InputError(f"the picture is {what}")
    shown = head[:8].hex(" ") or "nothing"
    raise InputError(f"the picture starts with {shown}, expected {EXPECTED}: convert it first")


def is_picture(head: bytes) -> bool:
    """Whether a file that starts with ``head`` (32 bytes) is a picture, read or refused by name."""
    starts = (b"\xff\xd8", *(start for start, _ in _REFUSED if len(start) > 2))
    return head.startswith(starts) or any(matches(head) for matches, _ in _READERS)


def png_size(raw: memoryview) -> tuple[int, int]:
    """Walk the chunks to the end: a decoder allocates what a length claims before it reads.

    :raises InputError: if the picture is cut off or damaged.
    """
    cut = InputError(f"the PNG picture is cut off after {len(raw)} bytes: send it again")
    size: tuple[int, int] | None = None
    position = len(PNG_START)
    while position + 12 <= len(raw):
        length, kind = struct.unpack_from(">I4s", raw, position)
        if length > len(raw) - position - 12:
            break
        if size is None:
            if kind != b"IHDR" or length != 13:
                raise InputError("the PNG picture has no header: it is damaged")
            size = struct.unpack_from(">II", raw, position + 8)
        elif kind == b"fcTL" and length >= 20:
            width, height, left, top = struct.unpack_from(">4I", raw, position + 12)
            if left + width > size[0] or top + height > size[1]:
                raise InputError("a frame of the PNG picture is larger than the picture: damaged")
        if kind == b"IEND":
            return size
        position += 12 + length
    raise cut


def _jpeg(raw: memoryview, max_scans: int) -> Header:
    """Walk the markers as libjpeg does: frame header, number of scans, end of the image."""
    cut = InputError(f"the JPEG picture is cut off after {len(raw)} bytes: send it again")
    data = bytes(raw)
    header: Header | None = None
    position, scans = 2, 0
    while (found := _MARKER.search(data, position)) is not None:
        marker, position = found[1][0], found.end()
        if marker == 0xD9:
            if header is None:
                raise InputError("the JPEG picture has no frame header: it is damaged")
            if not scans:
                raise cut
            return header
        if marker == 0xD8:
            raise InputError("the JPEG picture starts twice: it is damaged")
        if position + 2 > len(data):
            break
        length = int.from_bytes(data[position : position + 2], "big")
        if length < 2:
            raise InputError("the JPEG picture is damaged in its header: send it again")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if position + 7 > len(data):
                break
            if header is not None:
                raise InputError("the JPEG picture has two frame headers: it is damaged")
            height, width = struct.unpack_from(">HH", data, position + 3)
            header = Header("JPEG", width, height, held="progressive" * (marker in _PROGRESSIVE))
        position += length
        if marker == 0xDA:
            scans += 1
            if scans > max_scans:
                raise InputError(
                    f"the JPEG picture has over {max_scans} scans, expected about ten: save it "
                    "again"
                )
            if header is not None and scans * header.width * header.height > MAX_SCANNED_PIXELS:
                raise InputError(
                    f"the JPEG picture has {scans} scans of {header.width}x{header.height} pixels "
                    "or more, expected about ten: save it again"
                )
    # A hole before the end is not noticed: libjpeg fills it, warns on stderr and calls the picture
    # whole, and OpenCV passes no warning on. To find it, the Huffman codes would have to be read.
    # Cameras pad the end with zeros; without this marker the lower part would be gray.
    raise cut


def _png(raw: memoryview) -> Header:
    return Header("PNG", *png_size(raw))


def _bmp(raw: memoryview) -> Header:
    width, height, _, bits = struct.unpack_from("<iiHH", raw[18:30].tobytes().ljust(12, b"\0"))
    packed = len(raw) >= 34 and int.from_bytes(raw[30:34], "little") in (1, 2)
    if not packed and width * abs(height) * bits // 8 > len(raw):
        raise InputError(f"the BMP picture is cut off after {len(raw)} bytes: send it again")
    return Header("BMP", width, abs(height))


def _webp(raw: memoryview) -> Header:
    head = bytes(raw[:30])
    chunk = head[12:16]
    if chunk == b"VP8X":
        width = 1 + int.from_bytes(head[24:27], "little")
        height = 1 + int.from_bytes(head[27:30], "little")
        return Header("WebP", width, height, held="animated" if head[20] & 2 else "")
    if chunk == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return Header("WebP", 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    width, height = struct.unpack("<HH", head[26:30])
    return Header("WebP", width & 0x3FFF, height & 0x3FFF)


def _pnm(raw: memoryview) -> Header:
    """PBM, PGM and PPM; the largest value says how many bits count."""
    data = bytes(raw[:4096])
    kind, position = data[:2], 2
    fields = []
    for _ in range(3 if kind in _PNM_SAMPLES else 2):
        found = _PNM_FIELD.match(data, position)
        if found is None:
            raise InputError("the PNM picture has no header: it is damaged")
        fields.append(int(found[1]))
        position = found.end()
    width, height, largest = (*fields, 1)[:3]
    if not 0 < largest < 65536:
        raise InputError(f"the PNM picture has values up to {largest}, expected 1 to 65535")
    samples = width * height * _PNM_SAMPLES.get(kind, 1)
    needed = samples if kind in (b"P1", b"P5", b"P6") else 2 * samples - 1
    if kind == b"P4":
        needed = (width + 7) // 8 * height
    elif kind in (b"P5", b"P6") and largest > 255:
        needed = 2 * samples
    if needed > len(raw) - position:
        raise InputError(f"the PNM picture is cut off after {len(raw)} bytes: send it again")
    bits = max(9, largest.bit_length()) if largest > 255 else 0
    # OpenCV stretches the numbers of the text forms, not those of the binary ones.
    peak = largest if kind in (b"P5", b"P6") and largest < 255 else 0
    return Header("PNM", width, height, bits, peak)


def _gif(raw: memoryview) -> Header:
    if bytes(raw[-64:]).rstrip(b"\0")[-1:] != b";":
        raise InputError(f"the GIF picture is cut off after {len(raw)} bytes: send it again")
    return Header("GIF", *struct.unpack_from("<HH", raw, 6))


_READERS: tuple[tuple[Callable[[bytes], bool], Callable[[memoryview], Header]], ...] = (
    (lambda head: head.startswith(PNG_START), _png),
    (lambda head: head.startswith(b"BM") and len(head) >= 26, _bmp),
    (lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP" and len(head) >= 30, _webp),
    (
        lambda head: head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
        lambda raw: Header("TIFF", *tiff_size(raw)),
    ),
    (lambda head: re.match(rb"P[1-6][\s#]", head) is not None, _pnm),
    (lambda head: head[:6] in (b"GIF87a", b"GIF89a") and len(head) >= 13, _gif),
    (is_boxed, lambda raw: Header("AVIF", *avif_size(raw))),
)
