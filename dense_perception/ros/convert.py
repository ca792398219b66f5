"""Image messages to RGB, depth and clouds to messages: no cv_bridge needed, NumPy 1 and 2."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header

from dense_perception.core.camera import Intrinsics, calibration_for_output
from dense_perception.core.errors import InputError
from dense_perception.imaging.encode import encode_compressed_depth, encode_jpeg, encode_png
from dense_perception.imaging.encodings import DEPTH_ENCODINGS, IMAGE_ENCODINGS
from dense_perception.imaging.messages import ImageReader, is_compressed
from dense_perception.imaging.points import write_points
from dense_perception.ros.decoder_output import DecoderOutput

_decoder_output = DecoderOutput()
_BIG_ENDIAN_MACHINE = sys.byteorder == "big"
_MAX_UINT16 = 65535
# Of the encodings that are published: channels and type.
_LAYOUTS = {
    "rgb8": (3, np.uint8),
    "mono8": (1, np.uint8),
    "mono16": (1, np.uint16),
    "16UC1": (1, np.uint16),
    "32FC1": (1, np.float32),
}
_LINKED_OPENCV = re.compile(rb"libopencv_core\.so\.(\d)")
_PROBE = """
from cv_bridge import CvBridge
from sensor_msgs.msg import Image
image = Image(height=1, width=1, step=3, encoding="bgr8", data=bytes(3))
assert CvBridge().imgmsg_to_cv2(image, "rgb8").shape == (1, 1, 3)
"""


def rgb_from_message(
    message: Image | CompressedImage, reader: ImageReader | None = None
) -> np.ndarray | None:
    """The picture as HxWx3 ``uint8`` RGB; for ``rgb8`` a view of the message's data.

    ``None`` for a packet of a video that gives no picture.

    Encodings this package does not know go to cv_bridge where a ROS machine has it.

    :raises InputError: if it is damaged, too large, its fields contradict each other or nothing
        knows the encoding.
    """
    if not is_compressed(message):
        known = message.encoding in IMAGE_ENCODINGS or message.encoding in DEPTH_ENCODINGS
        if not known and (bridge := image_bridge()) is not None:
            return _bridged(bridge, message)
        return (reader or ImageReader()).rgb(message)
    with _decoder_output.caught():
        return (reader or ImageReader()).rgb(message)


@cache
def image_bridge() -> Any:
    """A ``CvBridge``, or ``None`` where there is none or it does not work.

    A cv_bridge that was built against NumPy 1 ends the process when NumPy 2 calls it, so it is
    tried in another process first.
    """
    if find_spec("cv_bridge") is None:
        return None
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE], capture_output=True, timeout=30, check=False
        )
        if probe.returncode != 0:
            return None
        from cv_bridge import CvBridge

        return CvBridge()
    except Exception:
        return None


def cv_bridge_doubt() -> str | None:
    """Why cv_bridge fails beside this Python's OpenCV, with the cure; ``None`` if nothing is wrong.

    OpenCV 5 numbers its pixel types anew (``CV_8UC3`` is 64, before 16), and cv_bridge hands such
    numbers from its compiled part, which ROS 2 built for one OpenCV, to ``cv2``.
    """
    spec = find_spec("cv_bridge")
    for folder in (spec and spec.submodule_search_locations) or ():
        for library in Path(folder).rglob("*.so"):
            linked = _LINKED_OPENCV.search(library.read_bytes())
            if linked is None:
                continue
            built, here = int(linked[1]), int(cv2.__version__.split(".")[0])
            if built == here or max(built, here) < 5:
                return None
            cure = "<5" if built < 5 else f">={built}"
            return (
                f"cv_bridge was built for OpenCV {built} and fails with {cv2.__version__} of "
                f"{Path(cv2.__file__).parent}. This node does without it, others in this "
                f"environment do not: pip install 'opencv-python-headless{cure}'"
            )
    return None


def depth_message(depth_m: np.ndarray, header: Header, encoding: str = "32FC1") -> Image:
    """HxW ``float32`` metres with NaN as REP 118 wants it.

    ``32FC1``: the same numbers. ``16UC1``: millimetres; invalid pixels and those beyond 65.535 m,
    which the format cannot hold, become 0.
    """
    if encoding == "32FC1":
        return image_message(depth_m, header, encoding)
    if encoding == "16UC1":
        return image_message(_millimetres(depth_m), header, encoding)
    raise InputError(f"depth encoding is {encoding!r}, expected 32FC1 or 16UC1")


def image_message(pixels: np.ndarray, header: Header, encoding: str) -> Image:
    """Any HxW or HxWxC array as a message in the machine's byte order, without row padding."""
    height, width = pixels.shape[:2]
    message = Image(
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=_BIG_ENDIAN_MACHINE,
        step=width * pixels.itemsize * (pixels.shape[2] if pixels.ndim == 3 else 1),
    )
    _fill(message, pixels)
    return message


