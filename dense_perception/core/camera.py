"""What a camera gives: an image, and the pinhole intrinsics that follow it through every resize.

The functions on ``info`` take any object with the fields of ``sensor_msgs/CameraInfo``: from rclpy,
from a bag, or from a test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from dense_perception.core.errors import InputError

_FIELDS_OF_VIEW_DEG = (1.0, 170.0)
_DOUBTED_BEYOND_DEG = (5.0, 170.0)
_MOST_SKEWED = 2.0  # fx to fy
_SAME_MATRIX = 0.01  # of the focal length, and of the image's sides


# ROS's names first, then what drivers also call them.
_POLYNOMIAL_MODELS = ("plumb_bob", "rational_polynomial")
_FISHEYE_MODELS = ("equidistant", "fisheye")
_COEFFICIENTS = {False: (4, 5, 8, 12, 14), True: (4,)}


@dataclass(frozen=True, slots=True)
class Lens:
    """How a lens bends rays before they meet the sensor; the same for every size of the image.

    ``coefficients`` are OpenCV's, in its order: k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 of
    the (rational) polynomial model, or k1 to k4 of its fisheye model. What is not there is zero.
    """

    is_fisheye: bool
    coefficients: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Intrinsics:
    """Intrinsics of one image size, in pixels, in the optical frame (REP 103).

    z points forward, x right, y down. Pixel centres lie on integer coordinates, the convention of
    OpenCV and ``sensor_msgs/CameraInfo``. Without a ``lens`` the camera is a pinhole.

    :raises InputError: for a size below one pixel, a focal length that is not positive and finite,
        or a principal point that is not finite.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    lens: Lens | None = None

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise InputError(
                f"intrinsics are for an image of {self.width}x{self.height} pixels, expected at "
                "least 1x1: set width and height of the calibration"
            )
        for name, value in (("fx", self.fx), ("fy", self.fy)):
            if not (math.isfinite(value) and value > 0):
                raise InputError(
                    f"{name} is {value}, expected a positive number of pixels: calibrate the "
                    "camera or leave the calibration out and give a field of view"
                )
        if not (math.isfinite(self.cx) and math.isfinite(self.cy)):
            raise InputError(
                f"the principal point is ({self.cx}, {self.cy}), expected finite pixels: "
                "calibrate the camera"
            )

    @classmethod
    def from_fov(cls, width: int, height: int, horizontal_fov_deg: float) -> Intrinsics:
        """Square pixels, centred principal point, the given horizontal field of view in degrees."""
        if not 1.0 <= horizontal_fov_deg <= 170.0:
            raise InputError(
                f"horizontal field of view is {horizontal_fov_deg} degrees, expected 1 to 170"
            )
        focal = 0.5 * width / math.tan(math.radians(horizontal_fov_deg) / 2)
        return cls(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)

    @classmethod
    def from_matrix(cls, width: int, height: int, k: Sequence[float] | np.ndarray) -> Intrinsics:
        """From a row-major 3x3 camera matrix K, or the 3x4 projection matrix P."""
        flat = np.asarray(k, dtype=np.float64).reshape(-1)
        if flat.size not in (9, 12):
            raise InputError(f"camera matrix has {flat.size} numbers, expected 9 (K) or 12 (P)")
        row = 3 if flat.size == 9 else 4
        return cls(
            width,
            height,
            float(flat[0]),
            float(flat[row + 1]),
            float(flat[2]),
            float(flat[row + 2]),
        )

    @property
    def horizontal_fov_deg(self) -> float:
        return math.degrees(2 * math.atan(0.5 * self.width / self.fx))

    @property
    def mean_focal_px(self) -> float:
        """Geometric mean of fx and fy in pixels: what a focal-aware network is told."""
        return math.sqrt(self.fx * self.fy)

    def matrix(self) -> np.ndarray:
        """K as a 3x3 float64 array."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], np.float64)

    def resized(self, width: int, height: int) -> Intrinsics:
        """The same camera after its whole image was resized to ``width`` x ``height``.

        The half-pixel shift makes it exact for OpenCV's and PyTorch's ``align_corners=False``
        resize: pixel centre u goes to (u + 0.5) * scale - 0.5.
        """
        sx, sy = width / self.width, height / self.height
        return Intrinsics(
            width,
            height,
            self.fx * sx,
            self.fy * sy,
            (self.cx + 0.5) * sx - 0.5,
            (self.cy + 0.5) * sy - 0.5,
            self.lens,
        )

    def cropped(self, left: int, top: int, width: int, height: int) -> Intrinsics:
        """The same camera after cutting out a rectangle; padding is a negative ``left``/``top``."""
        return replace(self, width=width, height=height, cx=self.cx - left, cy=self.cy - top)


class RegionOfInterest(Protocol):
    """``sensor_msgs/RegionOfInterest``: full-resolution pixels, all zero for the whole image."""

    x_offset: int
    y_offset: int
    height: int
    width: int


class CameraInfoMessage(Protocol):
    """``sensor_msgs/CameraInfo``, from a subscription or a bag: matrices flat, row by row."""

    height: int
    width: int
    distortion_model: str
    d: Sequence[float]
    k: Sequence[float]
    r: Sequence[float]
    p: Sequence[float]
    binning_x: int
    binning_y: int
    roi: RegionOfInterest


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
    def of(cls, info: CameraInfoMessage) -> _Window:
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
    info: CameraInfoMessage, width: int, height: int, *, rectified: bool = False
) -> Intrinsics:
    """Intrinsics of the image of ``width`` x ``height`` pixels that ``info`` comes with.

    Takes K and the lens (where :func:`lens_of` knows it), or P for a rectified image; honours
    region of interest and binning. An image that was resized since, keeping its shape, is accepted
    and the intrinsics are scaled with it.

    :raises InputError: if the calibration is empty (zero focal length or size), holds NaN or
        infinity in K, R or P, is no camera's (a field of view below 1 or above 170 degrees) or
        belongs to an image of another shape.
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
            f"{width}x{height}, which has another shape: give the calibration of this very "
            "camera, and crop both the same way"
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
    for name, matrix in (("K", info.k), ("R", info.r), ("P", info.p)):
        values = np.asarray(matrix, np.float64)
        if not np.isfinite(values).all():  # also in the one that is not used: it is published on
            raise InputError(
                f"{name} of camera_info is not usable: it is {values.tolist()}, expected finite "
                "numbers: calibrate the camera again"
            )
    if not rectified:
        with suppress(InputError):  # calibration_doubt says so; the depths are still right
            sensor = replace(sensor, lens=lens_of(info))
    return sensor.cropped(window.left, window.top, window.width, window.height).resized(
        width, height
    )


