"""Training losses: values against loops, invariances, and where they must not look."""

from __future__ import annotations

import math

import pytest
import torch

from dense_perception.training.config import LossConfig
from dense_perception.training.losses import (
    aligned_loss,
    gradient_loss,
    silog_loss,
    total_loss,
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
    loss, _ = total_loss(log, torch.where(valid, true_m, 0.0), valid, LossConfig())
    loss.backward()
    assert log.grad is not None
    assert torch.all(log.grad[~valid] == 0)
    assert float(log.grad[valid].abs().max()) > 0
    other, _ = total_loss(log.detach(), torch.where(valid, true_m, 9.9), valid, LossConfig())
    assert float(other) == pytest.approx(float(loss.detach()), rel=1e-12)


def test_an_image_without_truth_gives_a_finite_loss_and_gradient() -> None:
    log = torch.zeros(2, 8, 8, requires_grad=True)
    valid = torch.zeros(2, 8, 8, dtype=torch.bool)
    valid[1] = True
    loss, _ = total_loss(log, torch.full((2, 8, 8), 2.0), valid, LossConfig())
    loss.backward()
    assert log.grad is not None
    assert torch.isfinite(loss)
    assert torch.isfinite(log.grad).all()


def test_a_perfect_prediction_costs_next_to_nothing(scene: tuple[torch.Tensor, ...]) -> None:
    _, true_m, valid = scene
    loss, parts = total_loss(true_m.log(), true_m, valid, LossConfig())
    assert float(loss) < 5e-3
    assert set(parts) == {"silog", "aligned", "gradient"}
