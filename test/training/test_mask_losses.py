"""Matching and the losses of queries against naive loops in fp64."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from dense_perception.core.errors import TrainingError
from dense_perception.data.instance_rows import unknown_rows
from dense_perception.nets.query_network import QueryPrediction
from dense_perception.training import mask_losses
from dense_perception.training.mask_losses import Segments, segment_losses, segments_of
from dense_perception.training.matching import MatchingWeights, match, segment_costs

pytest.importorskip("scipy")
WEIGHTS = MatchingWeights(2.0, 5.0, 4.0)
QUERIES, CLASSES, SEGMENTS, POINTS = 5, 3, 3, 40


def inputs(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    return (
        2 * torch.randn(QUERIES, CLASSES + 1, dtype=torch.float64),
        3 * torch.randn(QUERIES, POINTS, dtype=torch.float64),
        torch.randint(0, CLASSES, (SEGMENTS,)),
        torch.rand(SEGMENTS, POINTS, dtype=torch.float64).round(),
    )


def naive_entropy(logit: float, wanted: float) -> float:
    inside = 1 / (1 + math.exp(-logit))
    return -(wanted * math.log(inside) + (1 - wanted) * math.log(1 - inside))


def naive_dice(logits: list[float], wanted: list[float]) -> float:
    inside = [1 / (1 + math.exp(-logit)) for logit in logits]
    both = sum(a * b for a, b in zip(inside, wanted, strict=True))
    return 1 - (2 * both + 1) / (sum(inside) + sum(wanted) + 1)


@pytest.mark.parametrize("void", [0, 15])
def test_costs_are_those_of_a_naive_loop(void: int) -> None:
    class_logits, point_logits, classes, points = inputs()
    known = torch.ones(POINTS, dtype=torch.float64)
    known[:void] = 0
    got = segment_costs(
        class_logits, point_logits, classes, points, WEIGHTS, known if void else None
    )
    assert got.shape == (QUERIES, SEGMENTS)
    for query, segment in itertools.product(range(QUERIES), range(SEGMENTS)):
        logits, wanted = point_logits[query].tolist()[void:], points[segment].tolist()[void:]
        exponents = [math.exp(v) for v in class_logits[query].tolist()]
        entropy = [naive_entropy(a, b) for a, b in zip(logits, wanted, strict=True)]
        expected = (
            -2.0 * exponents[int(classes[segment])] / sum(exponents)
            + 5.0 * sum(entropy) / (POINTS - void)
            + 4.0 * naive_dice(logits, wanted)
        )
        assert float(got[query, segment]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (4, 0)])
def test_the_match_is_the_best_of_all(shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    cost = torch.randn(*shape, dtype=torch.float64)
    queries, segments = match(cost)
    size = min(shape)
    assert len(set(queries.tolist())) == len(set(segments.tolist())) == size
    best = min(
        sum(float(cost[q, s]) for q, s in zip(some, others, strict=True))
        for some in itertools.permutations(range(shape[0]), size)
        for others in itertools.combinations(range(shape[1]), size)
    )
    assert float(cost[queries, segments].sum()) == pytest.approx(best)


def test_a_cost_that_is_not_finite_is_avoided() -> None:
    cost = torch.tensor([[math.nan, 1.0], [math.inf, 3.0], [2.0, 9.0]])
    queries, segments = match(cost)
    assert list(zip(queries.tolist(), segments.tolist(), strict=True)) == [(0, 1), (2, 0)]


def test_points_are_sampled_bilinearly() -> None:
    maps = torch.randn(2, 3, 4, dtype=torch.float64)
    point = torch.rand(2, 30, 2, dtype=torch.float64)
    got = mask_losses.sample(maps, point)
    for mask, index in itertools.product(range(2), range(30)):
        x = float(point[mask, index, 0]) * 4 - 0.5
        y = float(point[mask, index, 1]) * 3 - 0.5
        expected = 0.0
        for row, column in itertools.product(range(3), range(4)):
            share = max(0.0, 1 - abs(x - column)) * max(0.0, 1 - abs(y - row))
            expected += share * float(maps[mask, row, column])
        assert float(got[mask, index]) == pytest.approx(expected, abs=1e-12)


def test_most_points_lie_where_the_mask_is_least_certain() -> None:
    torch.manual_seed(0)
    x = torch.arange(64.0) - 31.5
    logits = x.expand(3, 64, 64)
    points = mask_losses.uncertain_points(logits, 100)
    assert points.shape == (3, 100, 2)
    distance = (points[..., 0] - 0.5).abs()
    # The nearest quarter of three times as many, evenly spread, lies within an eighth.
    assert (distance[:, :75] < 0.17).all()
    assert (distance[:, 75:] > 0.3).any()


def test_uncertain_points_leave_out_the_void() -> None:
    torch.manual_seed(0)
    void = torch.zeros(1, 8, 8, dtype=torch.bool)
    void[:, :, 2:6] = True  # where the logits are nearest to 0
    logits = (torch.arange(8.0) - 3.5).expand(1, 8, 8)
    x = mask_losses.uncertain_points(logits, 100, void)[0, :75, 0]
    assert ((x < 2 / 8) | (x > 6 / 8)).all()


@pytest.mark.parametrize("void", [False, True])
def test_the_loss_is_that_of_a_naive_loop(monkeypatch: pytest.MonkeyPatch, void: bool) -> None:
    """With points at all pixel centres, where nothing is left to chance."""
    torch.manual_seed(2)
    height, width = 4, 5
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centres = torch.stack([(x.double() + 0.5) / width, (y.double() + 0.5) / height], -1).flatten(
        0, 1
    )
    truth = [
        Segments(torch.tensor([2, 0]), torch.rand(2, height, width) > 0.5),
        Segments(torch.tensor([], dtype=torch.long), torch.zeros(0, height, width).bool()),
        Segments(torch.tensor([1]), torch.rand(1, height, width) > 0.5),
    ]
    if void:
        left_out = torch.zeros(height, width, dtype=torch.bool)
        left_out[1:3, :4] = True
        truth[0] = Segments(truth[0].classes_m, truth[0].masks_mhw & ~left_out, void_hw=left_out)
        truth[1] = Segments(truth[1].classes_m, truth[1].masks_mhw, void_hw=left_out)
    shapes = ((1, 3), (3, 3))  # the learned queries are one set for all frames
    layers = [
        QueryPrediction(
            torch.randn(frames, QUERIES, CLASSES + 1, dtype=torch.float64, requires_grad=True),
            torch.randn(masks, QUERIES, height, width, dtype=torch.float64, requires_grad=True),
        )
        for frames, masks in shapes
    ]
    monkeypatch.setattr(
        mask_losses, "uncertain_points", lambda logits, *_: centres.expand(len(logits), -1, -1)
    )
    monkeypatch.setattr(torch, "rand", lambda *size, **_: centres)
    total, parts = segment_losses(layers, truth, WEIGHTS, height * width)
    expected_total = 0.0
    excused = 0
    for layer in layers:
        entropies, weights, mask, dice = [], [], [], []
        for frame, segments in enumerate(truth):
            logits = layer.class_logits_bqk[min(frame, len(layer.class_logits_bqk) - 1)].detach()
            flat = layer.mask_logits_bqhw[frame].detach().flatten(1)
            wanted = segments.masks_mhw.flatten(1).double()
            known = torch.ones(height * width, dtype=torch.float64)
            if segments.void_hw is not None:
                known = 1 - segments.void_hw.flatten().double()
            costs = segment_costs(logits, flat, segments.classes_m, wanted, WEIGHTS, known)
            pairs = dict(zip(*(found.tolist() for found in match(costs)), strict=True))
            for query in range(QUERIES):
                inside = [k for k, value in enumerate(flat[query].tolist()) if value > 0]
                if query not in pairs and sum(known[k] == 0 for k in inside) >= len(inside) / 2:
                    excused += 1
                    continue
                target = int(segments.classes_m[pairs[query]]) if query in pairs else CLASSES
                weight = 1.0 if query in pairs else 0.1
                entropies.append(weight * -float(logits[query].log_softmax(0)[target]))
                weights.append(weight)
                if query in pairs:
                    places = known.nonzero().flatten()
                    row, true = flat[query][places].tolist(), wanted[pairs[query]][places].tolist()
                    one = [naive_entropy(a, b) for a, b in zip(row, true, strict=True)]
                    mask.append((sum(one), len(one)))
                    dice.append(naive_dice(row, true))
        assert len(mask) == 3
        entropy = sum(total for total, _ in mask) / sum(count for _, count in mask)
        values = [sum(entropies) / sum(weights), entropy, sum(dice) / 3]
        expected_total += 2.0 * values[0] + 5.0 * values[1] + 4.0 * values[2]
    assert (excused > 0) == void
    assert float(total.detach()) == pytest.approx(expected_total, abs=1e-10)
    assert [float(v) for v in parts.values()] == pytest.approx(values, abs=1e-10)
    total.backward()
    assert all(p.grad is not None and p.grad.any() for layer in layers for p in layer)


def batch(**targets: Tensor) -> SimpleNamespace:
    return SimpleNamespace(depth_m=torch.zeros(1, 2, 4), targets=targets)


LABELS = torch.tensor([[[0, 0, 3, 255], [1, 1, 3, 255]]])
IDS = torch.tensor([[[0, 0, 1, 1], [3, 3, 1, 7]]])
# Rows of things: the second has no pixel, the fourth is unused.
OF_ROWS = torch.tensor([[1, 0, 0, 255]])


def test_segments_of_labels_are_the_classes_in_view() -> None:
    found = segments_of(batch(segmentation=LABELS), 0, (), labels=True, instances=False)
    assert found.classes_m.tolist() == [0, 1, 3]
    assert found.masks_mhw.flatten(1).sum(1).tolist() == [2, 2, 2]


def test_segments_of_things_are_those_in_view() -> None:
    found = segments_of(
        batch(instance_ids=IDS, instance_classes=OF_ROWS), 0, (), labels=False, instances=True
    )
    assert found.classes_m.tolist() == [1, 0]
    assert found.masks_mhw[0].tolist() == [[False, False, True, True], [False, False, True, False]]
    assert found.masks_mhw[1].tolist() == [[False] * 4, [True, True, False, False]]


def test_panoptic_segments_are_things_and_the_rest_of_the_classes() -> None:
    found = segments_of(
        batch(segmentation=LABELS, instance_ids=IDS, instance_classes=OF_ROWS),
        0,
        (1, 3),
        labels=True,
        instances=True,
    )
    # The class 0 is stuff: its instance, row 3, is none.
    assert found.classes_m.tolist() == [0, 1]
    assert found.masks_mhw[1].tolist() == [[False, False, True, True], [False, False, True, False]]


def test_what_nobody_is_to_learn_is_void() -> None:
    of_rows = torch.tensor([[1, 0, 255, 255]])  # row 3 is a crowd, in part on a wall
    targets = {"instance_ids": IDS, "instance_classes": of_rows}
    found = segments_of(batch(**targets), 0, (), labels=False, instances=True)
    assert found.void_hw is not None
    assert found.void_hw.tolist() == [[False] * 4, [True, True, False, False]]
    walls = torch.tensor([[[0, 0, 3, 255], [0, 1, 3, 255]]])
    found = segments_of(
        batch(segmentation=walls, **targets), 0, (1, 3), labels=True, instances=True
    )
    assert found.void_hw is not None
    assert found.void_hw.tolist() == [[False] * 4, [False, True, False, False]]
    plain = {"instance_ids": IDS, "instance_classes": OF_ROWS}
    assert segments_of(batch(**plain), 0, (), labels=False, instances=True).void_hw is None


def test_a_frame_of_nothing_but_void_teaches_nothing() -> None:
    logits = torch.randn(1, QUERIES, CLASSES + 1, requires_grad=True)
    masks = torch.ones(1, QUERIES, 4, 4, requires_grad=True)
    void = Segments(
        torch.zeros(0, dtype=torch.long),
        torch.zeros(0, 4, 4, dtype=torch.bool),
        void_hw=torch.ones(4, 4, dtype=torch.bool),
    )
    total, _ = segment_losses([QueryPrediction(logits, masks)], [void], WEIGHTS, 8)
    assert float(total.detach()) == 0
    total.backward()


def test_targets_that_are_missing_are_named() -> None:
    with pytest.raises(TrainingError, match=r"no targets \['instance_ids', 'instance_classes'\]"):
        segments_of(batch(segmentation=LABELS), 0, (1,), labels=True, instances=True)


def test_a_frame_without_truth_teaches_nothing() -> None:
    void = torch.full((1, 2, 4), 255)
    ids, of_rows = (torch.from_numpy(each)[None] for each in unknown_rows(2, 4))
    for targets, asked in (
        ({"segmentation": void}, (True, False)),
        ({"instance_ids": ids, "instance_classes": of_rows}, (False, True)),
        ({"segmentation": LABELS, "instance_ids": ids, "instance_classes": of_rows}, (True, True)),
    ):
        found = segments_of(batch(**targets), 0, (1,), labels=asked[0], instances=asked[1])
        assert not found.known
    assert segments_of(batch(segmentation=LABELS), 0, (), labels=True, instances=False).known
    empty = {"instance_ids": torch.zeros_like(IDS), "instance_classes": torch.full((1, 4), 255)}
    assert segments_of(batch(**empty), 0, (), labels=False, instances=True).known
    torch.manual_seed(4)
    logits = torch.randn(2, QUERIES, CLASSES + 1, requires_grad=True)
    masks = torch.randn(2, QUERIES, 4, 4, requires_grad=True)
    wall = torch.ones(1, 4, 4, dtype=torch.bool)
    wanted = Segments(torch.tensor([1]), wall)
    unknown = Segments(torch.tensor([2]), wall, known=False)
    torch.manual_seed(5)
    alone, _ = segment_losses([QueryPrediction(logits[:1], masks[:1])], [wanted], WEIGHTS, 8)
    torch.manual_seed(5)
    total, _ = segment_losses([QueryPrediction(logits, masks)], [wanted, unknown], WEIGHTS, 8)
    assert float(total.detach()) == pytest.approx(float(alone.detach()))
    total.backward()
    assert logits.grad is not None
    assert logits.grad[0].any()
    assert not logits.grad[1].any()
    none, _ = segment_losses([QueryPrediction(logits, masks)], [unknown] * 2, WEIGHTS, 8)
    assert float(none.detach()) == 0
    none.backward()


def test_a_frame_without_anything_teaches_that_there_is_nothing() -> None:
    prediction = QueryPrediction(
        torch.zeros(1, QUERIES, CLASSES + 1, requires_grad=True),
        torch.zeros(1, QUERIES, 4, 4, requires_grad=True),
    )
    nothing = Segments(torch.zeros(0, dtype=torch.long), torch.zeros(0, 4, 4, dtype=torch.bool))
    total, parts = segment_losses([prediction], [nothing], WEIGHTS, 8)
    assert float(total.detach()) == pytest.approx(2 * math.log(CLASSES + 1))
    assert float(parts["mask"]) == float(parts["dice"]) == 0
    total.backward()
