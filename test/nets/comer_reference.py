"""ViT-CoMer spelled out in float64 on a dictionary of weights, from the paper's section 3.

Nothing is shared with the package: attention loops over heads, sampling is ``grid_sample``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = Mapping[str, Tensor]


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def layer_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-6)
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def batch_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    shape = (1, -1, 1, 1)
    mean, var = (w[f"{name}.running_{s}"].reshape(shape) for s in ("mean", "var"))
    scaled = (x - mean) / torch.sqrt(var + 1e-5)
    return scaled * w[f"{name}.weight"].reshape(shape) + w[f"{name}.bias"].reshape(shape)


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def to_map(tokens: Tensor, rows: int, columns: int) -> Tensor:
    return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, rows, columns)


def to_tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def grids(h: int, w: int) -> list[tuple[int, int]]:
    """Of a patch grid at 1/16: the levels at 1/8, 1/16, 1/32."""
    return [(2 * h, 2 * w), (h, w), (h // 2, w // 2)]


def levels(c: Tensor, h: int, w: int) -> list[Tensor]:
    n = h * w // 4
    parts = (c[:, : 16 * n], c[:, 16 * n : 20 * n], c[:, 20 * n :])
    return [to_map(part, *grid) for part, grid in zip(parts, grids(h, w), strict=True)]


def deformable(w: Weights, name: str, query: Tensor, feature: Tensor, config, h, w_) -> Tensor:
    b, q, _ = query.shape
    heads, points = config.deform_heads, config.points
    value = linear(w, f"{name}.value_proj", feature)
    offsets = linear(w, f"{name}.sampling_offsets", query).reshape(b, q, heads, 3, points, 2)
    weights = linear(w, f"{name}.attention_weights", query).reshape(b, q, heads, 3 * points)
    weights = torch.exp(weights) / torch.exp(weights).sum(-1, keepdim=True)
    centres = exact_centres(h, w_, query.dtype)
    out = torch.zeros(b, q, value.shape[-1], dtype=query.dtype)
    d = value.shape[-1] // heads
    for level, map_ in enumerate(levels(value, h, w_)):
        rows, columns = map_.shape[-2:]
        for head in range(heads):
            one = map_[:, head * d : (head + 1) * d]
            for point in range(points):
                step = offsets[:, :, head, level, point] / torch.tensor([columns, rows])
                where = 2 * (centres + step) - 1
                picked = F.grid_sample(one, where[:, None], "bilinear", "zeros", False)[:, :, 0]
                share = weights[:, :, head, level * points + point]
                out[:, :, head * d : (head + 1) * d] += share[..., None] * picked.transpose(1, 2)
    return linear(w, f"{name}.output_proj", out)


def exact_centres(h: int, w: int, dtype: torch.dtype) -> Tensor:
    rows = [
        [(x + 0.5) / c, (y + 0.5) / r] for r, c in grids(h, w) for y in range(r) for x in range(c)
    ]
    return torch.tensor(rows, dtype=dtype)


def conv_ffn(w: Weights, name: str, c: Tensor, h: int, w_: int) -> Tensor:
    """The addend ffn(norm(c))."""
    hidden = linear(w, f"{name}.body.fc1", layer_norm(w, f"{name}.norm", c))
    kernel, bias = w[f"{name}.body.depthwise.weight"], w[f"{name}.body.depthwise.bias"]
    maps = [
        F.conv2d(m, kernel, bias, padding=1, groups=kernel.shape[0]) for m in levels(hidden, h, w_)
    ]
    joined = torch.cat([to_tokens(m) for m in maps], 1)
    return linear(w, f"{name}.body.fc2", gelu(joined))


def mrfp(w: Weights, name: str, c: Tensor, h: int, w_: int) -> Tensor:
    hidden = linear(w, f"{name}.fc1", c)
    half = hidden.shape[-1] // 2
    out = []
    for level, m in enumerate(levels(hidden, h, w_)):
        near, far = (
            F.conv2d(
                part,
                w[f"{name}.{kind}.{level}.weight"],
                w[f"{name}.{kind}.{level}.bias"],
                padding=padding,
                groups=half,
            )
            for part, kind, padding in ((m[:, :half], "near", 1), (m[:, half:], "far", 2))
        )
        both = torch.cat([near, far], 1)
        out.append(to_tokens(gelu(batch_norm(w, f"{name}.norms.{level}", both))))
    return linear(w, f"{name}.fc2", gelu(torch.cat(out, 1)))


def plain_attention(w: Weights, name: str, qkv: Tensor, heads: int) -> Tensor:
    q, k, v = qkv.chunk(3, -1)
    d = q.shape[-1] // heads
    out = []
    for head in range(heads):
        part = slice(head * d, (head + 1) * d)
        logits = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(d)
        out.append(torch.exp(logits) / torch.exp(logits).sum(-1, keepdim=True) @ v[..., part])
    return torch.cat(out, -1)


def vit_block(w: Weights, name: str, x: Tensor, config, window: int, h: int, w_: int) -> Tensor:
    qkv = linear(w, f"{name}.attention.qkv", layer_norm(w, f"{name}.norm1", x))
    if not window:
        mixed = plain_attention(w, name, qkv, config.heads)
    else:
        grid = to_map(qkv, h, w_)
        mixed_map = torch.zeros(x.shape[0], x.shape[2], h, w_, dtype=x.dtype)
        for top in range(0, h, window):
            for left in range(0, w_, window):
                cut = grid[:, :, top : top + window, left : left + window]
                rows, columns = cut.shape[-2:]
                full = torch.zeros(x.shape[0], grid.shape[1], window, window, dtype=x.dtype)
                full[:, :, :rows, :columns] = cut
                got = plain_attention(w, name, to_tokens(full), config.heads)
                mixed_map[:, :, top : top + rows, left : left + columns] = to_map(
                    got, window, window
                )[:, :, :rows, :columns]
        mixed = to_tokens(mixed_map)
    x = x + w[f"{name}.scale1.gamma_c"] * linear(w, f"{name}.attention.project", mixed)
    hidden = gelu(linear(w, f"{name}.mlp.fc1", layer_norm(w, f"{name}.norm2", x)))
    return x + w[f"{name}.scale2.gamma_c"] * linear(w, f"{name}.mlp.fc2", hidden)


def to_c(w: Weights, name: str, c: Tensor, x: Tensor, config, stage, extra, h, w_) -> Tensor:
    n = h * w_ // 4
    c = torch.cat([c[:, : 16 * n], c[:, 16 * n : 20 * n] + x, c[:, 20 * n :]], 1)
    if extra:
        c = c + conv_ffn(w, f"{name}.first", c, h, w_)
    if config.interaction[stage]:
        query = layer_norm(w, f"{name}.query_norm", c)
        feature = layer_norm(w, f"{name}.feature_norm", c)
        attended = deformable(
            w,
            f"{name}.interact.attention",
            layer_norm(w, f"{name}.interact.query_norm", query),
            layer_norm(w, f"{name}.interact.feature_norm", feature),
            config,
            h,
            w_,
        )
        c = query + attended  # the base is the normalised query
        c = c + conv_ffn(w, f"{name}.ffn", c, h, w_)
    return c


def stem(w: Weights, image: Tensor) -> list[Tensor]:
    def step(x: Tensor, conv: str, norm: str, stride: int) -> Tensor:
        x = F.conv2d(x, w[f"{conv}.weight"], None, stride, 1)
        return batch_norm(w, norm, x).clamp_min(0)

    x = image
    for index, stride in ((0, 2), (3, 1), (6, 1)):
        x = step(x, f"neck.stem.stem.{index}", f"neck.stem.stem.{index + 1}", stride)
    maps = [F.max_pool2d(x, 3, 2, 1)]
    for level in range(3):
        name = f"neck.stem.downs.{level}"
        maps.append(step(maps[-1], f"{name}.0", f"{name}.1", 2))
    return [
        F.conv2d(m, w[f"neck.stem.project.{i}.weight"], w[f"neck.stem.project.{i}.bias"])
        for i, m in enumerate(maps)
    ]


def bilinear(x: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def vit_comer(w: Weights, config, image: Tensor) -> list[Tensor]:
    """The four maps of the configuration's network."""
    h, w_ = image.shape[2] // 16, image.shape[3] // 16
    c1, *rest = stem(w, image)
    c = torch.cat([to_tokens(m) + w["neck.level_embed_3c"][i] for i, m in enumerate(rest)], 1)
    patches = F.conv2d(image, w["vit.patch_embed.weight"], w["vit.patch_embed.bias"], 16)
    table = to_map(w["vit.position.table_1nc"], *config.grid)
    x = to_tokens(patches + F.interpolate(table, (h, w_), mode="bicubic", align_corners=False))
    outs = []
    for stage in range(4):
        name = f"neck.stages.{stage}"
        if config.to_v[stage]:
            c = mrfp(w, f"{name}.mrfp", c, h, w_)
            n = h * w_ // 4
            c = torch.cat([c[:, : 16 * n], c[:, 16 * n : 20 * n] + x, c[:, 20 * n :]], 1)
            to_v = f"{name}.to_v"
            query = layer_norm(w, f"{to_v}.interact.query_norm", c)
            feature = layer_norm(w, f"{to_v}.interact.feature_norm", c)
            mixed = deformable(w, f"{to_v}.interact.attention", query, feature, config, h, w_)
            mixed = mixed + conv_ffn(w, f"{to_v}.ffn", mixed, h, w_)
            summed = sum(bilinear(m, (h, w_)) for m in levels(mixed, h, w_))
            x = x + w[f"{to_v}.gamma_c"] * to_tokens(summed)
        count = config.depth // 4
        for index in range(stage * count, (stage + 1) * count):
            window = 0 if index % 3 == 2 else config.window
            x = vit_block(w, f"vit.blocks.{index}", x, config, window, h, w_)
        if config.to_c[stage]:
            c = to_c(w, f"{name}.to_c", c, x, config, stage, False, h, w_)
        outs.append(to_map(x, h, w_))
    for index in range(config.extra):
        c = to_c(w, f"neck.stages.3.extra.{index}", c, x, config, 3, True, h, w_)
    c2, c3, c4 = levels(c, h, w_)
    c1 = c1 + F.conv_transpose2d(c2, w["neck.up.weight"], w["neck.up.bias"], 2)
    added = outs if config.stage_features else [outs[-1]] * 4
    return [
        batch_norm(w, f"neck.norms.{i}", m + bilinear(f, tuple(m.shape[-2:])))
        for i, (m, f) in enumerate(zip((c1, c2, c3, c4), added, strict=True))
    ]
