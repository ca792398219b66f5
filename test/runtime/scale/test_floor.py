"""Camera height: scenes in closed form, seen by a camera of known height and pitch."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dense_perception.core.camera import Intrinsics
from dense_perception.core.labels import LabelSet
from dense_perception.core.prediction import DepthKind, DepthMap, LabelMap
from dense_perception.runtime.scale.floor import fit_floor, is_floor
from dense_perception.runtime.scale.tracker import CONVERGED_ERROR

CAMERA = Intrinsics(160, 120, 130.0, 130.0, 79.5, 59.5)
ROOM = LabelSet("room", ("wall", "floor", "table"))


def scene(height_m: float, pitch_deg: float, table: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Planar z of a floor, a wall 8 m ahead and a table 0.7 m high; and the labels of ROOM.

    By intersecting each ray, turned into a level frame, with each plane.
    """
    rows, columns = np.mgrid[: CAMERA.height, : CAMERA.width]
    x = (columns - CAMERA.cx) / CAMERA.fx
    y = (rows - CAMERA.cy) / CAMERA.fy
    pitch = math.radians(pitch_deg)
    down = y * math.cos(pitch) + math.sin(pitch)
    ahead = math.cos(pitch) - y * math.sin(pitch)
    with np.errstate(divide="ignore"):
        floor = np.where(down > 0, height_m / down, np.inf)
        top = np.where(down > 0, (height_m - 0.7) / down, np.inf)
    wall = 8.0 / ahead
    on_table = (top * ahead > 1.5) & (top * ahead < 2.2) & (np.abs(x * top) < 0.5) & table
    depth = np.where(on_table, top, np.minimum(floor, wall))
    labels = np.where(on_table, 2, floor < wall).astype(np.uint8)
    return depth.astype(np.float32), labels


@pytest.mark.parametrize("pitch_deg", [0.0, 12.0, 35.0])
@pytest.mark.parametrize("height_m", [0.9, 1.6])
@pytest.mark.parametrize("labelled", [False, True])
def test_relative_depth_gets_its_scale(height_m: float, pitch_deg: float, labelled: bool) -> None:
    truth_m, labels = scene(height_m, pitch_deg)
    noise = np.random.default_rng(0).normal(0, 0.005, truth_m.shape)
    depth = DepthMap((truth_m / 0.31 * (1 + noise)).astype(np.float32), DepthKind.RELATIVE)
    seen = LabelMap(labels, labels, ROOM) if labelled else None
    fit = fit_floor(depth, CAMERA, height_m, pitch_deg, seen)
    assert fit is not None
    assert fit.is_sound
    assert fit.alignment.scale == pytest.approx(0.31, rel=0.02)


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("pitch_deg", [0.0, 20.0])
def test_relative_inverse_depth_gets_scale_and_shift(pitch_deg: float, labelled: bool) -> None:
    truth_m, labels = scene(1.2, pitch_deg)
    values = 4.0 / truth_m + 0.9
    depth = DepthMap(values.astype(np.float32), DepthKind.RELATIVE_INVERSE)
    seen = LabelMap(labels, labels, ROOM) if labelled else None
    fit = fit_floor(depth, CAMERA, 1.2, pitch_deg, seen)
    assert fit is not None
    assert fit.alignment.scale == pytest.approx(0.25, rel=0.02)
    assert fit.alignment.shift == pytest.approx(-0.9 / 4, rel=0.05)
    np.testing.assert_allclose(fit.alignment.metres(depth.values_hw), truth_m, rtol=0.05)


@pytest.mark.parametrize(("height_m", "is_exact"), [(0.3, False), (1.8, True)])
def test_half_a_degree_of_pitch_is_part_of_the_error(height_m: float, is_exact: bool) -> None:
    truth_m, labels = scene(height_m, 0.0, table=False)
    depth = DepthMap((4.0 / truth_m + 0.9).astype(np.float32), DepthKind.RELATIVE_INVERSE)
    seen = LabelMap(labels, labels, ROOM)
    medians_m = []
    for wrong_deg in (0.0, 0.5):
        fit = fit_floor(depth, CAMERA, height_m, wrong_deg, seen)
        assert fit is not None
        medians_m.append(float(np.nanmedian(fit.alignment.metres(depth.values_hw))))
    wrong = abs(medians_m[1] / medians_m[0] - 1)
    assert wrong < 1.5 * fit.error
    assert (fit.error <= CONVERGED_ERROR) == is_exact
    assert (wrong <= CONVERGED_ERROR) == is_exact


def test_without_a_floor_there_is_no_scale() -> None:
    wall = DepthMap(np.full((120, 160), 2.0, np.float32), DepthKind.RELATIVE)
    assert fit_floor(wall, CAMERA, 1.0) is None
    noise = np.random.default_rng(0).uniform(1, 9, (120, 160)).astype(np.float32)
    assert fit_floor(DepthMap(noise, DepthKind.RELATIVE), CAMERA, 1.0) is None
    truth_m, labels = scene(1.2, 10.0)
    hidden = np.where(labels == 1, 0, labels).astype(np.uint8)
    seen = LabelMap(hidden, hidden, ROOM)
    assert fit_floor(DepthMap(truth_m, DepthKind.RELATIVE), CAMERA, 1.2, 10.0, seen) is None
    # Looking down 40 degrees more than the mounting says: what is level is no floor then.
    assert fit_floor(DepthMap(truth_m, DepthKind.RELATIVE), CAMERA, 1.2, -30.0) is None


def test_names_of_floors_in_the_label_sets() -> None:
    assert is_floor("floor, flooring")
    assert is_floor("road")
    assert not is_floor("floor lamp")
    assert not is_floor("wall")
