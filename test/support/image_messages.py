"""Gray images in every encoding, made by hand: what they look like is known without a decoder."""

from __future__ import annotations

import array

import numpy as np
from sensor_msgs.msg import Image

from test.support.ros_probe import header

_BYTES_PER_PIXEL = {
    **dict.fromkeys(["rgb8", "bgr8", "8UC3"], 3),
    **dict.fromkeys(["rgba8", "bgra8", "8UC4"], 4),
    **dict.fromkeys(["mono8", "8UC1"], 1),
    **dict.fromkeys([f"bayer_{order}8" for order in ("rggb", "bggr", "gbrg", "grbg")], 1),
}
_SAMPLES_OF_16_BITS = {
    **dict.fromkeys(["rgb16", "bgr16"], 3),
    **dict.fromkeys(["rgba16", "bgra16"], 4),
    **dict.fromkeys(
        ["mono16", *(f"bayer_{order}16" for order in ("rggb", "bggr", "gbrg", "grbg"))], 1
    ),
}


def gray_image(encoding: str, level: int, seconds: int, width: int = 64, height: int = 48) -> Image:
    """A picture that is uniformly gray of ``level``, with rows padded by four bytes of noise."""
    if encoding in _BYTES_PER_PIXEL:
        rows = np.full((height, width * _BYTES_PER_PIXEL[encoding]), level, np.uint8)
    elif encoding in _SAMPLES_OF_16_BITS:
        samples = width * _SAMPLES_OF_16_BITS[encoding]
        rows = np.full((height, samples), level << 8, ">u2").view(np.uint8)
    elif encoding in ("yuv422", "uyvy", "yuv422_yuy2", "yuyv"):
        # Gray has neutral chroma; luma has the limited range of BT.601: 16 to 235.
        luma, chroma = _luma(level), 128
        pair = [chroma, luma] if encoding in ("yuv422", "uyvy") else [luma, chroma]
        rows = np.tile(np.array(pair, np.uint8), (height, width))
    elif encoding in ("nv12", "nv21"):
        rows = np.full((height * 3 // 2, width), 128, np.uint8)
        rows[:height] = _luma(level)
    else:
        raise AssertionError(f"no gray image of {encoding} is known here")
    padded = np.random.default_rng(0).integers(0, 256, (len(rows), rows.shape[1] + 4), np.uint8)
    padded[:, :-4] = rows
    return Image(
        header=header(seconds),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=1 if encoding.endswith("16") else 0,
        step=padded.shape[1],
        data=array.array("B", padded.tobytes()),
    )


def _luma(level: int) -> int:
    return round(16 + 219 * level / 255)
