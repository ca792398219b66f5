"""Pinhole intrinsics that travel with the image through every resize and crop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dense_perception.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Intrinsics:
    """Pinhole intrinsics of one image size, in pixels, in the optical frame (REP 103).

    z points forward, x right, y down. Pixel centres lie on integer coordinates, the convention of
    OpenCV and ``sensor_msgs/CameraInfo``.

    :raises InputError: for a size below one pixel, a focal length that is not positive and finite,
        or a principal point that is not finite.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

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
        )

    def cropped(self, left: int, top: int, width: int, height: int) -> Intrinsics:
        """The same camera after cutting out a rectangle; padding is a negative ``left``/``top``."""
        return Intrinsics(width, height, self.fx, self.fy, self.cx - left, self.cy - top)
