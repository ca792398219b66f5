"""The parts of detectors against loops over single numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from dense_perception.core.boxes import boxes_around
from dense_perception.core.errors import InputError
from dense_perception.nets.detection import boxes as coding
from dense_perception.nets.detection.anchors import anchors
from dense_perception.nets.detection.nms import suppress
from dense_perception.nets.detection.paste import paste_all
from dense_perception.nets.detection.roi_align import level_of, roi_align


def random_boxes(count: int, side: float, seed: int) -> Tensor:
    """(count, 4) float64, sides up to half of ``side``."""
    generator = np.random.default_rng(seed)
    low = generator.uniform(0, side, (count, 2))
    high = low + generator.uniform(1, side / 2, (count, 2))
    return torch.from_numpy(np.concatenate([low, high], axis=1))


def naive_iou(one: list[float], other: list[float]) -> float:
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(areas) - width * height)


def naive_nms(boxes: list[list[float]], groups: list[int], threshold: float) -> list[bool]:
    kept = [True] * len(boxes)
    for i, box in enumerate(boxes):
        for j in range(i):
            if kept[j] and groups[i] == groups[j] and naive_iou(box, boxes[j]) > threshold:
                kept[i] = False
    return kept


def test_overlaps_are_those_of_single_boxes() -> None:
    one, other = random_boxes(7, 20, 0), random_boxes(5, 20, 1)
    matrix = coding.iou_matrix(one, other)
    for i in range(7):
        for j in range(5):
            expected = naive_iou(one[i].tolist(), other[j].tolist())
            assert matrix[i, j].item() == pytest.approx(expected, abs=1e-12)
    # One inside a four times larger hull of two that touch at a corner.
    apart = coding.giou_pairs(torch.tensor([0.0, 0, 2, 2]), torch.tensor([2.0, 2, 4, 4]))
    assert apart.item() == pytest.approx(-0.5)
    same = coding.giou_pairs(one, one)
    assert torch.allclose(same, torch.ones_like(same))


def test_boxes_around_pixels_end_at_their_outer_edges() -> None:
    """The rule for NumPy and the one for PyTorch are one."""
    generator = np.random.default_rng(4)
    ids_hw = np.where(generator.random((9, 12)) < 0.1, generator.integers(1, 5, (9, 12)), 0)
    ids_hw[7:, 10:], ids_hw[0, 0] = 6, 7  # 5 has no pixel; 6 and 7 are at the border
    expected = np.zeros((7, 4))
    for row in range(7):
        places = [(y, x) for y in range(9) for x in range(12) if ids_hw[y, x] == row + 1]
        if places:
            rows, columns = ([place[k] for place in places] for k in (0, 1))
            expected[row] = min(columns), min(rows), max(columns) + 1, max(rows) + 1
    assert expected[4:].tolist() == [[0, 0, 0, 0], [10, 7, 12, 9], [0, 0, 1, 1]]
    np.testing.assert_array_equal(boxes_around(ids_hw, 7), expected)
    np.testing.assert_array_equal(boxes_around(ids_hw, 3), expected[:3])
    masks_khw = torch.from_numpy(ids_hw == np.arange(1, 8)[:, None, None])
    for dtype in (torch.float16, torch.float32):
        found = coding.boxes_around(masks_khw.to(dtype)[None])
        assert found.shape == (1, 7, 4)
        np.testing.assert_array_equal(found[0].numpy(), expected)
    assert coding.boxes_around(torch.zeros(0, 4, 6)).shape == (0, 4)


def test_codings_come_back_and_are_limited() -> None:
    known, wanted = random_boxes(9, 50, 2), random_boxes(9, 50, 3)
    deviations = (0.1, 0.1, 0.2, 0.2)
    offsets = coding.encode_offsets(known, wanted, deviations)
    x1, y1, x2, y2 = known[0].tolist()
    middle = (wanted[0, 0] + wanted[0, 2]).item() / 2
    assert offsets[0, 0].item() == pytest.approx((middle - (x1 + x2) / 2) / (x2 - x1) / 0.1)
    height = (wanted[0, 3] - wanted[0, 1]).item()
    assert offsets[0, 3].item() == pytest.approx(math.log(height / (y2 - y1)) / 0.2)
    assert torch.allclose(coding.decode_offsets(known, offsets, deviations), wanted, atol=1e-9)
    points = known[:, :2] + 3
    distances = coding.encode_distances(points, wanted)
    assert torch.allclose(coding.decode_distances(points, distances), wanted)
    huge = coding.decode_offsets(
        torch.tensor([[0.0, 0, 16, 16]]), torch.tensor([[0.0, 0, 99, -99]])
    )
    assert huge[0].tolist() == pytest.approx([-492, 7.872, 508, 8.128], rel=1e-5)
    clipped = coding.clip(torch.tensor([[-3.0, 5, 70, 99]]), (40, 60))
    assert clipped[0].tolist() == [0, 5, 60, 40]


def test_anchors_are_centred_on_the_grid() -> None:
    found = anchors((2, 3), 16, 8.0, (0.5, 1.0, 2.0), torch.zeros((), dtype=torch.float64))
    assert found.shape == (18, 4)
    row = 0
    for y in range(2):
        for x in range(3):
            for ratio in (0.5, 1.0, 2.0):
                width, height = 128 / math.sqrt(ratio), 128 * math.sqrt(ratio)
                expected = [x * 16 - width / 2, y * 16 - height / 2]
                expected += [x * 16 + width / 2, y * 16 + height / 2]
                assert found[row].tolist() == pytest.approx(expected)
                row += 1


def test_suppression_is_the_greedy_one() -> None:
    boxes = torch.stack([random_boxes(150, 40, seed) for seed in (4, 5)])
    groups = torch.randint(0, 3, (2, 150), generator=torch.Generator().manual_seed(0))
    valid = torch.ones(2, 150, dtype=torch.bool)
    valid[1, ::7] = False
    for threshold in (0.3, 0.6):
        kept = suppress(boxes, valid, threshold, groups)
        for frame in range(2):
            rows = valid[frame].nonzero().flatten().tolist()
            expected = naive_nms(
                boxes[frame, rows].tolist(), groups[frame, rows].tolist(), threshold
            )
            assert kept[frame, rows].tolist() == expected
            assert not kept[frame][~valid[frame]].any()


def test_a_chain_longer_than_the_rounds_keeps_no_overlapping_boxes() -> None:
    start = torch.arange(60, dtype=torch.float64)
    boxes = torch.stack([start, start * 0, start + 3, start * 0 + 1], dim=-1).unsqueeze(0)
    valid = torch.ones(1, 60, dtype=torch.bool)
    expected = naive_nms(boxes[0].tolist(), [0] * 60, 0.4)
    assert suppress(boxes, valid, 0.4, rounds=60)[0].tolist() == expected
    few = suppress(boxes, valid, 0.4, rounds=5)[0]
    assert few[:5].tolist() == expected[:5]
    assert all(wanted for kept, wanted in zip(few.tolist(), expected, strict=True) if kept)


def naive_bilinear(map_chw: np.ndarray, y: float, x: float) -> np.ndarray:
    height, width = map_chw.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return np.zeros(len(map_chw))
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    mixed = np.zeros(len(map_chw))
    for row in range(height):
        for column in range(width):
            share = max(0.0, 1 - abs(y - row)) * max(0.0, 1 - abs(x - column))
            mixed += share * map_chw[:, row, column]
    return mixed


def test_roi_align_averages_samples_of_the_level_that_fits() -> None:
    generator = torch.Generator().manual_seed(0)
    strides, sizes = (4, 8), ((24, 32), (12, 16))
    maps = [torch.randn(2, 3, *size, dtype=torch.float64, generator=generator) for size in sizes]
    # Small, large, over the border, outside, without area.
    boxes = torch.tensor(
        [[10.0, 12, 30, 31], [5, 3, 125, 94], [-20, 60, 15, 120], [300, 9, 420, 30], [9, 9, 9, 9]],
        dtype=torch.float64,
    )
    boxes = torch.stack([boxes, boxes.flip(0)])
    levels = level_of(boxes, 2)
    assert levels[0].tolist() == [0, 0, 0, 0, 0]
    assert level_of(boxes[:, :2], 2, canonical=48)[0].tolist() == [0, 1]
    assert level_of(torch.tensor([[0.0, 0, 112, 112], [0, 0, 111, 112]]), 4).tolist() == [1, 0]
    large = torch.tensor([[[0.0, 0, 128, 100]]] * 2, dtype=torch.float64)
    boxes = torch.cat([boxes, large], dim=1)
    found = roi_align(maps, strides, boxes, 3, ratio=2).reshape(2, 6, 3, 3, 3)
    for frame in range(2):
        for region in range(6):
            level = 1 if region == 5 else 0
            low_x, low_y, high_x, high_y = (boxes[frame, region] / strides[level] - 0.5).tolist()
            for row in range(3):
                for column in range(3):
                    total = np.zeros(3)
                    for j in (2 * row + 0.5, 2 * row + 1.5):
                        for i in (2 * column + 0.5, 2 * column + 1.5):
                            y = low_y + (high_y - low_y) * j / 6
                            x = low_x + (high_x - low_x) * i / 6
                            total += naive_bilinear(maps[level][frame].numpy(), y, x) / 4
                    got = found[frame, region, :, row, column].numpy()
                    assert np.allclose(got, total, atol=1e-12)
    with pytest.raises(InputError, match="2 maps and 1 strides"):
        roi_align(maps, (4,), boxes, 3)


def test_masks_are_enlarged_within_their_boxes() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(1, 12, 4, 4, dtype=torch.float64, generator=generator)
    boxes = random_boxes(12, 20, 6).unsqueeze(0)
    used = torch.ones(1, 12, dtype=torch.bool)
    used[0, 1] = False
    ids, pasted = (each[0] for each in paste_all(masks, boxes, used, (18, 24), 0.5))
    for thing in (0, 11):
        x1, y1, x2, y2 = boxes[0, thing].tolist()
        for y in range(18):
            for x in range(24):
                v = (y + 0.5 - y1) / (y2 - y1) * 4 - 0.5
                u = (x + 0.5 - x1) / (x2 - x1) * 4 - 0.5
                expected = sum(
                    max(0.0, 1 - abs(v - j)) * max(0.0, 1 - abs(u - i)) * masks[0, thing, j, i]
                    for j in range(4)
                    for i in range(4)
                )
                assert pasted[thing, y, x].item() == pytest.approx(float(expected), abs=1e-9)
    on = (pasted >= 0.5) & used[0, :, None, None]
    first = torch.where(on.any(dim=0), on.to(torch.uint8).argmax(dim=0) + 1, 0)
    assert torch.equal(ids, first)
    assert len(ids.unique()) > 5
