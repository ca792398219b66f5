"""Image messages to arrays, wherever they come from, and what the names of their topics say.

Messages are recognised by their fields, so this module needs neither ROS nor rosbags.
"""

from __future__ import annotations

import re
from typing import Any, Protocol

import numpy as np

from dense_perception.imaging.decode import decode_compressed, decode_compressed_depth
from dense_perception.imaging.encodings import DEPTH_ENCODINGS, Bytes, decode_depth, decode_image

_NS = 1_000_000_000
_TRANSPORTS = ("compressed", "compressedDepth", "theora", "zstd", "ffmpeg")
_RECTIFIED = re.compile(r"(^|_)rect(ified)?(_|$)")


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
        says = "compressedDepth" in form or form.startswith(DEPTH_ENCODINGS)
        return says or topic.endswith("/compressedDepth")
    encoding = getattr(message, "encoding", "")
    return encoding in DEPTH_ENCODINGS and encoding != "mono16"


def message_rgb(message: ImageMessage) -> np.ndarray:
    """The picture as HxWx3 ``uint8`` RGB; for ``rgb8`` a view of the message's data.

    :raises InputError: if it is truncated, damaged, too large or of an unknown encoding, or its
        fields contradict each other.
    """
    if is_compressed(message):
        return decode_compressed(message.data)
    return decode_image(*_fields(message))


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
