"""Pictures to published networks and maps back, against their authors' numbers and PyTorch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dense_perception.core.card import ModelCard
from dense_perception.core.card_specs import InputSpec
from dense_perception.core.errors import CardError, InputError
from dense_perception.imaging.resize import (
    network_input,
    network_size,
    picture_box,
    restore_depth,
    views,
    without_padding,
)
from dense_perception.imaging.windows import labels_of_scores, windows_of

MODELS = Path(__file__).parents[2] / "models"


def spec(name: str) -> InputSpec:
    return ModelCard.from_yaml(MODELS / f"{name}.yaml").input


# Worked out with the authors' own transforms: Depth Anything's and DPT's Resize; mmcv's imrescale
# (which rounds half up), followed by mmsegmentation's ResizeToMultiple for ViT-CoMer.
@pytest.mark.parametrize(
    ("name", "picture", "want"),
    [
        ("depth_anything_v2_small", (640, 480), (686, 518)),
        ("depth_anything_v2_small", (1920, 1080), (924, 518)),
        ("depth_anything_v2_small", (1500, 1000), (784, 518)),  # 55.5 patches: half to even
        ("depth_anything_v2_small", (480, 640), (518, 686)),
        ("depth_anything_v2_small", (518, 518), (518, 518)),
        ("dpt_large_midas", (640, 480), (512, 384)),
        ("dpt_large_midas", (1920, 1080), (672, 384)),
        ("dpt_large_midas", (200, 150), (384, 288)),  # the factor nearest 1 is the width's
        ("dpt_hybrid_nyu", (640, 480), (640, 480)),
        ("dpt_hybrid_kitti", (1242, 375), (1216, 352)),
        ("dpt_hybrid_ade20k", (640, 480), (640, 480)),
        ("segmenter_small_mask_ade20k", (640, 480), (683, 512)),
        ("segmenter_small_mask_ade20k", (1500, 1000), (768, 512)),
        ("segmenter_large_mask_cityscapes", (2048, 1024), (2048, 1024)),
        ("segmenter_large_mask_pascal_context", (500, 375), (693, 520)),
        ("vit_comer_tiny_upernet_ade20k", (640, 480), (704, 512)),
        ("vit_comer_tiny_upernet_ade20k", (1920, 1080), (928, 512)),
        ("dpt_tiny_indoor", (1920, 1080), (256, 192)),
    ],
)
def test_the_size_is_the_authors(
    name: str, picture: tuple[int, int], want: tuple[int, int]
) -> None:
    assert network_size(spec(name), *picture) == want


def test_no_picture_makes_the_network_huge_or_empty() -> None:
    for width, height in ((8000, 20), (20, 8000), (1, 1)):
        for name in ("depth_anything_v2_small", "dpt_large_midas"):
            rule = spec(name)
            sides = network_size(rule, width, height)
            assert all(rule.multiple <= side <= 4 * 518 for side in sides)
            assert not any(side % rule.multiple for side in sides)


# Worked out by hand: the factor is the smaller one of both sides, an odd rest is larger behind.
@pytest.mark.parametrize(
    ("picture", "place", "want"),
    [
        ((1280, 720), "centre", (0, 140, 640, 360)),
        ((1280, 720), "corner", (0, 0, 640, 360)),
        ((333, 500), "centre", (107, 0, 426, 640)),
        ((334, 500), "centre", (106, 0, 428, 640)),
        ((427, 641), "centre", (107, 0, 426, 640)),
        ((320, 320), "centre", (0, 0, 640, 640)),
        ((8000, 2), "centre", (0, 319, 640, 1)),
    ],
)
def test_a_letterbox_holds_the_whole_picture(
    picture: tuple[int, int], place: str, want: tuple[int, int, int, int]
) -> None:
    rule = InputSpec(640, 640, "letterbox", pad=(114, 114, 114), place=place)
    assert network_size(rule, *picture) == (640, 640)
    assert picture_box(rule, *picture) == want


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("place", ["centre", "corner"])
def test_a_letterbox_is_filled_and_cut_off_again(dtype: str, place: str) -> None:
    """Pixel by pixel where nothing is resampled; what surrounds them is the card's colour."""
    rule = InputSpec(48, 64, "letterbox", interpolation="linear", pad=(1, 2, 3), place=place)
    rule = replace(rule, dtype=dtype)
    rgb_hwc = np.random.default_rng(0).integers(4, 256, (48, 40, 3), np.uint8)
    buffer = np.full((48, 64, 3), 99, dtype)
    got = network_input(rgb_hwc, rule, buffer)
    assert got is buffer
    left = 12 if place == "centre" else 0
    for row in range(48):
        for column in range(64):
            inside = left <= column < left + 40
            want = rgb_hwc[row, column - left] if inside else (1, 2, 3)
            assert tuple(got[row, column]) == tuple(want)
    assert np.array_equal(without_padding(got, rule, 40, 48), rgb_hwc)
    # Twice as large fits by averaging four pixels.
    doubled = rgb_hwc.repeat(2, 0).repeat(2, 1)
    assert np.array_equal(network_input(doubled, replace(rule, interpolation="area")), got)


