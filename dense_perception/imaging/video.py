"""Video streams in messages, one packet each: H.264, H.265 and VP9 through PyAV.

PyAV is optional (``dense_perception[video]``) and imported when the first packet comes.
"""

from __future__ import annotations

import re
from types import ModuleType

import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.core.limits import MAX_PIXELS
from dense_perception.imaging.encodings import Bytes
from dense_perception.imaging.h264 import FrameNumbers, units

# What formats and encoders are called, in the order of trial: x264 is in "libx264", 264 in "h264".
_CODECS = (("vp9", "vp9"), ("hevc", "hevc"), ("265", "hevc"), ("264", "h264"))
_OTHER_VIDEO = ("avc", "av1", "vp8", "theora", "ffmpeg", "mpeg")
_NAL = re.compile(rb"\x00\x00\x01(.)", re.DOTALL)
# Units a decoder can start at: parameter sets and pictures that refer to no other.
_H264_STARTS = frozenset((5, 7))
_HEVC_STARTS = frozenset((*range(16, 24), 32, 33))
_MISSING = (
    "a packet of the {codec} stream refers to one that is missing: the next keyframe is waited "
    "for; make the topic reliable if this happens often"
)


def video_codec(form: str) -> str:
    """The decoder's name for a ``format`` or ``encoding``; empty if it is no video that is read."""
    text = form.lower().partition(";")[0]
    return next((codec for name, codec in _CODECS if name in text), "")


def is_video(form: str) -> bool:
    """Whether a ``format`` names a video stream, read or not."""
    return bool(video_codec(form)) or any(name in form.lower() for name in _OTHER_VIDEO)


class VideoDecoder:
    """Decodes one stream, packet by packet and without delay.

    It waits for a keyframe, at the start and after damage; ``skipped`` counts the packets that
    passed meanwhile. Streams with B-frames, whose pictures come late and in another order than
    their stamps, are refused.

    :raises InputError: if PyAV is not installed or has no such decoder.
    """

    def __init__(self, codec: str, max_pixels: int = MAX_PIXELS) -> None:
        self.codec = codec
        self.skipped = 0
        self._av = _pyav(codec)
        self._max_pixels = max_pixels
        self._count = 0
        self._waits = True
        self._numbers = FrameNumbers() if codec == "h264" else None
        self._context = self._av.CodecContext.create(codec, "r")
        self._context.thread_type = "SLICE"  # threads by frame delay pictures
        self._context.flags |= self._av.codec.context.Flags.low_delay
        self._context.options = {"max_pixels": str(max_pixels)}

    def rgb(self, data: Bytes) -> np.ndarray | None:
        """HxWx3 ``uint8`` RGB of one packet; ``None`` while it waits or gets no picture from it.

        :raises InputError: if the packet is damaged, refers to one that is missing, has more than
            the allowed pixels, or the stream has B-frames.
        """
        packet = bytes(data)
        if self._waits and not is_keyframe(self.codec, packet):
            self.skipped += 1
            return None
        if self._numbers is not None and self._numbers.miss(packet) and not self._waits:
            self._restart()
            raise InputError(_MISSING.format(codec=self.codec))
        self._count += 1
        sent = self._av.Packet(packet)
        sent.pts = sent.dts = self._count
        try:
            frames = self._context.decode(sent)
        except self._av.error.FFmpegError as error:
            self._restart()
            raise InputError(
                f"a packet of the {self.codec} stream cannot be decoded ({error.strerror}; at most "
                f"{self._max_pixels / 1e6:g} million pixels are): the next keyframe is waited for"
            ) from error
        if not frames:
            return None
        self._waits = False
        frame = frames[-1]
        if frame.pts != self._count or frame.pict_type == self._av.video.frame.PictureType.B:
            self._restart()
            raise InputError(
                f"the {self.codec} stream has B-frames, whose pictures come late and in another "
                "order: set its encoder to low latency (x264: tune zerolatency, or bframes 0)"
            )
        if frame.is_corrupt:
            self._restart()
            raise InputError(_MISSING.format(codec=self.codec))
        rgb_hwc: np.ndarray = frame.to_ndarray(format="rgb24")
        return rgb_hwc

    def _restart(self) -> None:
        """Forget the pictures, but not the parameters: many streams send those once."""
        self._context.flush_buffers()
        self._waits = True
        if self._numbers is not None:
            self._numbers.restart()


def is_keyframe(codec: str, packet: bytes) -> bool:
    """Whether a decoder can start at this packet, as far as its headers say."""
    if codec == "h264":
        return any(kind in _H264_STARTS for _, kind, _ in units(packet))
    if codec == "hevc":
        return any(match[1][0] >> 1 & 63 in _HEVC_STARTS for match in _NAL.finditer(packet))
    # VP9's frame header: marker, profile, a bit for "show an earlier one", a bit for "no key".
    shift = 1 if packet[:1] and packet[0] & 0x30 == 0x30 else 0
    return bool(packet) and not packet[0] << shift & 0x0C


def _pyav(codec: str) -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise InputError(
            f"the images are a {codec} stream, which needs PyAV: pip install "
            "'dense_perception[video]', or let the driver publish jpeg, png or raw images"
        ) from error
    if codec not in av.codecs_available:
        raise InputError(
            f"PyAV {av.__version__} was built without {codec}: let the driver publish h264, jpeg, "
            "png or raw images"
        )
    module: ModuleType = av
    return module
