"""Compressed pictures (JPEG, PNG, TIFF and others) to RGB, with limits checked before decoding."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.core.limits import HELD_SHARE, MAX_JPEG_SCANS, MAX_PIXELS
from dense_perception.core.prediction import known_only
from dense_perception.imaging.encodings import Bytes, SignificantBits, check_pixels
from dense_perception.imaging.picture_headers import PNG_START, png_size, read_header

# Formats that only some builds of OpenCV read.
_NOT_EVERYWHERE = ("TIFF", "GIF", "AVIF")
_PALETTE = 3  # a PNG's colour type


def decode_compressed(
    data: Bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    max_scans: int = MAX_JPEG_SCANS,
    apply_orientation: bool = False,
    bits: SignificantBits | None = None,
    keep_gray: bool = False,
) -> np.ndarray:
    """Bytes of a picture to HxWx3 ``uint8`` RGB; of an animated one its first frame.

    JPEG, PNG, BMP, WebP, TIFF and PNM are read everywhere, GIF and AVIF where OpenCV has them.

    ``apply_orientation`` turns the picture as its EXIF entry says: right for photographs, wrong
    for a camera stream whose calibration belongs to the stored pixels. ``bits`` says how 16-bit
    pixels are read where the picture does not. ``keep_gray`` gives a picture of one channel as HxW.

    :raises InputError: for an empty, truncated or damaged picture, another format, more than
        ``max_pixels`` pixels or a JPEG of more than ``max_scans`` scans.
    """
    buffer = np.frombuffer(data, np.uint8) if len(data) else np.empty(0, np.uint8)
    header = read_header(buffer.data, max_scans)
    kind, width, height = header.kind, header.width, header.height
    if width < 1 or height < 1:
        raise InputError(f"the {kind} picture claims {width}x{height} pixels: it is damaged")
    if header.held:
        most = int(max_pixels * HELD_SHARE[header.held])
        check_pixels(f"{header.held} {kind} picture", width, height, most)
    check_pixels(f"{kind} picture", width, height, max_pixels)
    flags = cv2.IMREAD_ANYDEPTH | (cv2.IMREAD_ANYCOLOR if keep_gray else cv2.IMREAD_COLOR)
    if not apply_orientation:
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    bgr_hwc = _imdecode(buffer, flags)
    if bgr_hwc is None:
        raise InputError(
            f"the {kind} picture of {width}x{height} is damaged: send it again"
            if kind not in _NOT_EVERYWHERE
            else f"the {kind} picture of {width}x{height} is damaged, or OpenCV {cv2.__version__} "
            f"was built without {kind}: convert it to PNG"
        )
    if bgr_hwc.shape[0] * bgr_hwc.shape[1] != width * height:
        raise InputError(
            f"the {kind} picture claims {width}x{height} and holds "
            f"{bgr_hwc.shape[1]}x{bgr_hwc.shape[0]}: it is damaged"
        )
    if bgr_hwc.dtype == np.uint16:
        own = SignificantBits(header.bits) if header.bits else None
        bgr_hwc = (own or bits or SignificantBits(16)).to_8bit(bgr_hwc)
    if header.peak:
        table = np.rint(np.minimum(np.arange(256) / header.peak, 1) * 255).astype(np.uint8)
        bgr_hwc = cv2.LUT(bgr_hwc, table)
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
    if not raw.startswith(PNG_START) and raw[12:20] == PNG_START:
        header, raw = raw[:12], raw[12:]
    if not raw.startswith(PNG_START):
        raise InputError(
            "the compressed depth image is not a PNG: record it with png compression (not RVL) "
            "or raw"
        )
    width, height = png_size(memoryview(raw))
    if width < 1 or height < 1:
        raise InputError(f"the compressed depth image claims {width}x{height} pixels")
    check_pixels("compressed depth image", width, height, max_pixels)
    values_hw = _imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED)
    if values_hw is None or values_hw.ndim != 2 or values_hw.dtype != np.uint16:
        raise InputError("the compressed depth image is damaged or not 16 bit with one channel")
    depth = known_only(values_hw.astype(np.float32), values_hw != 0)
    # With 16UC1 the plug-in leaves the header's numbers as they happen to be in memory.
    quantised = bool(header) and encoding != "16UC1"
    quant_a, quant_b = struct.unpack_from("<ff", header, 4) if quantised else (0.0, 0.0)
    if quant_a > 0:
        # Inverse-depth quantisation of the transport plug-in: stored = A / metres + B.
        inverse = depth - np.float32(quant_b)
        inverse[~(inverse > 0)] = np.nan
        with np.errstate(over="ignore"):
            depth_m = np.float32(quant_a) / inverse
        depth_m[np.isinf(depth_m)] = np.nan
        return depth_m
    return depth / np.float32(1000)


def decode_labels(data: Bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """A PNG of labels to HxW ``uint8`` or ``uint16``.

    Of a palette PNG these are the indices, which annotation tools mean, not the colours.

    :raises InputError: if it is no PNG (other formats change labels) or has several channels, or as
        :func:`decode_compressed`.
    """
    raw = bytes(data)
    header = read_header(memoryview(raw))
    check_pixels(f"{header.kind} picture", header.width, header.height, max_pixels)
    if header.kind != "PNG":
        raise InputError(f"it is {header.kind}, expected a PNG of one channel: save it as PNG")
    depth, colour_type = raw[24], raw[25]
    if colour_type == _PALETTE:
        raw = _without_palette(raw)
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    values_hw = _imdecode(np.frombuffer(raw, np.uint8), flags)
    if values_hw is None:
        raise InputError("the PNG picture is damaged: send it again")
    if values_hw.ndim != 2:
        raise InputError(
            "it has several channels, expected a PNG of one channel (gray or palette) with the "
            "number of each pixel's class: convert colours to numbers"
        )
    # libpng spreads fewer bits over all eight.
    return values_hw // (255 // (2**depth - 1)) if depth < 8 else values_hw


def _without_palette(png: bytes) -> bytes:
    """The PNG as a gray one: the stored numbers of both are the same."""
    head = png[12:25] + b"\0" + png[26:29]
    pieces = [PNG_START, png[8:12], head, zlib.crc32(head).to_bytes(4, "big")]
    position = 33
    while position + 12 <= len(png):
        end = position + 12 + int.from_bytes(png[position : position + 4], "big")
        if png[position + 4 : position + 8] in (b"IDAT", b"IEND"):
            pieces.append(png[position:end])
        position = end
    return b"".join(pieces)


def _imdecode(buffer: np.ndarray, flags: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(buffer, flags)
    except cv2.error:
        return None