def smooth(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, channels))
    return cv2.resize(small.astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_cubic_interpolation_is_theirs(dtype: str) -> None:
    """Of floats as they are, overshoots beyond 0 and 255 included; of bytes up to rounding."""
    rgb_hwc = smooth(120, 160, 3)
    rule = replace(spec("dpt_large_midas"), dtype=dtype)
    got = network_input(rgb_hwc, rule)
    assert got.dtype == dtype
    want = 255 * cv2.resize(rgb_hwc / 255.0, (384, 288), interpolation=cv2.INTER_CUBIC)
    assert want.min() < 0
    assert want.max() > 255
    if dtype == "uint8":
        assert np.abs(got - want.clip(0, 255)).max() <= 1.0
    else:
        np.testing.assert_allclose(got, want, atol=0.03)
    into = np.zeros((288, 384, 3), dtype)
    assert network_input(rgb_hwc, rule, into) is into
    np.testing.assert_array_equal(into, got)
    with pytest.raises(InputError, match=f"expected contiguous {dtype}"):
        network_input(rgb_hwc, rule, np.zeros((288, 384, 3), np.float16))


def test_windows_are_resized_in_two_steps() -> None:
    rgb_hwc = smooth(480, 640, 3)
    first = cv2.resize(rgb_hwc, (683, 512), interpolation=cv2.INTER_LINEAR)
    want = cv2.resize(first, (704, 512), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(
        network_input(rgb_hwc, spec("vit_comer_tiny_upernet_ade20k")), want
    )
    np.testing.assert_array_equal(
        network_input(rgb_hwc, spec("segmenter_small_mask_ade20k")), first
    )


def test_scales_start_from_the_picture() -> None:
    rgb_hwc = smooth(480, 640, 3)
    card = ModelCard.from_yaml(MODELS / "segmenter_small_mask_ade20k.yaml")
    half, double = views(rgb_hwc, card, (0.5, 1.75))
    np.testing.assert_array_equal(half, cv2.resize(rgb_hwc, (341, 256)))
    np.testing.assert_array_equal(double, cv2.resize(rgb_hwc, (1195, 896)))
    comer = ModelCard.from_yaml(MODELS / "vit_comer_tiny_upernet_ade20k.yaml")
    assert [view.shape[:2] for view in views(rgb_hwc, comer, (0.5, 0.75))] == [
        (256, 352),
        (384, 512),
    ]


@pytest.mark.parametrize("size", [(97, 61), (20, 31)])
@pytest.mark.parametrize(
    ("method", "mode", "corners"), [("corners", "bilinear", True), ("cubic", "bicubic", False)]
)
def test_depth_is_restored_as_theirs(
    size: tuple[int, int], method: str, mode: str, corners: bool
) -> None:
    width, height = size
    depth_hw = np.random.default_rng(1).random((40, 50), np.float32)
    tensor = torch.from_numpy(depth_hw)[None, None]
    want = F.interpolate(tensor, (height, width), mode=mode, align_corners=corners)[0, 0].numpy()
    got = restore_depth(depth_hw, width, height, method)
    assert got.dtype == np.float32
    assert got.flags["C_CONTIGUOUS"]
    np.testing.assert_allclose(got, want.clip(depth_hw.min(), depth_hw.max()), rtol=0, atol=1e-5)


def test_invalid_depth_stays_where_it_is() -> None:
    depth_hw = np.ones((40, 50), np.float32)
    depth_hw[:20] = np.nan
    for method in ("corners", "cubic"):
        got = restore_depth(depth_hw, 100, 80, method)
        assert np.isnan(got[:38]).all()
        np.testing.assert_array_equal(got[42:], 1)


@pytest.mark.parametrize("size", [(90, 70), (83, 64), (40, 30)])
def test_labels_of_windows_are_chosen_at_the_pictures_size(size: tuple[int, int]) -> None:
    """Against PyTorch: scores enlarged, windows averaged, resized, softmax."""
    fitted, window = (83, 64), 64
    corners = windows_of(fitted, window, 40)
    assert corners == [(0, 0), (0, 19)]
    scores = np.random.default_rng(2).normal(0, 3, (2, 7, 4, 4)).astype(np.float32)
    large = F.interpolate(torch.from_numpy(scores), (window, window), mode="bilinear")
    total, count = torch.zeros(1, 7, 64, 83), torch.zeros(64, 83)
    for (top, left), part in zip(corners, large, strict=True):
        total[0, :, top : top + window, left : left + window] += part
        count[top : top + window, left : left + window] += 1
    logits = F.interpolate(total / count, (size[1], size[0]), mode="bilinear")[0]
    certain, labels = torch.softmax(logits, 0).max(0)
    got, confidence = labels_of_scores(scores, corners, window, fitted, size)
    assert got.dtype == confidence.dtype == np.uint8
    assert (got == labels.numpy()).mean() > 0.999
    assert np.abs(confidence / 255 - certain.numpy()).max() < 0.005


@pytest.mark.parametrize(
    ("entry", "value", "complaint"),
    [
        ("resize", "crop", "input.resize is 'crop'"),
        ("interpolation", "area", "input.interpolation is 'area', expected linear or cubic"),
        ("multiple", 15, "input.multiple is 15, expected a divisor of height and width"),
        ("restore", "nearest", "input.restore is 'nearest'"),
    ],
)
def test_a_wrong_rule_is_named(entry: str, value: object, complaint: str) -> None:
    data = ModelCard.from_yaml(MODELS / "depth_anything_v2_small.yaml").to_dict()
    data["input"] = {**data["input"], entry: value}
    with pytest.raises(CardError) as refusal:
        ModelCard.from_dict(data, "card")
    assert complaint in str(refusal.value)


def test_cards_of_earlier_versions_stretch() -> None:
    data = ModelCard.from_yaml(MODELS / "depth_anything_v2_small.yaml").to_dict()
    data["input"] = {"height": 518, "width": 518}
    card = ModelCard.from_dict(data, "card")
    assert card.input == InputSpec(518, 518)
    assert network_size(card.input, 640, 480) == (518, 518)
    assert card.to_dict()["input"] == {
        "height": 518,
        "width": 518,
        "resize": "stretch",
        "focal": False,
    }
