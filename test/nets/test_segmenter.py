"""Segmenter against a naive double-precision reference written from the paper's equations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from dense_perception.core.errors import CardError
from dense_perception.nets import zoo
from dense_perception.nets.segmenter import Segmenter

TINY = {
    "family": "segmenter",
    "variant": "small",
    "dim": 128,
    "heads": 4,
    "layers": 2,
    "classes": 5,
    "height": 48,
    "width": 32,
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
}


def randomised(network: dict[str, object]) -> Segmenter:
    """Every parameter random, so that nothing hides behind a zero or a one."""
    module = zoo.build(network).double().eval()
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = noise * (0.3 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5)
        if parameter.ndim == 1:
            parameter.data += 0.5
    assert isinstance(module, Segmenter)
    return module


def image(height: int, width: int, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(batch, 3, height, width, generator=generator, dtype=torch.float64)


# The reference: one image, one token, one head at a time.


def layer_norm(x_c: Tensor, norm: nn.Module) -> Tensor:
    centred = x_c - x_c.mean()
    return centred / torch.sqrt((centred**2).mean() + 1e-5) * norm.weight + norm.bias


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def block_by_hand(tokens_nc: Tensor, block: nn.Module, heads: int) -> Tensor:
    n, c = tokens_nc.shape
    size = c // heads
    normed = torch.stack([layer_norm(t, block.norm1) for t in tokens_nc])
    qkv = normed @ block.attention.qkv.weight.T + block.attention.qkv.bias
    mixed = torch.zeros(n, c, dtype=torch.float64)
    for head in range(heads):
        at = slice(head * size, (head + 1) * size)
        q, k, v = qkv[:, :c][:, at], qkv[:, c : 2 * c][:, at], qkv[:, 2 * c :][:, at]
        for row in range(n):
            weights = torch.exp(q[row] @ k.T / math.sqrt(size))
            mixed[row, at] = (weights / weights.sum()) @ v
    tokens_nc = tokens_nc + mixed @ block.attention.project.weight.T + block.attention.project.bias
    normed = torch.stack([layer_norm(t, block.norm2) for t in tokens_nc])
    hidden = gelu(normed @ block.mlp.fc1.weight.T + block.mlp.fc1.bias)
    return tokens_nc + hidden @ block.mlp.fc2.weight.T + block.mlp.fc2.bias


def bilinear(grid: Tensor, height: int, width: int) -> Tensor:
    """(rows, columns, C) to (height, width, C), half-pixel centres, edges repeated."""
    rows, columns = grid.shape[:2]
    out = torch.zeros(height, width, grid.shape[2], dtype=torch.float64)
    for y in range(height):
        v = max((y + 0.5) * rows / height - 0.5, 0.0)
        top, dy = min(int(v), rows - 1), v - int(v)
        bottom = min(top + 1, rows - 1)
        for x in range(width):
            u = max((x + 0.5) * columns / width - 0.5, 0.0)
            left, dx = min(int(u), columns - 1), u - int(u)
            right = min(left + 1, columns - 1)
            upper = (1 - dx) * grid[top, left] + dx * grid[top, right]
            lower = (1 - dx) * grid[bottom, left] + dx * grid[bottom, right]
            out[y, x] = (1 - dy) * upper + dy * lower
    return out


def segmenter_by_hand(module: Segmenter, image_chw: Tensor) -> Tensor:
    """Sections 3.1 and 3.2; (H, W, classes)."""
    config, encoder = module.config, module.encoder
    patch = config.patch
    _, height, width = image_chw.shape
    rows, columns = -(-height // patch), -(-width // patch)
    padded = torch.zeros(3, rows * patch, columns * patch, dtype=torch.float64)
    padded[:, :height, :width] = image_chw
    kernel = encoder.patch_embed.weight.reshape(config.dim, -1)
    patches = [
        kernel @ padded[:, r * patch : (r + 1) * patch, c * patch : (c + 1) * patch].reshape(-1)
        + encoder.patch_embed.bias
        for r in range(rows)
        for c in range(columns)
    ]
    extra = [encoder.class_token_11c[0, 0]]
    if config.distilled:
        extra.append(encoder.distillation_token_11c[0, 0])
    table = encoder.position.table_1nc[0]
    stored_hw = (config.height // patch, config.width // patch)
    grid = table[len(extra) :].reshape(*stored_hw, -1)
    positions = torch.cat([table[: len(extra)], bilinear(grid, rows, columns).flatten(0, 1)])
    tokens = torch.stack(extra + patches) + positions
    for block in encoder.blocks:
        tokens = block_by_hand(tokens, block, config.heads)
    tokens = torch.stack([layer_norm(t, encoder.norm) for t in tokens])[len(extra) :]

    decoder = module.decoder
    if config.decoder == "linear":
        scores = tokens @ decoder.head.weight.T + decoder.head.bias
    else:
        tokens = tokens @ decoder.embed.weight.T + decoder.embed.bias
        both = torch.cat([tokens, decoder.class_embeddings_1kc[0]])
        for block in decoder.blocks:
            both = block_by_hand(both, block, config.dim // 64)
        both = torch.stack([layer_norm(t, decoder.norm) for t in both])
        n = len(tokens)
        scores = torch.zeros(n, config.classes, dtype=torch.float64)
        for i in range(n):
            p = both[i] @ decoder.patch_projection_cc
            for k in range(config.classes):
                c = both[n + k] @ decoder.class_projection_cc
                scores[i, k] = p @ c / math.sqrt(float(p @ p) * float(c @ c))
        scores = torch.stack([layer_norm(s, decoder.mask_norm) for s in scores])
    up = bilinear(scores.reshape(rows, columns, -1), rows * patch, columns * patch)
    return up[:height, :width]


@torch.no_grad()
@pytest.mark.parametrize(
    ("change", "height", "width"),
    [
        ({"decoder": "linear"}, 48, 32),
        ({"decoder": "linear", "distilled": True}, 48, 32),
        ({}, 48, 32),
        ({"decoder_layers": 1}, 40, 61),  # padded, and positions resized to 3 x 4
        ({"patch": 8, "height": 24, "width": 16}, 24, 16),
    ],
)
def test_equals_the_equations(change: dict[str, object], height: int, width: int) -> None:
    module = randomised({**TINY, **change})
    x = image(height, width)
    logits = module(x)["logits"]
    assert logits.shape == (1, 5, height, width)
    want = segmenter_by_hand(module, x[0]).permute(2, 0, 1)
    assert float(want.std()) > 0.1
    torch.testing.assert_close(logits[0], want, rtol=0, atol=1e-10)


@torch.no_grad()
def test_batch_does_not_mix() -> None:
    module = randomised(TINY)
    x = image(48, 32, 3)
    together = module(x)["logits"]
    for index in range(3):
        torch.testing.assert_close(module(x[index : index + 1])["logits"][0], together[index])


# Counted from Table 1's widths; published figures include the checkpoint's unused ImageNet
# classifier (two of them for DeiT's distilled network).
@pytest.mark.parametrize(
    ("variant", "change", "published_m"),
    [
        ("tiny", {}, 7),
        ("small", {}, 27),
        ("base", {}, 106),
        ("base_patch8", {"decoder": "linear"}, 89),
        ("large", {"height": 640, "width": 640}, 334),
        ("large", {"height": 768, "width": 768, "decoder_layers": 1, "classes": 19}, 322),
        ("base_deit", {"decoder": "linear"}, 87),
        ("base_deit", {}, 106),
    ],
)
def test_parameters_are_the_published_ones(
    variant: str, change: dict[str, object], published_m: float
) -> None:
    with torch.device("meta"):
        module = zoo.build({"family": "segmenter", "variant": variant, **change})
    count = sum(p.numel() for p in module.parameters())
    classifier = 1000 * (module.config.dim + 1) * module.encoder.prefix
    assert count + classifier == pytest.approx(published_m * 1e6, rel=0.03)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"decoder": "unet"}, "decoder is 'unet', expected one of"),
        ({"dim": 96, "heads": 4}, "multiple of 64"),
        ({"classes": 0}, "classes is 0"),
        ({"taps": 3}, "unknown entries"),
    ],
)
def test_wrong_configuration_is_named(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(CardError, match=complaint):
        zoo.build({**TINY, **change})


@torch.no_grad()
def test_two_classes_need_scores_that_are_not_normalised_over_them() -> None:
    """LayerNorm makes +-1 of any two numbers: how sure a patch is cannot be said, or learnt."""
    spread = {}
    for norm in ("layer", "scale"):
        module = randomised({**TINY, "classes": 2, "score_norm": norm})
        scale = module.decoder.mask_norm
        weight, bias = (scale.weight, scale.bias) if norm == "layer" else (scale.factor_k, 0)
        scores_12n = module.scores(image(48, 48)).flatten(2)
        plain = ((scores_12n.transpose(1, 2) - bias) / weight).abs()
        spread[norm] = float(plain.max() / plain.min())
    assert spread["layer"] < 1.2
    assert spread["scale"] > 1.5
