"""Predictions of one camera over time: metric once the scale is known, and not before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dense_perception.core.camera import Frame, Intrinsics
from dense_perception.core.errors import InputError
from dense_perception.core.prediction import DepthKind, DepthMap, Prediction
from dense_perception.runtime.scale.known import KnownDepths
from dense_perception.runtime.scale.metric import MetricScale, ScaleSettings
from test.runtime.scale.test_alignment import measured, tilted_room

CAMERA = Intrinsics(80, 60, 70.0, 70.0, 39.5, 29.5)
SPARSE = ScaleSettings("depth")


def picture(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return np.kron(coarse, np.ones((10, 10, 1), np.uint8))


def asked(
    values_hw: np.ndarray, kind: DepthKind, index: int, seed: int = 0
) -> tuple[Frame, Prediction]:
    frame = Frame(picture(seed), stamp_ns=index * 33_000_000, intrinsics=CAMERA)
    return frame, Prediction(80, 60, CAMERA, depth=DepthMap(values_hw, kind))


def sparse_image(truth_m: np.ndarray, seed: int = 0) -> KnownDepths:
    places, metres = measured(truth_m, 50, 15, seed)
    image = np.full(truth_m.shape, np.nan, np.float32)
    image.reshape(-1)[places] = metres
    return KnownDepths.from_depth_image(image)


def test_relative_stays_relative_until_the_points_come() -> None:
    truth_m, scale = tilted_room(), MetricScale()
    asked_now = asked(truth_m / 3, DepthKind.RELATIVE, 0)
    before = scale.apply(*asked_now, SPARSE)
    assert before.depth is not None
    assert before.depth.kind is DepthKind.RELATIVE
    assert "no depth at the images' time" in scale.status
    after = scale.apply(*asked(truth_m / 3, DepthKind.RELATIVE, 1), SPARSE, sparse_image(truth_m))
    assert after.depth is not None
    assert np.median(after.depth.metres() / truth_m) == pytest.approx(1, abs=0.03)
    later = scale.apply(*asked(truth_m / 3, DepthKind.RELATIVE, 2), SPARSE)
    assert later.depth is not None
    assert later.depth.kind is DepthKind.METRIC
    # A cut to another picture: what was known is gone, though it is the next frame.
    cut = scale.apply(*asked(truth_m, DepthKind.RELATIVE, 3, seed=5), SPARSE)
    assert cut.depth is not None
    assert cut.depth.kind is DepthKind.RELATIVE
    known = sparse_image(truth_m)
    again = scale.apply(*asked(truth_m, DepthKind.RELATIVE, 4, seed=5), SPARSE, known)
    assert again.depth is not None
    assert np.median(again.depth.metres() / truth_m) == pytest.approx(1, abs=0.03)


def test_a_scale_ends_with_the_camera_it_was_found_under() -> None:
    truth_m, scale = tilted_room(), MetricScale()
    frame, prediction = asked(truth_m / 3, DepthKind.RELATIVE, 0)
    scale.apply(frame, prediction, SPARSE, sparse_image(truth_m))

    def kind_with(camera: Intrinsics) -> DepthKind:
        answer = scale.apply(frame, replace(prediction, intrinsics=camera), SPARSE)
        assert answer.depth is not None
        return answer.depth.kind

    # An autofocus that breathes is the same camera; camera_info after an assumed lens is not.
    assert kind_with(replace(CAMERA, fx=70.3, cx=39.2)) is DepthKind.METRIC
    assert kind_with(replace(CAMERA, fx=55.0, fy=55.0)) is DepthKind.RELATIVE
    assert kind_with(CAMERA) is DepthKind.RELATIVE


def test_a_metric_model_is_corrected_and_withheld_until_then() -> None:
    truth_m, scale = tilted_room(), MetricScale()
    assert scale.apply(*asked(truth_m * 1.3, DepthKind.METRIC, 0), SPARSE).depth is None
    answer = scale.apply(*asked(truth_m * 1.3, DepthKind.METRIC, 1), SPARSE, sparse_image(truth_m))
    assert answer.depth is not None
    assert np.median(answer.depth.metres() / truth_m) == pytest.approx(1, abs=0.03)


def test_a_factor_is_metres_per_unit() -> None:
    scale, settings = MetricScale(), ScaleSettings("factor", factor=4.0)
    values = np.full((60, 80), 0.5, np.float32)
    for kind, expected_m in ((DepthKind.RELATIVE, 2.0), (DepthKind.RELATIVE_INVERSE, 8.0)):
        answer = scale.apply(*asked(values, kind, 0), settings)
        assert answer.depth is not None
        np.testing.assert_allclose(answer.depth.metres(), expected_m)


def test_none_leaves_everything_alone() -> None:
    frame, prediction = asked(tilted_room(), DepthKind.RELATIVE, 0)
    assert MetricScale().apply(frame, prediction, ScaleSettings()) is prediction
    with pytest.raises(InputError, match="scale source is 'gps', expected one of"):
        ScaleSettings("gps")


def test_points_are_projected_to_where_the_camera_sees_them() -> None:
    pixels = np.array([[10, 20, 2.0], [79, 0, 3.5], [0, 59, 0.5]])
    u, v, z = pixels.T
    xyz = np.stack([(u - CAMERA.cx) / CAMERA.fx * z, (v - CAMERA.cy) / CAMERA.fy * z, z], axis=1)
    unseen = [[0, 0, -2.0], [np.nan, 0, 1.0], [9.0, 0, 1.0], [0, 0, 0]]
    known = KnownDepths.from_points(np.vstack([xyz, unseen]), CAMERA)
    assert known.metres.tolist() == z.tolist()
    numbered = np.arange(60 * 80, dtype=np.float32).reshape(60, 80)
    values = known.values(DepthMap(numbered, DepthKind.RELATIVE))
    assert values.tolist() == [20 * 80 + 10, 79, 59 * 80]
    # The same places in a map of half the size.
    half = known.values(DepthMap(np.ascontiguousarray(numbered[::2, ::2]), DepthKind.RELATIVE))
    assert half.tolist() == [20 * 80 + 10, 78, 58 * 80]


def test_dense_depth_is_thinned() -> None:
    known = KnownDepths.from_depth_image(np.full((480, 640), 2.0, np.float32))
    assert len(known.metres) == 1000
    assert known.across.std() == pytest.approx(1 / 12**0.5, rel=0.1)