def compressed_message(message: Image, packing: str, jpeg_quality: int = 80) -> CompressedImage:
    """An image as image_transport's plug-ins send it, decodable by those and by this package.

    ``jpeg`` and ``png``: of an 8 or 16 bit image, as compressed_image_transport. ``depth``: of
    32FC1 or 16UC1, as compressed_depth_image_transport, its PNG form.
    """
    pixels = _pixels(message)
    if packing == "depth":
        form, data = "compressedDepth png", encode_compressed_depth(pixels)
    else:
        is_rgb = pixels.ndim == 3
        target = "bgr8" if is_rgb else "mono8" if packing == "jpeg" else ""
        form = f"{packing} compressed {target}"
        data = encode_jpeg(pixels, jpeg_quality) if packing == "jpeg" else encode_png(pixels)
    packed = CompressedImage(header=message.header, format=f"{message.encoding}; {form}")
    packed.data.frombytes(data)
    return packed


def _pixels(message: Image) -> np.ndarray:
    """The array that :func:`image_message` was given, as a view of the message."""
    channels, dtype = _LAYOUTS[message.encoding]
    shape = (message.height, message.width, channels)[: 3 if channels > 1 else 2]
    return np.frombuffer(message.data, dtype).reshape(shape)


def camera_info_message(
    info: CameraInfo | None, intrinsics: Intrinsics, header: Header
) -> CameraInfo:
    """``camera_info`` of an output of the size of ``intrinsics``; ``info`` is the input's, if any.

    See :func:`~dense_perception.core.camera.calibration_for_output`.
    """
    fields = calibration_for_output(info, intrinsics)
    return CameraInfo(
        header=header,
        width=fields.width,
        height=fields.height,
        distortion_model=fields.distortion_model,
        d=fields.d.tolist(),
        k=fields.k,
        r=fields.r,
        p=fields.p,
    )


class CloudWriter:
    """Makes organised clouds in one message that is used again: filling it is then one pass.

    A message is valid until the next one is made, which is enough for ``publish``.
    """

    def __init__(self) -> None:
        self._message = PointCloud2()
        self._names: tuple[str, ...] = ()
        self._values = np.empty((0, 0, 0), np.float32)

    def cloud(
        self,
        depth_m: np.ndarray,
        intrinsics: Intrinsics,
        header: Header,
        *,
        rgb_hwc: np.ndarray | None = None,
        labels_hw: np.ndarray | None = None,
    ) -> PointCloud2:
        """Points in the optical frame (REP 103), metres, NaN where invalid.

        12 bytes each, and 4 more each for the colour (field ``rgb``) and the label (``label``,
        uint32), where these are given.
        """
        names: tuple[str, ...] = ("x", "y", "z")
        names += ("rgb",) if rgb_hwc is not None else ()
        names += ("label",) if labels_hw is not None else ()
        message = self._sized(depth_m, names, header)
        write_points(depth_m, intrinsics, self._values, rgb_hwc=rgb_hwc, labels_hw=labels_hw)
        return message

    def _sized(self, depth_m: np.ndarray, names: tuple[str, ...], header: Header) -> PointCloud2:
        height, width = depth_m.shape
        shape = (height, width, len(names))
        if self._values.shape != shape or self._names != names:
            self._names = names
            self._message = _empty_cloud(height, width, names)
            self._values = np.frombuffer(self._message.data, np.float32).reshape(shape)
        self._message.header = header
        return self._message


def _empty_cloud(height: int, width: int, names: tuple[str, ...]) -> PointCloud2:
    step = 4 * len(names)
    message = PointCloud2(
        height=height,
        width=width,
        fields=[
            PointField(
                name=name,
                offset=4 * index,
                datatype=PointField.UINT32 if name == "label" else PointField.FLOAT32,
                count=1,
            )
            for index, name in enumerate(names)
        ],
        is_bigendian=_BIG_ENDIAN_MACHINE,
        point_step=step,
        row_step=step * width,
        is_dense=False,
    )
    message.data.frombytes(bytes(height * width * step))
    return message


def _bridged(bridge: Any, message: Image) -> np.ndarray:
    try:
        return np.ascontiguousarray(bridge.imgmsg_to_cv2(message, "rgb8"))
    except Exception as error:
        raise InputError(
            f"cv_bridge cannot convert the image encoding {message.encoding!r} ({error}): set "
            f"the camera driver to one of {', '.join(IMAGE_ENCODINGS)}"
        ) from error


def _millimetres(depth_m: np.ndarray) -> np.ndarray:
    # NaN fails both comparisons, so it lands in the zeros without a cast of NaN to an integer.
    with np.errstate(invalid="ignore"):
        millimetres = np.rint(depth_m * np.float32(1000))
        fits = (millimetres > 0) & (millimetres <= _MAX_UINT16)
    return np.where(fits, millimetres, np.float32(0)).astype(np.uint16)


def _fill(message: Image, values: np.ndarray) -> None:
    """Copy into a fresh message; assigning an array to ``data`` walks it byte by byte (45 ms)."""
    flat = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    message.data.frombytes(flat.data)
