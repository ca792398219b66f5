"""Training losses: values against loops, invariances, and where they must not look."""

from __future__ import annotations

import math

import pytest
import torch

from dense_perception.metrics.surfaces import Surfaces
from dense_perception.training.config import LossConfig
from dense_perception.training.losses import (
    aligned_loss,
    centre_loss,
    depth_edges_loss,
    depth_normals_loss,
    gradient_loss,
    inverse_depth_losses,
    metric_depth_loss,
    silog_loss,
)


@pytest.fixture
def scene() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    true_m = torch.rand(3, 16, 20, generator=generator, dtype=torch.float64) * 5 + 0.5
    log = true_m.log() + 0.2 * torch.randn(3, 16, 20, generator=generator, dtype=torch.float64)
    valid = torch.rand(3, 16, 20, generator=generator) > 0.2
    return log, true_m, valid


def test_silog_equals_its_definition(scene: tuple[torch.Tensor, ...]) -> None:
    log, true_m, valid = scene
    expected = []
    for n in range(3):
        errors = [
            float(log[n, y, x]) - math.log(float(true_m[n, y, x]))
            for y in range(16)
            for x in range(20)
            if valid[n, y, x]
        ]
        mean, square = sum(errors) / len(errors), sum(e * e for e in errors) / len(errors)
        expected.append(math.sqrt(square - 0.5 * mean**2))
    weight = valid.double()
    got = silog_loss((log - true_m.log()) * weight, weight, 0.5)
    assert float(got) == pytest.approx(sum(expected) / 3, rel=1e-9)


def test_aligned_loss_ignores_scale_and_shift_of_inverse_depth(
    scene: tuple[torch.Tensor, ...],
) -> None:
    log, true_m, valid = scene
    weight, predicted = valid.double(), torch.exp(-log)
    plain = aligned_loss(predicted, 1 / true_m, weight)
    moved = aligned_loss(3.0 * predicted + 0.4, 1 / true_m, weight)
    assert float(plain) > 0.05
    # The ridge that keeps a constant prediction defined costs a little of the exactness.
    assert float(moved) == pytest.approx(float(plain), rel=0.02)
    assert float(aligned_loss(0.7 / true_m + 0.1, 1 / true_m, weight)) < 2e-3


def test_gradient_loss_ignores_scale_and_sees_an_edge() -> None:
    weight = torch.ones(1, 16, 16)
    assert float(gradient_loss(torch.full((1, 16, 16), 0.7), weight)) == 0
    step = torch.zeros(1, 16, 16)
    step[..., 8:] = 1.0
    # One column of fifteen differs at full size, one of seven at half size, and so on.
    expected = (1 / 15 + 1 / 7 + 1 / 3 + 1) / 4
    assert float(gradient_loss(step, weight)) == pytest.approx(expected, rel=1e-6)


def test_invalid_pixels_have_no_influence(scene: tuple[torch.Tensor, ...]) -> None:
    log, true_m, valid = scene
    log = log.clone().requires_grad_()
    loss, _ = metric_depth_loss(log, torch.where(valid, true_m, 0.0), valid, LossConfig())
    loss.backward()
    assert log.grad is not None
    assert torch.all(log.grad[~valid] == 0)
    assert float(log.grad[valid].abs().max()) > 0
    other, _ = metric_depth_loss(log.detach(), torch.where(valid, true_m, 9.9), valid, LossConfig())
    assert float(other) == pytest.approx(float(loss.detach()), rel=1e-12)


def test_an_image_without_truth_gives_a_finite_loss_and_gradient() -> None:
    log = torch.zeros(2, 8, 8, requires_grad=True)
    valid = torch.zeros(2, 8, 8, dtype=torch.bool)
    valid[1] = True
    loss, _ = metric_depth_loss(log, torch.full((2, 8, 8), 2.0), valid, LossConfig())
    loss.backward()
    assert log.grad is not None
    assert torch.isfinite(loss)
    assert torch.isfinite(log.grad).all()


