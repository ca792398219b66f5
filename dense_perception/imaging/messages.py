"""Image messages to arrays, wherever they come from, and what the names of their topics say.

Messages are recognised by their fields, so this module needs neither ROS nor rosbags.
"""

from __future__ import annotations

import re
from typing import Any, Protocol

import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.imaging.decode import decode_compressed, decode_compressed_depth
from dense_perception.imaging.encodings import (
    DEPTH_ENCODINGS,
    Bytes,
    SignificantBits,
    decode_depth,
    decode_image,
    demosaic,
)

_NS = 1_000_000_000
_TRANSPORTS = ("compressed", "compressedDepth", "theora", "zstd", "ffmpeg")
_RECTIFIED = re.compile(r"(^|_)rect(ified)?(_|$)")
_VIDEO = ("h264", "h265", "hevc", "avc", "av1", "vp8", "vp9", "theora", "ffmpeg", "mpeg")


class Stamp(Protocol):
    """``builtin_interfaces/Time``."""

    @property
    def sec(self) -> int: ...
    @property
    def nanosec(self) -> int: ...


class Header(Protocol):
    """``std_msgs/Header``."""

    @property
    def stamp(self) -> Stamp: ...
    @property
    def frame_id(self) -> str: ...


class ImageMessage(Protocol):
    """What ``sensor_msgs/Image`` and ``CompressedImage`` share.

    The former also has ``encoding``, ``width``, ``height``, ``step`` and ``is_bigendian``, the
    latter ``format``; ``data`` is anything with the buffer protocol.
    """

    @property
    def header(self) -> Header: ...
    @property
    def data(self) -> Bytes: ...


def stamp_ns(header: Header) -> int:
    """The header's stamp in nanoseconds."""
    return int(header.stamp.sec) * _NS + int(header.stamp.nanosec)


def stamp_fields(time_ns: int) -> tuple[int, int]:
    """``sec`` and ``nanosec`` of a stamp; the inverse of :func:`stamp_ns`."""
    return divmod(time_ns, _NS)


def is_compressed(message: ImageMessage) -> bool:
    """Whether it is a ``CompressedImage``, of any transport."""
    return hasattr(message, "format")


def is_depth(message: ImageMessage, topic: str = "") -> bool:
    """Whether an image message holds depth, as far as it says.

    mono16 does not count: it is an infrared picture as often as it is depth.
    """
    if is_compressed(message):
        form = str(getattr(message, "format", ""))
        encoding = form.partition(";")[0].strip()
        says = "compressedDepth" in form or (encoding in DEPTH_ENCODINGS and encoding != "mono16")
        return says or topic.endswith("/compressedDepth")
    encoding = getattr(message, "encoding", "")
    return encoding in DEPTH_ENCODINGS and encoding != "mono16"


def message_rgb(message: ImageMessage, bits: SignificantBits | None = None) -> np.ndarray:
    """The picture as HxWx3 ``uint8`` RGB; for ``rgb8`` a view of the message's data.

    The ``format`` of a ``CompressedImage`` is obeyed: a Bayer pattern is demosaiced, depth and
    video are refused by name. ``bits`` says how 16-bit pixels are read.

    :raises InputError: if it is truncated, damaged, too large or of an unknown encoding, or its
        fields contradict each other.
    """
    if is_compressed(message):
        return _compressed_rgb(message, bits)
    return decode_image(*_fields(message), bits)


def _compressed_rgb(message: ImageMessage, bits: SignificantBits | None) -> np.ndarray:
    form = str(getattr(message, "format", "")).strip()
    encoding = form.partition(";")[0].strip()
    if is_depth(message):
        raise InputError(
            f"the compressed image is {form!r}, which is depth, expected a picture: choose the "
            "camera's colour or mono image"
        )
    if any(name in form.lower() for name in _VIDEO):
        raise InputError(
            f"the compressed image is {form!r}, a video stream, expected pictures (jpeg, png): "
            "let the driver publish those or raw images"
        )
    if encoding.startswith("bayer_"):
        # Some drivers compress the raw mosaic, others the picture made of it.
        pixels = decode_compressed(message.data, bits=bits, keep_gray=True)
        rgb_hwc = demosaic(encoding, pixels) if pixels.ndim == 2 else pixels
        if rgb_hwc is None:
            raise InputError(
                f"the compressed image is {encoding!r}, expected one of the Bayer patterns of "
                "sensor_msgs: set the camera driver to one of them"
            )
        return rgb_hwc
    return decode_compressed(message.data, bits=bits)


def message_depth_m(message: ImageMessage) -> np.ndarray:
    """A depth image as HxW ``float32`` metres, NaN where there is none.

    :raises InputError: as :func:`message_rgb`.
    """
    if is_compressed(message):
        encoding = str(getattr(message, "format", "")).partition(";")[0].strip()
        return decode_compressed_depth(message.data, encoding)
    return decode_depth(*_fields(message))


def _fields(message: Any) -> tuple[str, int, int, int, Bytes, bool]:
    return (
        message.encoding,
        message.width,
        message.height,
        message.step,
        message.data,
        bool(message.is_bigendian),
    )


def base_topic(name: str) -> str:
    """An image topic without its transport: ``/camera/image/compressed`` is ``/camera/image``."""
    head, _, tail = name.rpartition("/")
    return head if tail in _TRANSPORTS and head else name


def camera_info_topic(name: str) -> str:
    """The ``camera_info`` topic beside an image topic, by ROS convention."""
    return f"{base_topic(name).rpartition('/')[0]}/camera_info"


def is_rectified(name: str) -> bool:
    """Whether an image topic's name says that it is rectified, as ``image_rect`` does.

    ``rect`` or ``rectified`` is a part of its last word between underscores: ``image_direct`` is
    something else.
    """
    return _RECTIFIED.search(base_topic(name).rpartition("/")[2]) is not None
