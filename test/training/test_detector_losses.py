"""Assignment and losses of detectors against loops; two of them learn a few frames."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dense_perception.core.errors import TrainingError
from dense_perception.core.instance_lists import IDS
from dense_perception.nets.detection.anchors import anchors
from dense_perception.nets.detection.boxes import iou_matrix
from dense_perception.nets.detection.dense_heads import DenseConfig, DenseDetector, Level
from dense_perception.nets.detection.mask_rcnn import RegionConfig, RegionDetector
from dense_perception.nets.detection.rpn import Proposed
from dense_perception.training import detection_losses as losses
from dense_perception.training.box_assignment import (
    BACKGROUND,
    NEITHER,
    assign_adaptively,
    assign_by_overlap,
    sample,
)
from dense_perception.training.detector_objective import (
    dense_losses,
    detector_losses,
    proposal_losses,
    region_losses,
)
from dense_perception.training.instance_truth import CLASSES, NOBODY, Things, things_of
from test.support.threads import one_thread


@pytest.fixture(autouse=True, scope="module")
def at_one_thread() -> Iterator[None]:
    with one_thread():
        yield


def some_boxes(count: int, seed: int) -> Tensor:
    generator = np.random.default_rng(seed)
    low = generator.uniform(0, 50, (count, 2))
    return torch.from_numpy(np.concatenate([low, low + generator.uniform(5, 40, (count, 2))], 1))


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_things_come_from_ids() -> None:
    ids = torch.zeros(2, 6, 8, dtype=torch.int32)
    ids[0, 1:3, 2:7] = 1
    ids[0, 4, 0] = 2
    ids[0, 5, 5:] = 4  # a crowd
    classes = torch.tensor([[7, 1, 3, NOBODY], [NOBODY] * 4])
    first, second = things_of({IDS: ids, CLASSES: classes})
    assert first.boxes_k4.tolist() == [[2, 1, 7, 3], [0, 4, 1, 5]]
    assert first.classes_k.tolist() == [7, 1]  # row 3 has no pixels
    assert first.masks_khw.sum(dim=(1, 2)).tolist() == [10, 1]
    assert first.ignored_hw.nonzero()[:, 1].tolist() == [5, 6, 7]
    assert len(second) == 0
    with pytest.raises(TrainingError, match="corpus with instance ids"):
        things_of({IDS: ids})
    with pytest.raises(TrainingError, match="has the instance 4, its list of classes ends at 3"):
        things_of({IDS: ids, CLASSES: classes[:, :3]})


@pytest.mark.parametrize("rescued", [None, 0.3])
def test_boxes_learn_what_they_overlap(rescued: float | None) -> None:
    boxes, things = some_boxes(80, 0), some_boxes(6, 1)
    assigned = assign_by_overlap(boxes, things, 0.6, 0.4, rescued)
    iou = iou_matrix(boxes, things).tolist()
    expected = []
    for row in iou:
        most = max(row)
        expected.append(row.index(most) if most >= 0.6 else BACKGROUND if most < 0.4 else NEITHER)
    if rescued is not None:
        for thing in range(6):
            column = [row[thing] for row in iou]
            if max(column) >= rescued:
                expected[column.index(max(column))] = thing
    assert assigned.tolist() == expected
    assert set(expected) >= {BACKGROUND, NEITHER, 0}
    nothing = assign_by_overlap(boxes, things[:0], 0.6, 0.4, rescued)
    assert (nothing == BACKGROUND).all()


def test_adaptive_assignment_follows_the_algorithm() -> None:
    like = torch.zeros((), dtype=torch.float64)
    levels = [anchors((64 // s, 96 // s), s, 8.0, (1.0,), like) for s in (8, 16, 32)]
    things = some_boxes(5, 2)
    every = torch.cat(levels).tolist()
    chosen: list[dict[int, float]] = []
    for thing in things.tolist():
        middle = [(thing[0] + thing[2]) / 2, (thing[1] + thing[3]) / 2]
        candidates, start = [], 0
        for level in levels:
            far = [
                math.hypot((a[0] + a[2]) / 2 - middle[0], (a[1] + a[3]) / 2 - middle[1])
                for a in level.tolist()
            ]
            candidates += [start + i for i in np.argsort(far, kind="stable")[:9]]
            start += len(level)
        share = [
            iou_matrix(torch.tensor([every[i]]), torch.tensor([thing])).item() for i in candidates
        ]
        least = np.mean(share) + np.std(share, ddof=1)
        chosen.append({})
        for i, overlap in zip(candidates, share, strict=True):
            x, y = (every[i][0] + every[i][2]) / 2, (every[i][1] + every[i][3]) / 2
            inside = min(x - thing[0], y - thing[1], thing[2] - x, thing[3] - y) > 0.01
            if overlap >= least and inside:
                chosen[-1][int(i)] = overlap
    expected = []
    for i in range(len(every)):
        best = max(range(5), key=lambda k: chosen[k].get(i, -1.0))
        expected.append(best if i in chosen[best] else BACKGROUND)
    assert assign_adaptively(levels, things).tolist() == expected
    assert len(set(expected)) > 3


def test_samples_are_limited_and_of_both_kinds() -> None:
    assigned = torch.tensor([0] * 30 + [BACKGROUND] * 50 + [NEITHER] * 20)
    positive, negative = sample(assigned, 40, 0.25, torch.Generator().manual_seed(0))
    assert len(positive) == 10
    assert len(set(negative.tolist())) == 30
    assert positive.max() < 30
    assert {int(row) // 10 for row in negative} <= {3, 4, 5, 6, 7}
    few, many = sample(assigned[25:], 60, 0.25)
    assert (len(few), len(many)) == (5, 50)


def test_losses_are_those_of_single_numbers() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 3, dtype=torch.float64, generator=generator)
    classes = torch.tensor([0, 2, 3, 3, 1, 0])
    wanted = torch.rand(6, dtype=torch.float64, generator=generator)
    focal = quality = 0.0
    for row in range(6):
        for k in range(3):
            p = sigmoid(logits[row, k].item())
            right = p if classes[row] == k else 1 - p
            weight = 0.25 if classes[row] == k else 0.75
            focal -= weight * (1 - right) ** 2 * math.log(right)
            y = wanted[row].item() if classes[row] == k else 0.0
            quality -= abs(y - p) ** 2 * (y * math.log(p) + (1 - y) * math.log(1 - p))
    assert losses.focal_loss(logits, classes).item() == pytest.approx(focal)
    assert losses.quality_focal_loss(logits, classes, wanted).item() == pytest.approx(quality)
    # 1.3 lies between 1 and 2, 0.7 of it with 1.
    log_p = torch.log_softmax(logits[0], dim=0).tolist()
    spread = losses.distribution_focal_loss(logits[0], torch.tensor(1.3, dtype=torch.float64))
    assert spread.item() == pytest.approx(-0.7 * log_p[1] - 0.3 * log_p[2])
    error = torch.tensor([-2.0, 0.1])
    assert losses.smooth_l1_loss(error).item() == pytest.approx(2.1)
    assert losses.smooth_l1_loss(error, 0.5).item() == pytest.approx(1.75 + 0.01)
    near = losses.centerness(torch.tensor([[3.0, 5.0]]), torch.tensor([[1.0, 1.0, 9.0, 7.0]]))
    assert near.item() == pytest.approx(math.sqrt(2 / 6 * 2 / 4))
    far = losses.giou_loss(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[2.0, 2, 4, 4]]))
    assert far.item() == pytest.approx(1.5)


class Pyramid(nn.Module):
    """Four maps of a picture."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.channels = (channels,) * 4
        sizes = [(3, 4), (channels, 2), (channels, 2), (channels, 2)]
        self.convs = nn.ModuleList(nn.Conv2d(c, channels, step, step) for c, step in sizes)

    def forward(self, image: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        for conv in self.convs:
            maps.append(torch.relu(conv(maps[-1] if maps else image)))
        return maps


def frames() -> tuple[Tensor, list[Things]]:
    """Two pictures of two squares each; the class is the colour."""
    image = torch.zeros(2, 3, 64, 96)
    ids = torch.zeros(2, 64, 96, dtype=torch.int64)
    places = ((4, 6, 0), (60, 30, 1)), ((20, 24, 1), (66, 4, 0))
    for frame, found in enumerate(places):
        for row, (x, y, colour) in enumerate(found, start=1):
            image[frame, colour, y : y + 24, x : x + 26] = 2.0
            ids[frame, y : y + 24, x : x + 26] = row
    return image, things_of({IDS: ids, CLASSES: torch.tensor([[0, 1], [1, 0]])})


@pytest.mark.parametrize("name", ["mask_rcnn", "cascade_mask_rcnn", "atss", "gfl"])
def test_detectors_learn_and_survive_frames_without_things(name: str) -> None:
    torch.manual_seed(0)
    image, things = frames()
    common = {"classes": 2, "channels": 16, "count": 10, "candidates": 60}
    network: RegionDetector | DenseDetector
    regions = "rcnn" in name
    if regions:
        cascade = name == "cascade_mask_rcnn"
        config = RegionConfig(**common, hidden=16, proposals=16, cascade=cascade)
        network, steps = RegionDetector(Pyramid(), config), 10
    else:
        dense = DenseConfig(**common, convs=1, bins=8 if name == "gfl" else 0)
        network, steps = DenseDetector(Pyramid(), dense), 16
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3 if regions else 1e-2)
    totals = []
    for _ in range(steps):
        found = detector_losses(network, image, things)
        total = sum(found.values(), torch.zeros(()))
        optimiser.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        # Regions' boxes count for more, the more proposals find things.
        shown = [key for key in found if not (regions and "boxes" in key)]
        totals.append(sum(found[key].item() for key in shown))
    assert totals[-1] < 0.8 * totals[0], totals
    assert all(parameter.grad is not None for parameter in network.parameters())
    empty = torch.zeros(1, 64, 96, dtype=torch.int64)
    nothing = things_of({IDS: empty, CLASSES: torch.tensor([[NOBODY]])})
    found = detector_losses(network, image[:1], nothing)
    assert all(math.isfinite(loss.item()) for loss in found.values())
    sum(found.values(), torch.zeros(())).backward()


