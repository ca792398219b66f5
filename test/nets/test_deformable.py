"""Deformable attention by gather against sampling by ``grid_sample`` and a naive loop."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dense_perception.core.errors import InputError
from dense_perception.nets.deformable import MultiScaleDeformableAttention, deformable_attention
from test.support.randomise import randomise

SHAPES = [(6, 10), (3, 5), (2, 3)]
TOKENS = sum(h * w for h, w in SHAPES)


def a_problem(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Values, locations (a third of them outside the image) and weights, float64."""
    generator = torch.Generator().manual_seed(seed)
    value = torch.randn(2, TOKENS, 3, 4, generator=generator, dtype=torch.float64)
    locations = torch.rand(2, 7, 3, len(SHAPES), 4, 2, generator=generator, dtype=torch.float64)
    weights = torch.rand(2, 7, 3, len(SHAPES), 4, generator=generator, dtype=torch.float64)
    return value, locations * 1.4 - 0.2, weights


def test_the_core_equals_the_independent_implementations() -> None:
    from transformers.models.deformable_detr.modeling_deformable_detr import (
        MultiScaleDeformableAttention as DeformableDETR,
    )
    from transformers.models.mask2former.modeling_mask2former import (
        multi_scale_deformable_attention as mask2former,
    )

    value, locations, weights = a_problem(0)
    got = deformable_attention(value, SHAPES, locations, weights)
    for expected in (
        mask2former(value, SHAPES, locations, weights),
        DeformableDETR()(value, None, SHAPES, None, locations, weights, 64),
    ):
        torch.testing.assert_close(got, expected, atol=1e-13, rtol=0)


def test_the_core_equals_a_loop_over_pixels() -> None:
    value, locations, weights = a_problem(1)
    got = deformable_attention(value, SHAPES, locations, weights)
    starts = [0, 60, 75]
    for b, q, h in [(0, 0, 0), (1, 6, 2), (0, 3, 1), (1, 2, 0)]:
        total = torch.zeros(4, dtype=torch.float64)
        for level, (rows, columns) in enumerate(SHAPES):
            for point in range(4):
                x = float(locations[b, q, h, level, point, 0]) * columns - 0.5
                y = float(locations[b, q, h, level, point, 1]) * rows - 0.5
                for row in (math.floor(y), math.floor(y) + 1):
                    for column in (math.floor(x), math.floor(x) + 1):
                        if 0 <= row < rows and 0 <= column < columns:
                            share = (1 - abs(x - column)) * (1 - abs(y - row))
                            pixel = value[b, starts[level] + row * columns + column, h]
                            total += weights[b, q, h, level, point] * share * pixel
        torch.testing.assert_close(got[b, q, 4 * h : 4 * h + 4], total, atol=1e-12, rtol=0)


@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_the_module_equals_the_paper(ratio: float) -> None:
    """Equation 3 spelled out with the core, which the tests above hold to account."""
    attention = MultiScaleDeformableAttention(12, 3, 3, points=4, ratio=ratio).double()
    randomise(attention)
    query, tokens = (torch.randn(2, n, 12, dtype=torch.float64) for n in (7, TOKENS))
    reference = torch.rand(7, 2, dtype=torch.float64)
    got = attention(query, reference, tokens, SHAPES)
    value = attention.value_proj(tokens).reshape(2, TOKENS, 3, -1)
    offsets = attention.sampling_offsets(query).reshape(2, 7, 3, 3, 4, 2)
    weights = attention.attention_weights(query).reshape(2, 7, 3, 12).softmax(-1)
    locations = torch.stack(
        [
            reference[:, None, None] + offsets[:, :, :, level] / torch.tensor([columns, rows])
            for level, (rows, columns) in enumerate(SHAPES)
        ],
        dim=3,
    )
    mixed = deformable_attention(value, SHAPES, locations, weights.reshape(2, 7, 3, 3, 4))
    torch.testing.assert_close(got, attention.output_proj(mixed), atol=1e-12, rtol=0)


def test_it_starts_as_the_paper_starts_it() -> None:
    """Appendix A.4: eight heads look in eight directions, point i lies i pixels away."""
    attention = MultiScaleDeformableAttention(16, 8, 2, points=3)
    offsets = attention.sampling_offsets(torch.randn(16)).reshape(8, 2, 3, 2)
    ring = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    for head, direction in enumerate(ring):
        for point in range(3):
            want = torch.tensor(direction).float() * (point + 1)
            for level in range(2):
                torch.testing.assert_close(offsets[head, level, point], want, atol=1e-5, rtol=0)


def test_gradients_reach_offsets_values_and_weights() -> None:
    shapes = [(2, 3), (1, 2)]
    value, locations, weights = a_problem(2)
    problem = (value[:1, :8, :1, :2], locations[:1, :1, :1, :2, :2], weights[:1, :1, :1, :2, :2])
    inputs = tuple(tensor.clone().requires_grad_() for tensor in problem)
    assert torch.autograd.gradcheck(lambda v, p, w: deformable_attention(v, shapes, p, w), inputs)


def test_half_precision_keeps_the_positions_exact() -> None:
    attention = MultiScaleDeformableAttention(8, 2, 1)
    randomise(attention)
    shapes = [(1, 1024)]
    tokens = torch.arange(1024.0).reshape(1, 1024, 1).expand(1, 1024, 8) / 1024
    query = torch.zeros(1, 1, 8)
    reference = torch.tensor([[(900 + 0.5) / 1024, 0.5]])
    expected = attention(query, reference, tokens, shapes)
    got = attention.half()(query.half(), reference, tokens.half(), shapes)
    torch.testing.assert_close(got.float(), expected, atol=4e-3, rtol=0)


def test_wrong_sizes_are_refused() -> None:
    value, locations, weights = a_problem(3)
    with pytest.raises(InputError, match="tokens"):
        deformable_attention(value, SHAPES[:2], locations, weights)
    with pytest.raises(InputError, match="divide"):
        MultiScaleDeformableAttention(12, 5, 1)
