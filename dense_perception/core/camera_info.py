"""The fields of ``sensor_msgs/CameraInfo`` to intrinsics of the image at hand, and back.

Works on any object with the message's fields: from rclpy, from a bag, or from a test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import InputError

_FIELDS_OF_VIEW_DEG = (1.0, 170.0)


@dataclass(frozen=True)
class CalibrationFields:
    """What an output's CameraInfo says besides its header: float64, flat, D of any length."""

    width: int
    height: int
    distortion_model: str
    d: np.ndarray
    k: np.ndarray
    r: np.ndarray
    p: np.ndarray


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
    def of(cls, info: Any) -> _Window:
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
    info: Any, width: int, height: int, *, rectified: bool = False
) -> Intrinsics:
    """Intrinsics of the image of ``width`` x ``height`` pixels that ``info`` comes with.

    Takes K, or P for a rectified image; honours region of interest and binning. An image that was
    resized since, keeping its shape, is accepted and the intrinsics are scaled with it.

    :raises InputError: if the calibration is empty (zero or NaN focal length or size), no
        camera's (a field of view below 1 or above 170 degrees) or belongs to an image of another
        shape.
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
    low, high = _FIELDS_OF_VIEW_DEG
    if not low <= sensor.horizontal_fov_deg <= high:
        raise InputError(
            f"{name} of camera_info is not usable: fx is {sensor.fx:g} for a width of {info.width} "
            f"pixels, a field of view of {sensor.horizontal_fov_deg:.3g} degrees, expected "
            f"{low:g} to {high:g}: give {name} in pixels of the full image, not normalised"
        )
    return sensor.cropped(window.left, window.top, window.width, window.height).resized(
        width, height
    )


def calibration_for_output(info: Any | None, intrinsics: Intrinsics) -> CalibrationFields:
    """The calibration of an output image of the size of ``intrinsics``.

    K and P of ``info`` are scaled to the output with its region of interest and binning worked in;
    distortion and rectification are kept. Without ``info``: an ideal pinhole with ``intrinsics``.
    """
    k = intrinsics.matrix()
    p = np.hstack([k, np.zeros((3, 1))])
    r, d, model = np.eye(3), np.zeros(5), "plumb_bob"
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
            k = to_output @ np.asarray(info.k, np.float64).reshape(3, 3)
            p[:, :3] = k
        if info.p[0] > 0:
            p = to_output @ np.asarray(info.p, np.float64).reshape(3, 4)
        if np.any(info.r):
            r = np.asarray(info.r, np.float64)
        d, model = np.asarray(info.d, np.float64), str(info.distortion_model)
    return CalibrationFields(
        intrinsics.width,
        intrinsics.height,
        model,
        d.reshape(-1),
        k.reshape(-1),
        r.reshape(-1),
        p.reshape(-1),
    )
