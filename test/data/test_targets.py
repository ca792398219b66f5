"""Targets of the further tasks on scenes that are known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from dense_perception.core.camera import Intrinsics
from dense_perception.core.labels import LABEL_SETS, VOID
from dense_perception.data.sample import Sample
from dense_perception.data.targets import (
    class_targets,
    corner_strength,
    further_targets,
    normals_from_depth,
    reshading,
    texture_edges,
)
from dense_perception.data.views import Crop, cut, whole_crop
from dense_perception.synthetic.taxonomy import CLASSES

CAMERA = Intrinsics(96, 72, 80.0, 90.0, 40.0, 33.0)


def plane(normal: tuple[float, float, float], distance: float, camera: Intrinsics) -> np.ndarray:
    """Planar depth of {X: n.X = -distance}, one pixel after another."""
    depth = np.zeros((camera.height, camera.width))
    for v in range(camera.height):
        for u in range(camera.width):
            ray = ((u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, 1.0)
            along = sum(n * r for n, r in zip(normal, ray, strict=True))
            depth[v, u] = -distance / along if along < -1e-3 else 0
    return depth


def unit(*vector: float) -> np.ndarray:
    return np.array(vector) / np.linalg.norm(vector)


@pytest.mark.parametrize("normal", [(0, 0, -1), (0.3, -0.2, -1), (-0.6, 0.1, -0.7), (0, -1, -0.4)])
def test_normals_of_a_plane(normal: tuple[float, float, float]) -> None:
    want = unit(*normal)
    depth = plane(tuple(want), 2.0, CAMERA).astype(np.float16)
    got = normals_from_depth(np.where(depth < 30, depth, 0), CAMERA)
    known = np.isfinite(got[..., 0])
    assert known.mean() > 0.3
    np.testing.assert_allclose(np.linalg.norm(got[known], axis=1), 1, atol=1e-5)
    angles = np.degrees(np.arccos(np.clip(got[known] @ want, -1, 1)))
    assert np.median(angles) < 1.0
    assert np.percentile(angles, 99) < 5.0


def test_normals_point_at_the_camera_and_are_unknown_across_an_edge_and_a_hole() -> None:
    depth = np.full((72, 96), 2.0)
    depth[:, 48:] = 3.0
    depth[30, 20] = 0
    got = normals_from_depth(depth, CAMERA)
    unknown = np.isnan(got[..., 0])
    assert unknown[:, 46:50].all()
    assert unknown[28:33, 18:23].all()
    assert not unknown[4:60, 55:90].any()
    np.testing.assert_allclose(got[10, 60], (0, 0, -1), atol=1e-4)


def test_reshading_is_the_cosine_at_a_lamp_in_the_camera() -> None:
    normals = np.broadcast_to(np.float32([0, 0, -1]), (72, 96, 3)).copy()
    normals[0, 0] = np.nan
    got = reshading(normals, CAMERA)
    for v, u in ((33, 40), (5, 90), (71, 0)):
        ray = unit((u - 40) / 80, (v - 33) / 90, 1)
        assert got[v, u] == pytest.approx(ray[2], abs=1e-5)
    assert np.isnan(got[0, 0])


@pytest.mark.parametrize("mirror", [False, True])
def test_normals_turn_with_the_camera(mirror: bool) -> None:
    """Cutting the whole frame's normals equals measuring them in the cut depth."""
    want = unit(0.4, -0.3, -1)
    sample = Sample(np.zeros((72, 96, 3), np.uint8), plane(tuple(want), 2.0, CAMERA), CAMERA)
    crop = Crop(48.0, 72 * 80 / 90 / 2, 60.0, 40.0, 0.25, mirror)
    view = cut(sample, crop, 64, 48)
    got = further_targets(sample, crop, view, ("normals", "reshading"))
    measured = normals_from_depth(view.depth_m, view.intrinsics)
    both = np.isfinite(measured[..., 0]) & np.isfinite(got["normals"][..., 0])
    assert both.mean() > 0.2
    cosine = (measured * got["normals"]).sum(-1)[both]
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean() < 3
    assert set(got) == {"normals", "reshading"}


def test_edges_and_corners_of_a_square() -> None:
    image = np.zeros((60, 60, 3), np.uint8)
    image[20:40, 20:40] = 255
    edges, corners = texture_edges(image), corner_strength(image)
    assert edges[30, 20] == 1
    assert edges[30, 30] == edges[5, 5] == 0
    # Along a straight edge nothing bends: corners are where both directions do.
    peak = np.unravel_index(corners.argmax(), corners.shape)
    assert min(abs(peak[0] - 20), abs(peak[0] - 39)) <= 3
    assert min(abs(peak[1] - 20), abs(peak[1] - 39)) <= 3
    assert corners[30, 20] < 0.05 * corners.max()
    for strength in (edges, corners):
        assert strength.min() >= 0
        assert strength.max() <= 1
        assert strength.dtype == np.float32
    brighter = texture_edges(np.clip(image.astype(int) // 2 + 100, 0, 255).astype(np.uint8))
    np.testing.assert_allclose(np.minimum(2 * brighter, 1)[30, 16:24], edges[30, 16:24], atol=0.05)


def test_labels_count_from_nought_and_none_is_void() -> None:
    corpus = np.arange(len(CLASSES), dtype=np.uint8)
    assert LABEL_SETS["generated_rooms"].labels == CLASSES[1:]
    assert class_targets(corpus).tolist() == [VOID, *range(len(CLASSES) - 1)]


def test_segmentation_is_void_without_labels_and_follows_the_crop() -> None:
    sample = Sample(np.zeros((72, 96, 3), np.uint8), np.ones((72, 96)), CAMERA)
    view = cut(sample, whole_crop(sample), 96, 72)
    void = further_targets(sample, whole_crop(sample), view, ("segmentation",))
    assert np.array_equal(void["segmentation"], np.full((72, 96), VOID))
    labels = np.zeros((72, 96), np.uint8)
    labels[:, 48:] = 2
    labelled = Sample(sample.rgb_hwc, sample.depth_m, CAMERA, labels)
    got = further_targets(labelled, whole_crop(sample), view, ("segmentation", "depth"))
    assert np.array_equal(got["segmentation"], np.where(labels == 0, VOID, 1))
