"""Views of a frame: crops, mirror images and camera roll, with exact intrinsics.

:mod:`dense_perception.training.device_views` cuts the same ones in batches on a GPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.data.sample import Sample
from dense_perception.imaging.resize import resample


@dataclass(frozen=True, slots=True)
class View:
    """A frame at network size: RGB uint8 (H, W, 3), planar metres float32 (H, W), intrinsics."""

    rgb_hwc: np.ndarray
    depth_m: np.ndarray
    intrinsics: Intrinsics


@dataclass(frozen=True, slots=True)
class Crop:
    """Which part of the source becomes the view.

    Centre and size are in square source pixels (the pixel height is fx / fy); ``roll_rad`` turns
    the camera clockwise about its optical axis, which leaves planar depth as it is.
    """

    centre_x: float
    centre_y: float
    width: float
    height: float
    roll_rad: float = 0.0
    mirror: bool = False


def whole_crop(sample: Sample) -> Crop:
    """All of the image."""
    square = sample.intrinsics.fx / sample.intrinsics.fy
    source_h, source_w = sample.depth_m.shape
    return Crop(source_w / 2, source_h * square / 2, source_w, source_h * square)


def whole_view(sample: Sample, width: int, height: int) -> View:
    """The whole image stretched to ``width`` x ``height``, as the network is used."""
    rgb_hwc = resample(sample.rgb_hwc, width, height)
    view = cut(sample, whole_crop(sample), width, height)
    return View(rgb_hwc, view.depth_m, view.intrinsics)


def cut(sample: Sample, crop: Crop, width: int, height: int) -> View:
    """Resample ``crop`` to ``width`` x ``height``.

    Colours are averaged over 2x2 sub-pixels; depth is taken from the nearest source pixel, since
    an average over an edge would be a depth that is nowhere in the scene.
    """
    double = affine(sample.intrinsics, crop, 2 * width, 2 * height)
    fine = cv2.warpAffine(
        sample.rgb_hwc,
        double,
        (2 * width, 2 * height),
        flags=cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    depth_m = cut_nearest(sample.depth_m.astype(np.float32), sample.intrinsics, crop, width, height)
    rgb_hwc = resample(fine, width, height)
    return View(rgb_hwc, depth_m, view_intrinsics(sample.intrinsics, crop, width, height))


def cut_nearest(
    source: np.ndarray, camera: Intrinsics, crop: Crop, width: int, height: int
) -> np.ndarray:
    """Resample a map of the source's size to ``width`` x ``height`` by the nearest pixel."""
    return cv2.warpAffine(
        source,
        affine(camera, crop, width, height),
        (width, height),
        flags=cv2.WARP_INVERSE_MAP | cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_REPLICATE,
    )


def cut_normals(
    normals_hwc: np.ndarray, camera: Intrinsics, crop: Crop, width: int, height: int
) -> np.ndarray:
    """As :func:`cut_nearest`, the vectors turned and mirrored with the camera."""
    return cut_nearest(normals_hwc, camera, crop, width, height) @ turn(crop).T


def turn(crop: Crop) -> np.ndarray:
    """3x3 float32: vectors of the source's camera in the axes of the view's."""
    cos, sin = math.cos(crop.roll_rad), math.sin(crop.roll_rad)
    hand = -1.0 if crop.mirror else 1.0
    return np.array([[hand * cos, hand * sin, 0], [-sin, cos, 0], [0, 0, 1]], np.float32)


def affine(camera: Intrinsics, crop: Crop, width: int, height: int) -> np.ndarray:
    """2x3 matrix from view pixels to source pixels, both with centres on integers."""
    square = camera.fx / camera.fy
    step_x = crop.width / width * (-1 if crop.mirror else 1)
    step_y = crop.height / height
    cos, sin = math.cos(crop.roll_rad), math.sin(crop.roll_rad)
    linear = np.array([[cos * step_x, -sin * step_y], [sin * step_x, cos * step_y]])
    centre = np.array([crop.centre_x, crop.centre_y])
    offset = centre - linear @ np.array([width / 2 - 0.5, height / 2 - 0.5])
    matrix = np.column_stack([linear, offset])
    matrix[1] /= square
    matrix[:, 2] -= 0.5
    return matrix


def view_intrinsics(camera: Intrinsics, crop: Crop, width: int, height: int) -> Intrinsics:
    """The camera of ``crop`` resampled to ``width`` x ``height``."""
    to_source = affine(camera, crop, width, height)
    principal = np.linalg.solve(
        to_source[:, :2], np.array([camera.cx, camera.cy]) - to_source[:, 2]
    )
    return Intrinsics(
        width,
        height,
        camera.fx * width / crop.width,
        camera.fx * height / crop.height,
        float(principal[0]),
        float(principal[1]),
    )