def test_a_perfect_prediction_costs_next_to_nothing(scene: tuple[torch.Tensor, ...]) -> None:
    _, true_m, valid = scene
    loss, parts = metric_depth_loss(true_m.log(), true_m, valid, LossConfig())
    assert float(loss) < 5e-3
    assert set(parts) == {"silog", "aligned", "gradient"}


def naive_depth_normals(
    log: torch.Tensor, true_m: torch.Tensor, valid: torch.Tensor, focal_px: list[float]
) -> float:
    """Pixel by pixel: the normals of planes through neighbouring points, by cross products."""
    frames, height, width = log.shape
    per_frame = torch.zeros(frames, dtype=torch.float64)
    for n in range(frames):
        f, cx, cy = focal_px[n], (width - 1) / 2, (height - 1) / 2
        for stride in (1, 2, 4):
            values = []
            for y in range(stride, height - stride, stride):
                for x in range(stride, width - stride, stride):
                    around = [(y, x - stride), (y, x + stride), (y - stride, x), (y + stride, x)]
                    if not all(valid[n, j, i] for j, i in [(y, x), *around]):
                        continue
                    steps = [abs(math.log(true_m[n, j, i] / true_m[n, y, x])) for j, i in around]
                    if max(steps) > 0.04 * stride + 0.03:
                        continue
                    normals = []
                    for depth in (log[n].exp(), true_m[n]):
                        # Inverse depth is linear over a plane: extend it along both differences.
                        q = [1 / float(depth[j, i]) for j, i in around]
                        a, b = (q[1] - q[0]) / (2 * stride), (q[3] - q[2]) / (2 * stride)
                        c = 1 / float(depth[y, x])
                        points = []
                        for du, dv in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)):
                            z = 1 / (c + a * du + b * dv)
                            points.append(
                                torch.tensor(
                                    [(x + du - cx) / f * z, (y + dv - cy) / f * z, z],
                                    dtype=torch.float64,
                                )
                            )
                        normal = torch.linalg.cross(points[1] - points[0], points[2] - points[0])
                        normals.append(normal / normal.norm())
                    values.append(1 - float(normals[0] @ normals[1]))
            per_frame[n] += sum(values) / max(len(values), 1) / 3
    return float(per_frame.mean())


