"""Pictures that are written: what comes back, here and by the documented formats alone."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest

from dense_perception.imaging.decode import decode_compressed, decode_compressed_depth
from dense_perception.imaging.encode import encode_compressed_depth, encode_jpeg, encode_png


def naive_depth(data: bytes) -> np.ndarray:
    """By the plug-in's documentation: header of an enum and two floats, then a PNG of A/d + B."""
    _, quant_a, quant_b = struct.unpack("<iff", data[:12])
    stored_hw = cv2.imdecode(np.frombuffer(data[12:], np.uint8), cv2.IMREAD_UNCHANGED)
    assert stored_hw.dtype == np.uint16
    depth_hw = np.full(stored_hw.shape, np.nan)
    for index, stored in np.ndenumerate(stored_hw):
        if stored:
            depth_hw[index] = quant_a / (float(stored) - quant_b)
    return depth_hw


@pytest.mark.parametrize(
    ("near_m", "far_m", "step_at_1_m"),
    [
        (0.3, 8.0, 1 / 10100),  # a room: as image_transport's default
        (5.0, 80.0, 1 / 80000),  # far: a step of 0.1 % of the farthest
        (0.05, 80.0, 1 / 3270),  # both: what 16 bits can hold
        (2.0, 2.0, 1 / 10100),
    ],
)
def test_depth_comes_back_within_half_a_step(
    near_m: float, far_m: float, step_at_1_m: float
) -> None:
    random = np.random.default_rng(0)
    depth_hw = np.exp(random.uniform(np.log(near_m), np.log(far_m), (24, 32))).astype(np.float32)
    depth_hw[0, :2] = near_m, far_m
    depth_hw[1, :5] = np.nan, 0, -1, np.inf, -np.inf
    data = encode_compressed_depth(depth_hw)
    valid_hw = np.isfinite(depth_hw) & (depth_hw > 0)
    for answer_hw in (naive_depth(data), decode_compressed_depth(data, "32FC1")):
        assert (np.isfinite(answer_hw) == valid_hw).all()
        error = np.abs(answer_hw - depth_hw)[valid_hw]
        assert (error <= 0.52 * step_at_1_m * depth_hw[valid_hw] ** 2 + 1e-6).all()


def test_a_speck_on_the_lens_does_not_cost_the_room_its_depth() -> None:
    depth_hw = np.full((8, 8), 4.0, np.float32)
    depth_hw[0, 0] = 1e-3
    answer_hw = naive_depth(encode_compressed_depth(depth_hw))
    assert abs(answer_hw[4, 4] - 4.0) < 0.01
    assert abs(answer_hw[0, 0]) < 0.02


def test_depth_of_nothing_and_in_millimetres() -> None:
    nothing_hw = np.full((4, 5), np.nan, np.float32)
    data = encode_compressed_depth(nothing_hw)
    assert np.isnan(naive_depth(data)).all()
    assert np.isnan(decode_compressed_depth(data, "32FC1")).all()
    millimetres_hw = np.array([[0, 1, 65535], [1234, 10_000, 2]], np.uint16)
    metres_hw = decode_compressed_depth(encode_compressed_depth(millimetres_hw), "16UC1")
    np.testing.assert_allclose(
        metres_hw, np.where(millimetres_hw, millimetres_hw / 1000, np.nan), rtol=1e-6
    )


@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 3)])
def test_pictures_come_back(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    rgb_hwc = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2)
    assert (decode_compressed(encode_png(pixels)) == rgb_hwc).all()
    smooth = np.zeros((32, 32, 3), np.uint8)
    smooth[:16, :, 0] = 200
    answer = decode_compressed(encode_jpeg(smooth, 95)).astype(int)
    assert np.abs(answer - smooth)[:14].max() < 12, "red stays red"
    assert len(encode_jpeg(rgb_hwc, 20)) < len(encode_jpeg(rgb_hwc, 90))
    deep = np.array([[0, 65535], [256, 1]], np.uint16)
    data = np.frombuffer(encode_png(deep), np.uint8)
    assert (cv2.imdecode(data, cv2.IMREAD_UNCHANGED) == deep).all()
