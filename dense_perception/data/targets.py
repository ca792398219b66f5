"""What the further tasks are trained towards, from a picture, its depth and its intrinsics.

Everything is NumPy and OpenCV; maps are (H, W), float32 unless said otherwise.
:mod:`dense_perception.training.device_targets` computes the same in batches on a GPU.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import cv2
import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.core.instance_lists import IDS
from dense_perception.core.labels import VOID
from dense_perception.data.centres import centre_targets
from dense_perception.data.instance_rows import instance_rows, unknown_rows
from dense_perception.data.sample import Sample
from dense_perception.data.views import Crop, View, cut_nearest, cut_normals

INSTANCE_ROWS, ROW_CLASSES = "instance_rows", "instance_classes"
RADIUS = 2
# A window whose inverse depth leaves its plane by more than this share holds two surfaces.
ROUGH = 0.006
# Slopes of 5x5 windows over the sum of squares of -2..2, five times.
_ACROSS = np.arange(-RADIUS, RADIUS + 1, dtype=np.float64)
_MEAN = np.full(2 * RADIUS + 1, 1 / (2 * RADIUS + 1))
_SLOPE = _ACROSS / (_ACROSS**2).sum()
EDGE_SIGMA = 1.0
EDGE_GAIN = 2.5
CORNER_SIGMA = 1.6
# Corners of full contrast saturate; in generated rooms about a pixel in a hundred is above a half.
CORNER_GAIN = 60.0


def further_targets(
    sample: Sample, crop: Crop, view: View, tasks: Sequence[str], stuff: Collection[int] = ()
) -> dict[str, np.ndarray]:
    """The targets of ``tasks`` but depth, for ``crop`` of ``sample`` as cut to ``view``.

    ``segmentation`` (H, W) uint8, VOID for a sample without labels; ``normals`` (H, W, 3) and
    ``reshading`` (H, W) with NaN where unknown; ``edges`` and ``keypoints`` (H, W); ``instances``
    (H, W, 3) as :func:`~dense_perception.data.centres.centre_targets`, NaN for a sample whose
    things are not known. In place of the task ``instance_rows`` there are ``instance_ids`` (H, W)
    int32 and ``instance_classes`` (K,) int64 of :mod:`dense_perception.data.instance_rows`. Call it
    before the colours are augmented: what a sensor's noise adds is no edge.

    :param stuff: classes, from 1 on, that are no things.
    """
    height, width = view.depth_m.shape
    camera = sample.intrinsics
    targets: dict[str, np.ndarray] = {}
    if "segmentation" in tasks:
        if sample.labels_hw is None:
            targets["segmentation"] = np.full((height, width), VOID, np.uint8)
        else:
            labels_hw = cut_nearest(np.asarray(sample.labels_hw), camera, crop, width, height)
            targets["segmentation"] = class_targets(labels_hw)
    if "normals" in tasks or "reshading" in tasks:
        # From the whole frame: planes are fitted better to pixels that were not resampled.
        normals_hwc = normals_from_depth(sample.depth_m, camera)
        normals_hwc = cut_normals(normals_hwc, camera, crop, width, height)
        targets["normals"] = normals_hwc
        targets["reshading"] = reshading(normals_hwc, view.intrinsics)
    if "edges" in tasks:
        targets["edges"] = texture_edges(view.rgb_hwc)
    if "keypoints" in tasks:
        targets["keypoints"] = corner_strength(view.rgb_hwc)
    if "instances" in tasks:
        targets["instances"] = centres_of(sample, crop, width, height, stuff)
    found = {task: targets[task] for task in tasks if task in targets}
    return found | (rows_of(sample, crop, width, height, stuff) if INSTANCE_ROWS in tasks else {})


def rows_of(
    sample: Sample, crop: Crop, width: int, height: int, stuff: Collection[int] = ()
) -> dict[str, np.ndarray]:
    """The two targets of ``instance_rows``; see :func:`further_targets`."""
    if sample.instances_hw is None:
        ids_hw, classes_k = unknown_rows(height, width)
    else:
        cut_hw = cut_nearest(sample.instances_hw, sample.intrinsics, crop, width, height)
        ids_hw, classes_k = instance_rows(cut_hw, sample.instance_labels, stuff)
    return {IDS: ids_hw, ROW_CLASSES: classes_k}


def centres_of(
    sample: Sample, crop: Crop, width: int, height: int, stuff: Collection[int]
) -> np.ndarray:
    """The target of ``instances``, (height, width, 3) float32; see :func:`further_targets`."""
    if sample.instances_hw is None:
        return np.full((height, width, 3), np.nan, np.float32)
    instances_hw = cut_nearest(sample.instances_hw, sample.intrinsics, crop, width, height)
    return centre_targets(instances_hw, sample.instance_labels, stuff)


def normals_from_depth(depth_m: np.ndarray, camera: Intrinsics) -> np.ndarray:
    """(H, W, 3) float32 unit normals in the optical frame, towards the camera; NaN where unknown.

    The inverse depth of a plane is linear in the pixel: 1/z = a u + b v + c with normal
    K^T (a, b, c). A least-squares plane through each 5x5 window gives a, b and c. Unknown are
    windows that reach over the border, contain invalid depth (0 or NaN) or hold two surfaces.
    """
    depth = np.asarray(depth_m, np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        valid = np.isfinite(depth) & (depth > 0)
        inverse = np.where(valid, 1 / np.where(valid, depth, 1), 0).astype(np.float32)
    a = _filtered(inverse, _SLOPE, _MEAN)
    b = _filtered(inverse, _MEAN, _SLOPE)
    mean = _filtered(inverse, _MEAN, _MEAN)
    square = _filtered(inverse * inverse, _MEAN, _MEAN)
    spread = float((_ACROSS**2).mean())
    residual = square - mean * mean - (a * a + b * b) * spread
    kernel = np.ones((2 * RADIUS + 1,) * 2, np.uint8)
    whole = cv2.erode(
        valid.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0
    ).astype(bool)
    known = whole & (residual <= (ROUGH * mean) ** 2)
    height, width = depth.shape
    u = np.arange(width, dtype=np.float32)[None, :] - np.float32(camera.cx)
    v = np.arange(height, dtype=np.float32)[:, None] - np.float32(camera.cy)
    # K^T (a, b, c) of the fit's plane through the window's mean, c = mean - a u - b v, points away
    # from the camera: its product with the ray is 1/z.
    normals = np.empty((height, width, 3), np.float32)
    normals[..., 0] = np.float32(camera.fx) * a
    normals[..., 1] = np.float32(camera.fy) * b
    normals[..., 2] = mean - a * u - b * v
    length = np.sqrt(np.einsum("hwc,hwc->hw", normals, normals))
    known &= length > 0
    normals *= -np.where(known, 1 / np.where(known, length, 1), np.float32(np.nan))[..., None]
    return normals


def reshading(normals_hwc: np.ndarray, camera: Intrinsics) -> np.ndarray:
    """Lambert's cosine for a lamp at the camera: -n.r for the unit viewing ray r; NaN as in n."""
    height, width = normals_hwc.shape[:2]
    x = (np.arange(width, dtype=np.float32)[None, :] - np.float32(camera.cx)) / np.float32(
        camera.fx
    )
    y = (np.arange(height, dtype=np.float32)[:, None] - np.float32(camera.cy)) / np.float32(
        camera.fy
    )
    along = normals_hwc[..., 0] * x + normals_hwc[..., 1] * y + normals_hwc[..., 2]
    return np.clip(-along / np.sqrt(x * x + y * y + 1), 0, 1)


