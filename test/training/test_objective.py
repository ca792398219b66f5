"""How the losses of maps and tasks add up, and the learning rate that they are taken with."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from dense_perception.core.labels import VOID
from dense_perception.nets.segmenter import Segmenter, SegmenterConfig
from dense_perception.nets.swin import SwinConfig, SwinTransformer
from dense_perception.training.batch import Batch
from dense_perception.training.config import LossConfig, TrainingConfig
from dense_perception.training.objective import UncertaintyWeighting, task_losses
from dense_perception.training.optimisation import layer_factors, optimiser_of, parameter_groups
from dense_perception.training.schedules import learning_rate

CONFIG = TrainingConfig("tiny", "A test.", {})


def test_cross_entropy_with_an_auxiliary_head_equals_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    coarse = torch.randn(2, 3, 2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    classes = torch.randint(0, 3, (2, 4, 6), generator=generator).to(torch.uint8)
    classes[0, 0, 0] = classes[1, 2, 3] = VOID
    depth_m = torch.zeros(2, 4, 6)
    batch = Batch(depth_m.to(torch.uint8), depth_m, torch.ones(2), {"segmentation": classes})
    maps = {"segmentation": logits, "auxiliary": coarse}
    config = replace(CONFIG, losses=LossConfig(segmentation=2.0, auxiliary=0.4))
    losses, parts = task_losses(maps, batch, config, needs_focal=False)

    def naive(scores: np.ndarray, truth: np.ndarray) -> tuple[float, np.ndarray]:
        total, slope, count = 0.0, np.zeros_like(scores), int((truth != VOID).sum())
        for n, y, x in np.ndindex(*truth.shape):
            if truth[n, y, x] != VOID:
                share = np.exp(scores[n, :, y, x])
                share /= share.sum()
                total -= math.log(share[truth[n, y, x]])
                share[truth[n, y, x]] -= 1
                slope[n, :, y, x] = share
        return total / count, slope / count

    fine = naive(logits.detach().numpy(), classes.numpy())
    half = naive(coarse.detach().numpy(), classes.numpy()[:, ::2, ::2])
    assert float(parts["auxiliary"]) == pytest.approx(half[0], rel=1e-12)
    assert float(losses["segmentation"].detach()) == pytest.approx(2 * fine[0] + 0.4 * half[0])
    losses["segmentation"].backward()
    assert logits.grad is not None
    assert coarse.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), 2 * fine[1], atol=1e-12)
    np.testing.assert_allclose(coarse.grad.numpy(), 0.4 * half[1], atol=1e-12)


def test_uncertainty_weighting_is_kendalls() -> None:
    weighting = UncertaintyWeighting(["segmentation", "depth"]).double()
    with torch.no_grad():
        weighting.log_variances["segmentation"].fill_(0.3)
        weighting.log_variances["depth"].fill_(-0.8)
    losses = {
        name: torch.tensor(v, dtype=torch.float64)
        for name, v in (("segmentation", 1.7), ("depth", 0.4))
    }
    total = weighting(losses)
    expected = math.exp(-0.3) * 1.7 + 0.15 + math.exp(0.8) * 0.4 / 2 - 0.4
    assert float(total.detach()) == pytest.approx(expected, rel=1e-9)
    total.backward()
    slopes = {name: float(p.grad) for name, p in weighting.log_variances.items()}
    assert slopes["segmentation"] == pytest.approx(-math.exp(-0.3) * 1.7 + 0.5)
    assert slopes["depth"] == pytest.approx(-math.exp(0.8) * 0.4 / 2 + 0.5)


def test_the_poly_schedule_is_mmsegmentations() -> None:
    steps, warm = 160_000, 1_500
    config = replace(
        CONFIG, schedule="poly", power=1.0, learning_rate=6e-5, warmup=warm / steps, final_rate=0.0
    )
    for step in (400, 1_499, 1_500, 80_000, 159_999):
        expected = 6e-5 * (1 - step / steps) * min(step / warm, 1)
        assert learning_rate(config, step / steps) == pytest.approx(expected, rel=1e-9)


def test_the_poly_schedule_is_segmenters() -> None:
    config = replace(
        CONFIG, schedule="poly", power=0.9, learning_rate=1e-3, warmup=0.0, final_rate=0.01
    )
    for step in (0, 10_000, 159_999, 160_000):
        expected = (1e-3 - 1e-5) * (1 - step / 160_000) ** 0.9 + 1e-5
        assert learning_rate(config, step / 160_000) == pytest.approx(expected, rel=1e-9)


def test_layer_decay_falls_from_the_last_block_to_the_embedding() -> None:
    network = Segmenter(SegmenterConfig(height=32, width=32, dim=64, heads=2, layers=3, classes=2))
    factors = layer_factors(network, 0.5)
    assert factors["encoder.blocks.2.mlp.fc1.weight"] == 0.5
    assert factors["encoder.blocks.0.norm1.bias"] == 0.125
    assert factors["encoder.patch_embed.weight"] == 0.0625
    assert factors["encoder.position.table_1nc"] == 0.0625
    assert not {"encoder.norm.weight", "decoder.embed.weight"} & set(factors)
    groups = parameter_groups(network, replace(CONFIG, layer_decay=0.5, rates={"encoder": 0.1}))
    assert {group["factor"] for group in groups} == {1, 0.1, 0.05, 0.025, 0.0125, 0.00625}
    table = network.encoder.position
    assert table is not None
    (decay,) = (
        group["weight_decay"]
        for group in groups
        if any(p is table.table_1nc for p in group["params"])
    )
    assert decay == 0


def test_layer_decay_counts_the_blocks_of_a_swin_through() -> None:
    swin = SwinTransformer(SwinConfig(dim=8, depths=(1, 2, 1, 1), heads=(1, 1, 1, 1), window=2))
    factors = layer_factors(swin, 0.5)
    assert factors["stages.3.blocks.0.norm1.weight"] == 0.5
    assert (
        factors["stages.1.blocks.0.norm1.weight"]
        == factors["stages.1.merge.reduce.weight"]
        == 1 / 16
    )
    assert factors["patch_embed.weight"] == 1 / 64
    assert "norms.0.weight" not in factors


def test_sgd_and_adamw_take_their_settings() -> None:
    groups = parameter_groups(torch.nn.Linear(2, 1), replace(CONFIG, momentum=0.8))
    adamw = optimiser_of(groups, replace(CONFIG, momentum=0.8, second_beta=0.95))
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.defaults["betas"] == (0.8, 0.95)
    sgd = optimiser_of(groups, replace(CONFIG, optimiser="sgd", momentum=0.8))
    assert isinstance(sgd, torch.optim.SGD)
    assert sgd.defaults["momentum"] == 0.8