def rooms_with_planes() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Slanted planes with a step between them; the prediction is wavy."""
    generator = torch.Generator().manual_seed(1)
    v, u = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    inverse = torch.stack([0.4 + 0.004 * u + 0.006 * v, 0.9 - 0.005 * u + 0.002 * v]).double()
    inverse[0, :, 20:] *= 1.5
    true_m = 1 / inverse
    log = true_m.log() + 0.02 * torch.randn(2, 24, 32, generator=generator, dtype=torch.float64)
    valid = torch.rand(2, 24, 32, generator=generator) > 0.05
    return log, true_m, valid, torch.tensor([25.0, 40.0], dtype=torch.float64)


def test_depth_normals_equal_a_loop() -> None:
    log, true_m, valid, focal_px = rooms_with_planes()
    got = float(depth_normals_loss(log, true_m.log(), valid, focal_px))
    assert 0.01 < got < 0.5
    expected = naive_depth_normals(log, true_m, valid, focal_px.tolist())
    assert got == pytest.approx(expected, rel=1e-9)


def test_depth_normals_ignore_scale_and_invalid_pixels() -> None:
    log, true_m, valid, focal_px = rooms_with_planes()
    scaled = depth_normals_loss(true_m.log() + 0.7, true_m.log(), valid, focal_px)
    assert float(scaled) == pytest.approx(0, abs=1e-9)
    changed = log.clone().requires_grad_()
    config = LossConfig(silog=0, aligned=0, gradient=0, depth_normals=2)
    loss, parts = metric_depth_loss(
        changed, torch.where(valid, true_m, 0.0), valid, config, focal_px
    )
    assert float(loss.detach()) == pytest.approx(2 * float(parts["depth_normals"]), rel=1e-12)
    loss.backward()
    assert changed.grad is not None
    assert torch.isfinite(changed.grad).all()
    assert torch.all(changed.grad[~valid] == 0)
    assert float(changed.grad.abs().max()) > 0


def naive_depth_edges(log: torch.Tensor, true_log: torch.Tensor, valid: torch.Tensor) -> float:
    total = 0.0
    for predicted, true, mask in zip(log.tolist(), true_log.tolist(), valid.tolist(), strict=True):
        missed = []
        height, width = len(true), len(true[0])
        lines = [[(y, x) for x in range(width)] for y in range(height)]
        lines += [[(y, x) for y in range(height)] for x in range(width)]
        for line in lines:
            for four in zip(line, line[1:], line[2:], line[3:], strict=False):
                if not all(mask[y][x] for y, x in four):
                    continue
                a, b, c, d = (true[y][x] for y, x in four)
                if abs(c - b) > 0.25 and abs(b - a) < 0.05 and abs(d - c) < 0.05:
                    (top, left), (bottom, right) = four[0], four[3]
                    made = predicted[bottom][right] - predicted[top][left]
                    missed.append(abs(1 - made / (d - a)))
        total += sum(missed) / max(len(missed), 1)
    return total / len(log)


def test_depth_edges_equal_a_loop() -> None:
    generator = torch.Generator().manual_seed(3)
    true_log = torch.rand(3, 9, 12, generator=generator, dtype=torch.float64) * 0.03
    true_log[0, 2:6, 4:9] += 0.6
    true_log[1, :, 7:] -= 0.4
    log = true_log + torch.randn(true_log.shape, generator=generator, dtype=torch.float64) * 0.2
    valid = torch.rand(true_log.shape, generator=generator) > 0.05
    expected = naive_depth_edges(log, true_log, valid)
    assert expected > 0.1
    got = float(depth_edges_loss(log, true_log, valid))
    assert got == pytest.approx(expected, rel=1e-9)


def test_depth_edges_are_what_the_metric_misses() -> None:
    true_m = torch.full((1, 8, 12), 2.0, dtype=torch.float64)
    true_m[:, 2:, 6:] = 1.0
    half_made = (true_m.log() / 2).exp()
    missed = float(depth_edges_loss(half_made.log(), true_m.log(), true_m > 0))
    assert missed == pytest.approx(
        1 - Surfaces(half_made[0].numpy(), true_m[0].numpy()).edge_share()
    )
    config = LossConfig(silog=0, aligned=0, gradient=0, depth_edges=3)
    loss, _ = metric_depth_loss(half_made.log(), true_m, true_m > 0, config)
    assert float(loss) == pytest.approx(3 * missed)


def naive_inverse_depth(
    predicted: torch.Tensor, true_m: torch.Tensor, valid: torch.Tensor, trim: float
) -> tuple[float, float]:
    """MiDaS's two losses, pixel by pixel."""
    ssi, matching = 0.0, 0.0
    for n in range(len(predicted)):
        height, width = valid[n].shape
        pixels = [(y, x) for y in range(height) for x in range(width) if valid[n, y, x]]
        if not pixels:
            continue
        normalised = []
        for values in (predicted[n], 1 / true_m[n]):
            chosen = sorted(float(values[p]) for p in pixels)
            median = chosen[(len(chosen) - 1) // 2]
            deviation = sum(abs(v - median) for v in chosen) / len(chosen)
            normalised.append({p: (float(values[p]) - median) / deviation for p in pixels})
        difference = {p: normalised[0][p] - normalised[1][p] for p in pixels}
        errors = sorted(abs(d) for d in difference.values())
        kept = errors[: len(errors) - math.floor(trim * len(errors))]
        ssi += sum(kept) / (2 * len(errors))
        for scale in range(4):
            step = 2**scale
            for down, right in ((0, step), (step, 0)):
                changes = [
                    abs(difference[y + down, x + right] - difference[y, x])
                    for y in range(0, height - down, step)
                    for x in range(0, width - right, step)
                    if (y, x) in difference and (y + down, x + right) in difference
                ]
                matching += sum(changes) / max(len(changes), 1)
    return ssi / len(predicted), matching / len(predicted)


@pytest.mark.parametrize("trim", [0.0, 0.2])
def test_relative_losses_equal_a_loop(scene: tuple[torch.Tensor, ...], trim: float) -> None:
    log, true_m, valid = scene
    valid = valid.clone()
    valid[1] = False
    predicted = torch.exp(-log)
    expected = naive_inverse_depth(predicted, true_m, valid, trim)
    got = inverse_depth_losses(predicted, true_m, valid, trim)
    assert [float(loss) for loss in got] == pytest.approx(expected, rel=1e-9)
    # Any scale and shift of the prediction is the same to them.
    moved = inverse_depth_losses(3 * predicted - 7, true_m, valid, trim)
    assert [float(loss) for loss in moved] == pytest.approx(expected, rel=1e-9)


def test_gradients_of_the_relative_losses_are_those_of_small_steps(
    scene: tuple[torch.Tensor, ...],
) -> None:
    log, true_m, valid = (part[:2, :6, :7] for part in scene)
    valid[1] = False
    leaf = torch.exp(-log).requires_grad_()

    def loss(predicted: torch.Tensor) -> torch.Tensor:
        return torch.stack(inverse_depth_losses(predicted, true_m, valid, 0.2)).sum()

    assert torch.autograd.gradcheck(loss, (leaf,), atol=1e-6)
    gradient = torch.autograd.grad(loss(leaf), leaf)[0]
    assert torch.all(gradient[1] == 0)
    assert torch.all(gradient[~valid] == 0)


def test_gradients_of_the_metric_losses_are_those_of_small_steps() -> None:
    log, true_m, valid, focal_px = (
        part[:, :12, :12] if part.ndim == 3 else part for part in rooms_with_planes()
    )
    config = LossConfig(depth_normals=0.7, depth_edges=0.3)

    def loss(predicted: torch.Tensor) -> torch.Tensor:
        return metric_depth_loss(predicted, true_m, valid, config, focal_px)[0]

    assert torch.autograd.gradcheck(loss, (log.clone().requires_grad_(),), atol=1e-5)


def test_losses_of_centres_equal_a_loop() -> None:
    """Focal for heights, L1 for offsets; what is unknown, NaN, teaches nothing."""
    rng = torch.Generator().manual_seed(4)
    predicted = torch.randn(2, 3, 5, 6, generator=rng, dtype=torch.float64)
    target = torch.rand(2, 3, 5, 6, generator=rng, dtype=torch.float64)
    target[:, 1:] = 40 * target[:, 1:] - 20
    target[0, 0, 1, :3] = math.nan
    target[:, 1:, 2:, 1:] = math.nan
    focal, true_heights, distances, known = 0.0, 0.0, 0.0, 0
    for n in range(2):
        for r in range(5):
            for c in range(6):
                height = float(target[n, 0, r, c])
                if not math.isnan(height):
                    p = 1 / (1 + math.exp(-float(predicted[n, 0, r, c])))
                    entropy = -height * math.log(p) - (1 - height) * math.log(1 - p)
                    focal += (height - p) ** 2 * entropy
                    true_heights += height
                for axis in (1, 2):
                    offset = float(target[n, axis, r, c])
                    if not math.isnan(offset):
                        distances += abs(32 * float(predicted[n, axis, r, c]) - offset)
                        known += 1
    expected = 2 * focal / true_heights + 0.03 * 2 * distances / known
    got = centre_loss(predicted.requires_grad_(), target)
    assert float(got.detach()) == pytest.approx(expected, rel=1e-12)
    got.backward()
    assert predicted.grad is not None
    assert not predicted.grad[0, 0, 1, :3].any()
    assert not predicted.grad[:, 1:, 2:, 1:].any()


def test_a_picture_without_things_still_teaches_that_there_are_none() -> None:
    target = torch.zeros(1, 3, 4, 4)
    target[:, 1:] = math.nan
    losses = [float(centre_loss(torch.full((1, 3, 4, 4), h), target)) for h in (-6.0, 0.0, 3.0)]
    assert 0 <= losses[0] < losses[1] < losses[2]
