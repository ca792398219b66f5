"""The fields of a ``sensor_msgs/Image`` to RGB or depth, without ROS and without cv_bridge.

The encodings' names are those of ``sensor_msgs/image_encodings.hpp``; where it leaves the meaning
open: ``8UC3``/``8UC4`` are BGR(A), as OpenCV writes them, and YUV is BT.601 with limited range.
"""

from __future__ import annotations

import array as arrays
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.core.prediction import known_only

Bytes: TypeAlias = "bytes | bytearray | memoryview | arrays.array[int] | np.ndarray"
"""What messages hold their data in."""
_Convert = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True)
class _Layout:
    """How one encoding lies in memory: rows of ``channels`` x ``dtype`` (YUV 4:2:0: two planes)."""

    dtype: str
    channels: int
    convert: _Convert | None = None
    even_width: bool = False
    even_height: bool = False
    planar_420: bool = False


def _colour(code: int) -> _Convert:
    return lambda array: cv2.cvtColor(array, code)


def _gray(array: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(array, cv2.COLOR_GRAY2RGB)


def check_pixels(what: str, width: int, height: int, max_pixels: int) -> None:
    """
    :raises InputError: if an image claims more than ``max_pixels`` pixels.
    """
    if width * height > max_pixels:
        raise InputError(
            f"the {what} is {width}x{height}, expected at most {max_pixels / 1e6:g} million "
            "pixels: scale it down, or raise max_pixels (of commands: --max-pixels) "
            "if you trust its source"
        )


class SignificantBits:
    """How many bits of 16-bit pixels a camera uses, and how they become 8-bit ones.

    ``bits``: 9 to 16; 0 takes all 16 and remembers whether the high ones were ever used, as many
    cameras deliver 10 or 12 bits in the low ones, which would come out nearly black.
    """

    def __init__(self, bits: int = 0) -> None:
        if bits != 0 and not 9 <= bits <= 16:
            raise InputError(f"significant bits are {bits}, expected 9 to 16, or 0 for all")
        self.bits = bits
        self.frames = 0
        self._highest = 0

    def to_8bit(self, array: np.ndarray) -> np.ndarray:
        """``uint16`` of any shape to ``uint8``: the highest 8 of the significant bits."""
        shift = (self.bits or 16) - 8
        if not self.bits:
            self.frames += 1
            self._highest = max(self._highest, int(array.max()))
        shifted = array >> shift
        return (shifted if shift == 8 else np.minimum(shifted, 255)).astype(np.uint8)

    @property
    def advice(self) -> str:
        """What to do where there is a :attr:`doubt`, for commands; empty where there is none."""
        if not self.doubt:
            return ""
        return (
            f"the 16-bit pictures only use {self.doubt} bits and were read as nearly black: give "
            "the camera's with --bits 10 or --bits 12, or --bits 16 if they are that dark"
        )

    @property
    def doubt(self) -> int:
        """How many bits the pictures so far fit into, if that is at most 12; else 0."""
        used = max(self._highest.bit_length(), 9)
        return used if self.frames and used <= 12 and self._highest else 0


_BGR, _BGRA = _colour(cv2.COLOR_BGR2RGB), _colour(cv2.COLOR_BGRA2RGB)
_UYVY, _YUY2 = _colour(cv2.COLOR_YUV2RGB_UYVY), _colour(cv2.COLOR_YUV2RGB_YUY2)
# OpenCV names a Bayer pattern by its second row's second and third pixel: BG is RGGB.
_BAYER = {
    "rggb": cv2.COLOR_BayerBG2RGB,
    "bggr": cv2.COLOR_BayerRG2RGB,
    "gbrg": cv2.COLOR_BayerGR2RGB,
    "grbg": cv2.COLOR_BayerGB2RGB,
}

_IMAGES: dict[str, _Layout] = {
    "rgb8": _Layout("u1", 3),
    "bgr8": _Layout("u1", 3, _BGR),
    "8UC3": _Layout("u1", 3, _BGR),
    "rgba8": _Layout("u1", 4, _colour(cv2.COLOR_RGBA2RGB)),
    "bgra8": _Layout("u1", 4, _BGRA),
    "8UC4": _Layout("u1", 4, _BGRA),
    "mono8": _Layout("u1", 1, _gray),
    "8UC1": _Layout("u1", 1, _gray),
    "mono16": _Layout("u2", 1, _gray),
    "rgb16": _Layout("u2", 3),
    "bgr16": _Layout("u2", 3, _BGR),
    "rgba16": _Layout("u2", 4, _colour(cv2.COLOR_RGBA2RGB)),
    "bgra16": _Layout("u2", 4, _BGRA),
    "yuv422": _Layout("u1", 2, _UYVY, even_width=True),
    "uyvy": _Layout("u1", 2, _UYVY, even_width=True),
    "yuv422_yuy2": _Layout("u1", 2, _YUY2, even_width=True),
    "yuyv": _Layout("u1", 2, _YUY2, even_width=True),
    "nv12": _Layout("u1", 1, _colour(cv2.COLOR_YUV2RGB_NV12), True, True, True),
    "nv21": _Layout("u1", 1, _colour(cv2.COLOR_YUV2RGB_NV21), True, True, True),
    **{f"bayer_{name}8": _Layout("u1", 1, _colour(code)) for name, code in _BAYER.items()},
    **{f"bayer_{name}16": _Layout("u2", 1, _colour(code)) for name, code in _BAYER.items()},
}
_DEPTHS: dict[str, _Layout] = {
    "16UC1": _Layout("u2", 1),
    "mono16": _Layout("u2", 1),
    "32FC1": _Layout("f4", 1),
}
IMAGE_ENCODINGS: tuple[str, ...] = tuple(_IMAGES)
"""Encodings :func:`decode_image` reads."""
DEPTH_ENCODINGS: tuple[str, ...] = tuple(_DEPTHS)
"""Encodings :func:`decode_depth` reads."""


def decode_image(
    encoding: str,
    width: int,
    height: int,
    step: int,
    data: Bytes,
    is_bigendian: bool = False,
    bits: SignificantBits | None = None,
) -> np.ndarray:
    """A picture's message fields to HxWx3 ``uint8`` RGB.

    ``bits`` says how 16-bit pixels are read; by default all their bits count.

    ``step`` is the length of a row in bytes, padding included; ``data`` anything with the buffer
    protocol. ``rgb8`` is returned as a view of ``data``, perhaps read-only and with padded rows.

    :raises InputError: for an encoding not in :data:`IMAGE_ENCODINGS`, a size below one pixel, a
        step shorter than a row, data shorter than height * step, or odd sizes where chroma is
        shared between pixels.
    """
    layout = _IMAGES.get(encoding)
    if layout is None:
        if encoding in _DEPTHS:
            raise InputError(
                f"the image is {encoding!r}, which is depth, expected a picture: subscribe to the "
                "camera's colour or mono image"
            )
        raise InputError(
            f"unknown image encoding {encoding!r}, expected one of {', '.join(IMAGE_ENCODINGS)}: "
            "set the camera driver to one of them"
        )
    array = _array(layout, encoding, width, height, step, data, is_bigendian)
    if layout.dtype == "u2":
        array = (bits or SignificantBits(16)).to_8bit(array)
    if layout.convert is None:
        return array
    try:
        rgb_hwc = layout.convert(np.ascontiguousarray(array))
    except cv2.error as error:
        raise InputError(f"cannot convert {width}x{height} {encoding}: {error.err}") from error
    return rgb_hwc


def demosaic(encoding: str, raw_hw: np.ndarray) -> np.ndarray | None:
    """HxW ``uint8`` of a ``bayer_*`` encoding to HxWx3 RGB; ``None`` for another encoding."""
    layout = _IMAGES.get(encoding) if encoding.startswith("bayer_") else None
    return layout.convert(raw_hw) if layout is not None and layout.convert else None


def decode_depth(
    encoding: str, width: int, height: int, step: int, data: Bytes, is_bigendian: bool = False
) -> np.ndarray:
    """A depth image's message fields to HxW ``float32`` metres, NaN where there is none (REP 118).

    ``16UC1`` is millimetres with 0 for no return, ``32FC1`` metres.

    :raises InputError: as :func:`decode_image`, for encodings in :data:`DEPTH_ENCODINGS`.
    """
    layout = _DEPTHS.get(encoding)
    if layout is None:
        raise InputError(
            f"depth encoding is {encoding!r}, expected 16UC1 (millimetres) or 32FC1 (metres)"
        )
    array = _array(layout, encoding, width, height, step, data, is_bigendian)
    depth_m = array.astype(np.float32)
    if layout.dtype == "u2":
        depth_m /= np.float32(1000)
        return known_only(depth_m, array != 0)
    with np.errstate(invalid="ignore"):
        known = depth_m > 0
        known &= depth_m < np.inf
    return known_only(depth_m, known)


def _array(
    layout: _Layout,
    encoding: str,
    width: int,
    height: int,
    step: int,
    data: Bytes,
    is_bigendian: bool,
) -> np.ndarray:
    """A view of the pixels, HxWxC or HxW, rows padded as in ``data``."""
    if width < 1 or height < 1:
        raise InputError(
            f"the image is {width}x{height} pixels, expected at least 1x1: check the camera driver"
        )
    for is_even, side, value in (
        (layout.even_width, "width", width),
        (layout.even_height, "height", height),
    ):
        if is_even and value % 2:
            raise InputError(f"{encoding} image has the {side} {value}, expected an even number")
    dtype = np.dtype(layout.dtype).newbyteorder(">" if is_bigendian else "<")
    row_bytes = width * layout.channels * dtype.itemsize
    if step < row_bytes:
        raise InputError(
            f"step is {step} bytes, expected at least {row_bytes} for {width} pixels of "
            f"{encoding}: the driver fills step or encoding wrongly"
        )
    rows = height + height // 2 if layout.planar_420 else height
    try:
        buffer = np.frombuffer(data, np.uint8)
    except (TypeError, ValueError, BufferError) as error:
        # An empty buffer raises here too, and is simply too short.
        if len(data) != 0:
            raise InputError(f"data is a {type(data).__name__}, expected bytes") from error
        buffer = np.empty(0, np.uint8)
    if buffer.size < rows * step:
        raise InputError(
            f"data has {buffer.size} bytes, expected {rows * step} for {rows} rows of {step} "
            f"bytes ({width}x{height} {encoding}): the message is cut off"
        )
    pixel = layout.channels * dtype.itemsize
    shape: tuple[int, ...] = (rows, width, layout.channels)
    strides: tuple[int, ...] = (step, pixel, dtype.itemsize)
    if layout.channels == 1:
        shape, strides = shape[:2], strides[:2]
    return np.ndarray(shape, dtype, buffer=buffer, strides=strides)
