"""Image messages to arrays, wherever they come from, and what the names of their topics say.

Messages are recognised by their fields, so this module needs neither ROS nor rosbags.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.core.limits import MAX_JPEG_SCANS, MAX_PIXELS
from dense_perception.imaging.decode import decode_compressed, decode_compressed_depth
from dense_perception.imaging.encodings import (
    DEPTH_ENCODINGS,
    Bytes,
    SignificantBits,
    check_pixels,
    decode_depth,
    decode_image,
    demosaic,
)
from dense_perception.imaging.video import VideoDecoder, is_video, video_codec

_NS = 1_000_000_000
_TRANSPORTS = ("compressed", "compressedDepth", "theora", "zstd", "ffmpeg", "foxglove")
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
    latter ``format``; ``FFMPEGPacket`` has ``encoding`` and ``pts``. ``data`` is anything with the
    buffer protocol.
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
    """Whether it is a ``CompressedImage``, of any transport, or a packet of a video."""
    return hasattr(message, "format") or hasattr(message, "pts")


def compression(message: ImageMessage) -> str:
    """What a compressed message says that it is, as ``jpeg``, ``rgb8; jpeg compressed bgr8``."""
    name = "format" if hasattr(message, "format") else "encoding"
    return str(getattr(message, name, "")).strip()


def is_depth(message: ImageMessage, topic: str = "") -> bool:
    """Whether an image message holds depth, as far as it says.

    mono16 does not count: it is an infrared picture as often as it is depth.
    """
    if is_compressed(message):
        form = compression(message)
        encoding = form.partition(";")[0].strip()
        says = "compressedDepth" in form or (encoding in DEPTH_ENCODINGS and encoding != "mono16")
        return says or topic.endswith("/compressedDepth")
    encoding = getattr(message, "encoding", "")
    return encoding in DEPTH_ENCODINGS and encoding != "mono16"


class ImageReader:
    """Reads the images of one camera: what outlives a message, and what is too large.

    ``bits``: how many bits of 16-bit pixels count, as :class:`SignificantBits` takes it. Raw and
    compressed images of more than ``max_pixels`` and JPEGs of more than ``max_scans`` are refused.
    """

    def __init__(
        self, bits: int = 0, max_pixels: int = MAX_PIXELS, max_scans: int = MAX_JPEG_SCANS
    ) -> None:
        self.bits = SignificantBits(bits)
        self.max_pixels = max_pixels
        self.max_scans = max_scans
        self._video: VideoDecoder | None = None

    @property
    def doubts(self) -> list[str]:
        """What is to be said of the images so far, a line for each kind: bits that none of them
        uses, packets of a video that passed before a keyframe came."""
        lines = [self.bits.advice] if self.bits.doubt else []
        if self._video is not None and self._video.skipped:
            lines.append(
                f"{self._video.skipped} packets of the video were passed over until a keyframe came"
            )
        return lines

    def restart(self) -> None:
        """Images come from the start of their stream again: a video begins anew."""
        self._video = None

    def rgb(self, message: ImageMessage) -> np.ndarray | None:
        """The picture as HxWx3 ``uint8`` RGB; for ``rgb8`` a view of the message's data.

        ``None`` for a packet of a video that gives no picture, as one before its first keyframe.
        The ``format`` of a ``CompressedImage`` is obeyed: a Bayer pattern is demosaiced, a video is
        decoded packet by packet, so all of them have to come here.

        :raises InputError: if it is truncated, damaged, too large, depth or of an unknown encoding,
            or its fields contradict each other.
        """
        if not is_compressed(message):
            fields = _fields(message)
            check_pixels("image", fields[1], fields[2], self.max_pixels)
            return decode_image(*fields, self.bits)
        form = compression(message)
        if is_depth(message):
            raise InputError(
                f"the compressed image is {form!r}, which is depth, expected a picture: choose the "
                "camera's colour or mono image"
            )
        if is_video(form):
            return self._packet(form, message.data)
        encoding = form.partition(";")[0].strip()
        if not encoding.startswith("bayer_"):
            return self.picture(message.data)
        # Some drivers compress the raw mosaic, others the picture made of it.
        pixels = self.picture(message.data, keep_gray=True)
        rgb_hwc = demosaic(encoding, pixels) if pixels.ndim == 2 else pixels
        if rgb_hwc is None:
            raise InputError(
                f"the compressed image is {encoding!r}, expected one of the Bayer patterns of "
                "sensor_msgs: set the camera driver to one of them"
            )
        return rgb_hwc

    def picture(
        self, data: Bytes, *, apply_orientation: bool = False, keep_gray: bool = False
    ) -> np.ndarray:
        """:func:`~dense_perception.imaging.decode.decode_compressed` with this camera's limits."""
        return decode_compressed(
            data,
            max_pixels=self.max_pixels,
            max_scans=self.max_scans,
            apply_orientation=apply_orientation,
            bits=self.bits,
            keep_gray=keep_gray,
        )

    def _packet(self, form: str, data: Bytes) -> np.ndarray | None:
        codec = video_codec(form)
        if not codec:
            raise InputError(
                f"the images are {form!r}, a video stream, expected h264, h265, vp9, jpeg, png or "
                "raw images: let the driver publish one of those"
            )
        if self._video is None or self._video.codec != codec:
            self._video = VideoDecoder(codec, self.max_pixels)
        return self._video.rgb(data)


def message_rgb(message: ImageMessage) -> np.ndarray:
    """The picture of a message that stands alone, as :meth:`ImageReader.rgb`.

    :raises InputError: as that, and for a packet of a video that gives no picture.
    """
    rgb_hwc = ImageReader().rgb(message)
    if rgb_hwc is None:
        raise InputError("the packet of a video has no keyframe: read the stream from its start")
    return rgb_hwc


def message_depth_m(message: ImageMessage, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """A depth image as HxW ``float32`` metres, NaN where there is none.

    :raises InputError: as :meth:`ImageReader.rgb`.
    """
    if is_compressed(message):
        encoding = compression(message).partition(";")[0].strip()
        return decode_compressed_depth(message.data, encoding, max_pixels=max_pixels)
    fields = _fields(message)
    check_pixels("image", fields[1], fields[2], max_pixels)
    return decode_depth(*fields)


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


def takes_projection(matrix: str, topic: str) -> bool:
    """Whether P of the calibration describes the images of a topic, not K.

    ``matrix`` is ``K``, ``P``, or ``auto`` to go by the topic's name.
    """
    return matrix == "P" or (matrix == "auto" and is_rectified(topic))


@lru_cache(maxsize=64)  # asked for each frame of a topic
def is_rectified(name: str) -> bool:
    """Whether an image topic's name says that it is rectified, as ``image_rect`` does.

    ``rect`` or ``rectified`` is a part of its last word between underscores: ``image_direct`` is
    something else.
    """
    return _RECTIFIED.search(base_topic(name).rpartition("/")[2]) is not None