def in_void(void: Tensor, boxes: Tensor) -> list[bool]:
    """Whether half of each box, or more, is void, pixel by pixel."""
    found = []
    for left, top, right, bottom in boxes.round().to(torch.int64).tolist():
        pixels = [
            bool(void[y, x])
            for y in range(max(0, top), min(bottom, void.shape[0]))
            for x in range(max(0, left), min(right, void.shape[1]))
        ]
        found.append(bool(pixels) and sum(pixels) >= len(pixels) / 2)
    return found


def with_void(things: list[Things]) -> list[Things]:
    """A crowd below the first frame's things, and beside one of them."""
    void = torch.zeros(64, 96, dtype=torch.bool)
    void[40:, :40], void[6:20, 32:40] = True, True
    return [replace(things[0], ignored_hw=void), *things[1:]]


@pytest.mark.parametrize("name", ["rpn", "atss", "gfl"])
def test_void_is_neither_a_thing_nor_background(name: str) -> None:
    """The scores of boxes that are void get no gradient, those of other boxes all do."""
    torch.manual_seed(0)
    image, things = frames()
    things = with_void(things)
    network: RegionDetector | DenseDetector
    if name == "rpn":
        # Fewer boxes than are sampled.
        network = RegionDetector(Pyramid(), RegionConfig(classes=2, channels=16, hidden=16))
        _, proposed = network.raw(image)
        parts = [logits[:, :: max(1, logits.shape[1] // 60)] for logits in proposed.logits]
        levels = [boxes[:: max(1, len(boxes) // 60)] for boxes in proposed.anchors]
        offsets = [each[:, :: max(1, each.shape[1] // 60)] for each in proposed.offsets]
        scores = [logits.detach().requires_grad_() for logits in parts]
        found = proposal_losses(Proposed(scores, offsets, levels), things)["proposals"]
        assigned = assign_by_overlap(torch.cat(levels), things[0].boxes_k4, 0.7, 0.3, 0.3)
    else:
        dense = DenseConfig(classes=2, channels=16, convs=1, bins=8 if name == "gfl" else 0)
        network = DenseDetector(Pyramid(), dense)
        raw = network.raw(image)
        levels = [level.anchors for level in raw]
        scores = [level.logits.detach().requires_grad_() for level in raw]
        pairs = zip(raw, scores, strict=True)
        raw = [Level(own, one.sides, one.centerness, one.anchors, one.stride) for one, own in pairs]
        found = dense_losses(raw, things)["classes"]
        assigned = assign_adaptively(levels, things[0].boxes_k4)
    found.backward()
    gradients = torch.cat([each.grad for each in scores if each.grad is not None], dim=1)[0]
    touched = (gradients.reshape(len(assigned), -1) != 0).any(dim=1)
    void = torch.tensor(in_void(things[0].ignored_hw, torch.cat(levels)))
    spared = void & (assigned == BACKGROUND)
    assert spared.sum() >= 5
    assert not touched[spared].any()
    assert torch.equal(touched, ~spared & (assigned != NEITHER))


def test_regions_in_void_are_not_learnt() -> None:
    torch.manual_seed(0)
    image, things = frames()
    network = RegionDetector(Pyramid(), RegionConfig(classes=2, channels=16, hidden=16))
    maps, _ = network.raw(image)
    true = [[4.0, 6, 30, 30], [58, 30, 84, 56]]
    beside, inside = [70.0, 2, 90, 20], [2.0, 42, 30, 62]
    proposals = torch.tensor([*true, beside, inside])
    void = with_void(things)
    assert in_void(void[0].ignored_hw, proposals) == [False, False, False, True]
    empty = proposals[:0]
    got, without, plain = (
        region_losses(network, maps, [boxes, empty], truth, (64, 96))
        for boxes, truth in ((proposals, void), (proposals[:3], void), (proposals, things))
    )
    for name in got:
        assert got[name].item() == pytest.approx(without[name].item()), name
    assert got["classes"].item() != pytest.approx(plain["classes"].item())


def test_masks_do_not_learn_void() -> None:
    """A mask's pixels that are void have no influence, wherever the network puts them."""
    torch.manual_seed(0)
    image, things = frames()
    network = RegionDetector(Pyramid(), RegionConfig(classes=2, channels=16, hidden=16))
    maps, _ = network.raw(image)
    boxes = [torch.tensor([[4.0, 6, 32, 34]]), torch.zeros(0, 4)]
    void = torch.zeros(64, 96, dtype=torch.bool)
    void[:, 18:30] = True
    own = things[0].masks_khw
    losses = []
    for masks in (own, own & ~void, own | void):
        truth = [replace(things[0], masks_khw=masks, ignored_hw=void), things[1]]
        losses.append(region_losses(network, maps, boxes, truth, (64, 96))["masks"].item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0] == pytest.approx(losses[2], rel=1e-3)