def lens_of(info: CameraInfoMessage) -> Lens | None:
    """The distortion of an image that is not rectified; ``None`` where there is none.

    :raises InputError: if the model or its number of coefficients is not known.
    """
    model, d = str(info.distortion_model).strip().lower(), np.asarray(info.d, np.float64)
    is_fisheye = model in _FISHEYE_MODELS
    if not is_fisheye and not np.any(d):
        return None
    if not is_fisheye and model not in _POLYNOMIAL_MODELS:
        known = ", ".join((*_POLYNOMIAL_MODELS, *_FISHEYE_MODELS[:1]))
        raise InputError(f"the distortion model is {model or 'empty'!r}, expected {known}")
    if d.size == 0:
        d = np.zeros(4)  # still no pinhole: a fisheye's radius is f times the angle
    if d.size not in _COEFFICIENTS[is_fisheye] or not np.isfinite(d).all():
        counts = " or ".join(str(count) for count in _COEFFICIENTS[is_fisheye])
        raise InputError(f"D is {d.tolist()} for {model}, expected {counts} finite numbers")
    if np.any(d[12:]):
        raise InputError(f"D tilts the sensor by {d[12:].tolist()}, expected zeros")
    return Lens(is_fisheye, tuple(d[:12].tolist()))


def camera_doubt(camera: Intrinsics) -> str:
    """Why no camera of that image can have these intrinsics, and the cure; often empty.

    Not even a zoom on a robot sees less than some degrees.
    """
    fx, fy, cx, cy = camera.fx, camera.fy, camera.cx, camera.cy
    size = f"{camera.width}x{camera.height}"
    low, high = _DOUBTED_BEYOND_DEG
    if not low <= camera.horizontal_fov_deg <= high:
        return (
            f"fx is {fx:.4g} for {size} pixels, a field of view of {camera.horizontal_fov_deg:.3g} "
            f"degrees, expected {low:g} to {high:g}, and metres scale with it: give the focal "
            "length in pixels of this image, neither normalised nor in millimetres"
        )
    if max(fx, fy) > _MOST_SKEWED * min(fx, fy):
        return (
            f"fx is {fx:.4g} and fy {fy:.4g}, over {_MOST_SKEWED:g} times apart, though pixels are "
            "nearly square: check that both are of this image, and in the right places"
        )
    if not (0 <= cx < camera.width and 0 <= cy < camera.height):
        return (
            f"the principal point ({cx:.4g}, {cy:.4g}) lies outside of the image of {size}: check "
            "that the calibration is of this size, and move it with what was cropped"
        )
    return ""