def texture_edges(rgb_hwc: np.ndarray) -> np.ndarray:
    """Sobel gradient magnitude of the blurred gray picture, 0 to 1: Taskonomy's 2D edges.

    Two fifths of full contrast in one step is 1. Of the picture alone: a printed line counts, an
    outline between equal grays does not.
    """
    gray = _blurred_gray(rgb_hwc, EDGE_SIGMA)
    dx = cv2.Sobel(gray, cv2.CV_32F, 1, 0, scale=0.25)
    dy = cv2.Sobel(gray, cv2.CV_32F, 0, 1, scale=0.25)
    return np.minimum(EDGE_GAIN * cv2.magnitude(dx, dy), 1)


def corner_strength(rgb_hwc: np.ndarray) -> np.ndarray:
    """Root of the determinant of the Hessian where positive, 0 to 1: 2D keypoints.

    What SURF (Bay 2006), which Taskonomy takes, approximates with boxes, at one scale. Strong at
    corners and blobs, nothing along straight edges.
    """
    gray = _blurred_gray(rgb_hwc, CORNER_SIGMA)
    xx = cv2.Sobel(gray, cv2.CV_32F, 2, 0, scale=0.25)
    yy = cv2.Sobel(gray, cv2.CV_32F, 0, 2, scale=0.25)
    xy = cv2.Sobel(gray, cv2.CV_32F, 1, 1, scale=0.25)
    return np.minimum(CORNER_GAIN * np.sqrt(np.maximum(xx * yy - xy * xy, 0)), 1)


def class_targets(labels_hw: np.ndarray) -> np.ndarray:
    """A corpus's labels (0 is none) as the network counts them: from 0, VOID for none; uint8."""
    return np.where(labels_hw == 0, VOID, labels_hw - 1).astype(np.uint8)


def _filtered(values: np.ndarray, along_x: np.ndarray, along_y: np.ndarray) -> np.ndarray:
    return cv2.sepFilter2D(values, cv2.CV_32F, along_x, along_y, borderType=cv2.BORDER_REPLICATE)


def _blurred_gray(rgb_hwc: np.ndarray, sigma: float) -> np.ndarray:
    gray = cv2.cvtColor(rgb_hwc, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    return cv2.GaussianBlur(gray, (0, 0), sigma)
