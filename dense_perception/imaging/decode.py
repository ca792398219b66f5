"""Compressed pictures (JPEG, PNG, BMP, WebP) to RGB, with limits checked before decoding."""

from __future__ import annotations

import re
import struct

import cv2
import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.imaging.encodings import Bytes, SignificantBits

MAX_PIXELS = 120_000_000
"""Larger pictures are refused from their header alone: a few kilobytes can claim gigabytes."""

MAX_JPEG_SCANS = 200
"""A progressive picture has about ten; each one is decoded over the whole area."""

_PNG = b"\x89PNG\r\n\x1a\n"
# A marker with a length. libjpeg takes TEM (01) and restarts (D0 to D7) without one, FF 00 is data,
# and between segments it passes over whatever is no marker.
_MARKER = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")


def decode_compressed(
    data: Bytes,
    *,
    max_pixels: int | None = None,
    apply_orientation: bool = False,
    bits: SignificantBits | None = None,
    keep_gray: bool = False,
) -> np.ndarray:
    """Bytes of a JPEG, PNG, BMP or WebP picture to HxWx3 ``uint8`` RGB.

    ``apply_orientation`` turns the picture as its EXIF entry says: right for photographs, wrong
    for a camera stream whose calibration belongs to the stored pixels. ``bits`` says how 16-bit
    pixels are read. ``keep_gray`` gives a picture of one channel as HxW.

    :raises InputError: for an empty, truncated or damaged picture, another format, or more than
        ``max_pixels`` pixels.
    """
    buffer = np.frombuffer(data, np.uint8) if len(data) else np.empty(0, np.uint8)
    raw = buffer.data
    kind, width, height = _probe(raw)
    if width < 1 or height < 1:
        raise InputError(f"the {kind} picture claims {width}x{height} pixels: it is damaged")
    max_pixels = MAX_PIXELS if max_pixels is None else max_pixels
    if width * height > max_pixels:
        raise InputError(
            f"the {kind} picture is {width}x{height}, expected at most {max_pixels / 1e6:g} "
            "million pixels: scale it down"
        )
    flags = cv2.IMREAD_ANYDEPTH | (cv2.IMREAD_ANYCOLOR if keep_gray else cv2.IMREAD_COLOR)
    if not apply_orientation:
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    bgr_hwc = _imdecode(buffer, flags)
    if bgr_hwc is None:
        raise InputError(f"the {kind} picture of {width}x{height} is damaged: send it again")
    if bgr_hwc.shape[0] * bgr_hwc.shape[1] != width * height:
        raise InputError(
            f"the {kind} picture claims {width}x{height} and holds "
            f"{bgr_hwc.shape[1]}x{bgr_hwc.shape[0]}: it is damaged"
        )
    if bgr_hwc.dtype == np.uint16:
        bgr_hwc = (bits or SignificantBits(16)).to_8bit(bgr_hwc)
    if bgr_hwc.dtype != np.uint8:
        raise InputError(
            f"the {kind} picture holds {bgr_hwc.dtype}, expected 8 or 16 bits: convert it first"
        )
    if bgr_hwc.ndim == 2:
        return bgr_hwc
    return cv2.cvtColor(bgr_hwc, cv2.COLOR_BGR2RGB, dst=bgr_hwc)