def calibration_doubt(
    info: CameraInfoMessage, matrix: str = "auto", setting: str = "camera_matrix"
) -> str:
    """Why rays by ``info`` may be wrong though its matrix is usable, and the cure; often empty.

    ``matrix``: ``P`` if that is used, ``K`` if somebody chose K, ``auto`` if nobody did.
    ``setting`` is where that is chosen: a node's parameter, or the option of a command.
    """
    with suppress(InputError):  # which is said where it is used
        used = Intrinsics.from_matrix(info.width, info.height, info.p if matrix == "P" else info.k)
        if doubt := camera_doubt(used):
            return f"{'P' if matrix == 'P' else 'K'} of camera_info: {doubt}"
    if matrix == "P":
        return ""
    cure = "feed rectified images (image_proc, image_rect)"
    try:
        lens = lens_of(info)
    except InputError as error:
        return f"{error}: points are placed as if the image had no distortion; {cure}"
    k, p = np.asarray(info.k, np.float64), np.asarray(info.p, np.float64)
    if matrix == "K" or lens is not None or min(p[0], p[5], k[0], k[4]) <= 0:
        return ""
    size = np.array([info.width, info.height])
    focal = np.abs(p[[0, 5]] / k[[0, 4]] - 1)
    centre = np.abs(p[[2, 6]] - k[[2, 5]]) / size
    if max(focal.max(), centre.max()) <= _SAME_MATRIX:
        return ""
    return (
        f"K (fx {k[0]:.4g}) and P (fx {p[0]:.4g}) differ though D is zero, and points use K: set "
        f"{setting} to P if the images are rectified, or to K if they are not"
    )


def calibration_for_output(
    info: CameraInfoMessage | None, intrinsics: Intrinsics
) -> CalibrationFields:
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


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """An RGB image, when and where it was taken, and with which camera.

    ``rgb_hwc``: HxWx3 ``uint8`` RGB. ``stamp_ns``: nanoseconds, passed through untouched.
    ``frame_id``: the optical frame's name, passed through untouched. ``intrinsics``: of this very
    image size, or ``None`` where the camera is not calibrated.

    :raises InputError: if the array is not HxWx3 uint8, is empty, or the intrinsics are of another
        size.
    """

    rgb_hwc: np.ndarray
    stamp_ns: int = 0
    frame_id: str = ""
    intrinsics: Intrinsics | None = None

    def __post_init__(self) -> None:
        image = self.rgb_hwc
        if not isinstance(image, np.ndarray):
            raise InputError(f"the image is a {type(image).__name__}, expected a NumPy array")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise InputError(
                f"the image is {image.dtype} of shape {image.shape}, expected uint8 of shape "
                "(height, width, 3) in RGB order: convert it first"
            )
        if image.shape[0] == 0 or image.shape[1] == 0:
            raise InputError(f"the image has shape {image.shape}, expected at least one pixel")
        k = self.intrinsics
        if k is not None and (k.width, k.height) != (image.shape[1], image.shape[0]):
            raise InputError(
                f"intrinsics are for {k.width}x{k.height}, the image is "
                f"{image.shape[1]}x{image.shape[0]}: scale them with Intrinsics.resized"
            )

    @property
    def width(self) -> int:
        return int(self.rgb_hwc.shape[1])

    @property
    def height(self) -> int:
        return int(self.rgb_hwc.shape[0])
