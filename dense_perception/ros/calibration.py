"""``sensor_msgs/CameraInfo`` to intrinsics of the image at hand, and back for the outputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sensor_msgs.msg import CameraInfo, RegionOfInterest
from std_msgs.msg import Header

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import InputError


@dataclass(frozen=True)
class _Window:
    """The part of the sensor, in full-resolution pixels, that an image shows."""

    left: int
    top: int
    width: int
    height: int
    binning_x: int
    binning_y: int

    @classmethod
    def of(cls, info: CameraInfo) -> _Window:
        roi = info.roi
        whole = roi.width == 0 or roi.height == 0
        return cls(
            0 if whole else roi.x_offset,
            0 if whole else roi.y_offset,
            info.width if whole else roi.width,
            info.height if whole else roi.height,
            max(1, info.binning_x),
            max(1, info.binning_y),
        )


def intrinsics_from_info(
    info: CameraInfo, width: int, height: int, *, rectified: bool = False
) -> Intrinsics:
    """Intrinsics of the image of ``width`` x ``height`` pixels that ``info`` comes with.

    Takes K, or P for a rectified image; honours region of interest and binning. An image that was
    resized since, keeping its shape, is accepted and the intrinsics are scaled with it.

    :raises InputError: if the calibration is empty (zero or NaN focal length or size) or belongs
        to an image of another shape.
    """
    if info.width == 0 or info.height == 0:
        raise InputError(
            f"camera_info is for an image of {info.width}x{info.height} pixels, the image is "
            f"{width}x{height}: set width and height in the calibration file"
        )
    window = _Window.of(info)
    shown_width = window.width / window.binning_x
    shown_height = window.height / window.binning_y
    # Drivers round odd sides up or down, so a side may be off by a pixel.
    if abs(width / shown_width * shown_height - height) > 1 + height / shown_height:
        raise InputError(
            f"camera_info is for an image of {shown_width:g}x{shown_height:g} pixels, the image is "
            f"{width}x{height}, which has another shape: remap camera_info to the topic of this "
            "image, or republish it cropped the same way"
        )
    name, matrix = ("P", info.p) if rectified else ("K", info.k)
    try:
        sensor = Intrinsics.from_matrix(info.width, info.height, np.asarray(matrix, np.float64))
    except InputError as error:
        raise InputError(f"{name} of camera_info is not usable: {error}") from error
    return sensor.cropped(window.left, window.top, window.width, window.height).resized(
        width, height
    )


def info_for_output(info: CameraInfo | None, intrinsics: Intrinsics, header: Header) -> CameraInfo:
    """``camera_info`` for an output image of the size of ``intrinsics``, with exactly ``header``.

    Where the camera is calibrated its K and P are scaled to the output, its region of interest and
    binning are worked into them, and its distortion and rectification are kept. Without ``info``
    an ideal pinhole camera with ``intrinsics`` is described.
    """
    output = CameraInfo(
        header=header,
        width=intrinsics.width,
        height=intrinsics.height,
        roi=RegionOfInterest(),
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        r=_IDENTITY,
    )
    matrix = intrinsics.matrix()
    projection = np.hstack([matrix, np.zeros((3, 1))])
    if info is not None:
        window = _Window.of(info)
        scale_x, scale_y = intrinsics.width / window.width, intrinsics.height / window.height
        # Pixel centres are whole numbers: u goes to (u - left + 0.5) * scale - 0.5.
        to_output = np.array(
            [
                [scale_x, 0, (0.5 - window.left) * scale_x - 0.5],
                [0, scale_y, (0.5 - window.top) * scale_y - 0.5],
                [0, 0, 1],
            ]
        )
        if info.k[0] > 0:
            matrix = to_output @ np.asarray(info.k, np.float64).reshape(3, 3)
            projection[:, :3] = matrix
        if info.p[0] > 0:
            projection = to_output @ np.asarray(info.p, np.float64).reshape(3, 4)
        if any(info.r):
            output.r = info.r
        output.d = info.d
        output.distortion_model = info.distortion_model
    output.k = matrix.reshape(-1)
    output.p = projection.reshape(-1)
    return output


_IDENTITY = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