def decode_compressed_depth(
    data: Bytes, encoding: str = "", *, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """A compressed depth image to HxW ``float32`` metres, NaN where there is none.

    A 16-bit PNG of millimetres, bare or behind the 12-byte header of
    ``compressed_depth_image_transport``; with that header, also its quantised 32-bit form.
    ``encoding`` is the uncompressed image's, ``16UC1`` or ``32FC1``, empty where it is not known.

    :raises InputError: for anything else (RVL among it), or as :func:`decode_compressed`.
    """
    raw = bytes(data)
    header = b""
    if not raw.startswith(_PNG) and raw[12:20] == _PNG:
        header, raw = raw[:12], raw[12:]
    if not raw.startswith(_PNG):
        raise InputError(
            "the compressed depth image is not a PNG: record it with png compression (not RVL) "
            "or raw"
        )
    width, height = _png_size(memoryview(raw))
    if not 0 < width * height <= max_pixels:
        raise InputError(f"the compressed depth image claims {width}x{height} pixels")
    values_hw = _imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED)
    if values_hw is None or values_hw.ndim != 2 or values_hw.dtype != np.uint16:
        raise InputError("the compressed depth image is damaged or not 16 bit with one channel")
    depth = values_hw.astype(np.float32)
    depth[values_hw == 0] = np.nan
    # With 16UC1 the plug-in leaves the header's numbers as they happen to be in memory.
    quantised = bool(header) and encoding != "16UC1"
    quant_a, quant_b = struct.unpack_from("<ff", header, 4) if quantised else (0.0, 0.0)
    if quant_a > 0:
        # Inverse-depth quantisation of the transport plug-in: stored = A / metres + B.
        inverse = depth - np.float32(quant_b)
        inverse[~(inverse > 0)] = np.nan
        return np.float32(quant_a) / inverse
    return depth / np.float32(1000)


def _imdecode(buffer: np.ndarray, flags: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(buffer, flags)
    except cv2.error:
        return None


def _probe(raw: memoryview) -> tuple[str, int, int]:
    """Format, width and height from the header; complains about a missing end."""
    head = bytes(raw[:32])
    if head.startswith(b"\xff\xd8"):
        return ("JPEG", *_jpeg_size(raw))
    if head.startswith(_PNG):
        return ("PNG", *_png_size(raw))
    if head.startswith(b"BM") and len(head) >= 26:
        width, height, _, bits = struct.unpack_from("<iiHH", raw[18:30].tobytes().ljust(12, b"\0"))
        packed = len(raw) >= 34 and int.from_bytes(raw[30:34], "little") in (1, 2)
        if not packed and width * abs(height) * bits // 8 > len(raw):
            raise InputError(f"the BMP picture is cut off after {len(raw)} bytes: send it again")
        return "BMP", width, abs(height)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP" and len(head) >= 30:
        return ("WebP", *_webp_size(head))
    start = head[:8].hex(" ") or "nothing"
    raise InputError(
        f"the picture starts with {start}, expected JPEG, PNG, BMP or WebP: convert it first"
    )


def _png_size(raw: memoryview) -> tuple[int, int]:
    """Walk the chunks to the end: a decoder allocates what a length claims before it reads."""
    cut = InputError(f"the PNG picture is cut off after {len(raw)} bytes: send it again")
    size: tuple[int, int] | None = None
    position = len(_PNG)
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


def _jpeg_size(raw: memoryview) -> tuple[int, int]:
    """Walk the markers as libjpeg does: frame header, number of scans, end of the image."""
    cut = InputError(f"the JPEG picture is cut off after {len(raw)} bytes: send it again")
    data = bytes(raw)
    size: tuple[int, int] | None = None
    position, scans = 2, 0
    while (found := _MARKER.search(data, position)) is not None:
        marker, position = found[1][0], found.end()
        if marker == 0xD9:
            if size is None:
                raise InputError("the JPEG picture has no frame header: it is damaged")
            if not scans:
                raise cut
            return size
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
            if size is not None:
                raise InputError("the JPEG picture has two frame headers: it is damaged")
            height, width = struct.unpack_from(">HH", data, position + 3)
            size = (width, height)
        position += length
        if marker == 0xDA:
            scans += 1
            if scans > MAX_JPEG_SCANS:
                raise InputError(
                    f"the JPEG picture has over {MAX_JPEG_SCANS} scans, expected about ten: save "
                    "it again"
                )
    # A hole before the end is not noticed: libjpeg fills it, warns on stderr and calls the picture
    # whole, and OpenCV passes no warning on. To find it, the Huffman codes would have to be read.
    # Cameras pad the end with zeros; without this marker the lower part would be gray.
    raise cut


def _webp_size(head: bytes) -> tuple[int, int]:
    chunk = head[12:16]
    if chunk == b"VP8X":
        return (
            1 + int.from_bytes(head[24:27], "little"),
            1 + int.from_bytes(head[27:30], "little"),
        )
    if chunk == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack("<HH", head[26:30])
    return width & 0x3FFF, height & 0x3FFF
