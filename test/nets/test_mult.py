"""MulT: the shared attention against loops over tokens, and the contract of tasks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dense_perception.core.errors import InputError
from dense_perception.nets.mult import TASKS, VARIANTS, DecoderBlock, MulT, MulTConfig
from test.support.randomise import randomise

TINY = MulTConfig(
    dim=8,
    depths=(1, 1, 1, 1),
    heads=(1, 2, 2, 2),
    window=3,
    mlp_ratio=2.0,
    decoder_depths=(1, 1, 1, 2),
    classes=5,
)


def naive_layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = x - x.mean()
    return centred / torch.sqrt((centred**2).mean() + 1e-5) * weight + bias


def naive_block(block: DecoderBlock, task: str, stream_hwc: Tensor, encoder_hwc: Tensor) -> Tensor:
    """One task's output of a decoder block on one image, a token and a head at a time.

    A token attends to those that share its window after the shift and were its neighbours
    before: on each axis the shifted grid has three regions, as in Swin.
    """
    w = dict(block.named_parameters())
    mine = f"tasks.{task}"
    height, width, dim = stream_hwc.shape
    size, shift, heads = block.window, block.shift, block.shared.heads
    rows, columns = (math.ceil(side / size) * size for side in (height, width))

    def linear(name: str, x: Tensor) -> Tensor:
        return w[f"{name}.weight"] @ x + w[f"{name}.bias"]

    def token(grid_hwc: Tensor, y: int, x: int, normed: bool) -> Tensor:
        if y >= height or x >= width:
            return torch.zeros(dim, dtype=grid_hwc.dtype)
        if not normed:
            return grid_hwc[y, x]
        return naive_layer_norm(grid_hwc[y, x], w[f"{mine}.norm1.weight"], w[f"{mine}.norm1.bias"])

    def region(position: int, side: int) -> int:
        return (position >= side - size) + (position >= side - shift) if shift else 0

    places = [(y, x) for y in range(rows) for x in range(columns)]
    shifted = {(y, x): ((y - shift) % rows, (x - shift) % columns) for y, x in places}
    query = {p: linear("shared.query", token(encoder_hwc, *p, False)) for p in places}
    key = {p: linear("shared.key", token(encoder_hwc, *p, False)) for p in places}
    value = {p: linear(f"{mine}.value", token(stream_hwc, *p, True)) for p in places}
    d = dim // heads
    out = torch.zeros_like(stream_hwc)
    for y in range(height):
        for x in range(width):
            sy, sx = shifted[y, x]
            mates = [
                p
                for p in places
                if (shifted[p][0] // size, shifted[p][1] // size) == (sy // size, sx // size)
                and region(shifted[p][0], rows) == region(sy, rows)
                and region(shifted[p][1], columns) == region(sx, columns)
            ]
            mixed = []
            for head in range(heads):
                part = slice(head * d, (head + 1) * d)
                logits = []
                for p in mates:
                    down, right = sy - shifted[p][0] + size - 1, sx - shifted[p][1] + size - 1
                    bias = w["shared.bias.table"][down * (2 * size - 1) + right, head]
                    logits.append(query[y, x][part] @ key[p][part] / math.sqrt(d) + bias)
                shares = torch.stack(logits).exp()
                shares = shares / shares.sum()
                mixed.append(sum(s * value[p][part] for s, p in zip(shares, mates, strict=True)))
            one = stream_hwc[y, x] + linear(f"{mine}.project", torch.cat(mixed))
            normed = naive_layer_norm(one, w[f"{mine}.norm2.weight"], w[f"{mine}.norm2.bias"])
            hidden = linear(f"{mine}.mlp.fc1", normed)
            hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
            out[y, x] = one + linear(f"{mine}.mlp.fc2", hidden)
    return out


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("size_hw", [(3, 6), (5, 4)])
def test_the_shared_attention_equals_the_equations(shift: int, size_hw: tuple[int, int]) -> None:
    block = DecoderBlock(4, 2, 3, shift, ("depth", "normals"), mlp_ratio=2.0).double().eval()
    randomise(block)
    encoder = torch.randn(2, *size_hw, 4, dtype=torch.float64)
    streams = {t: torch.randn(2, *size_hw, 4, dtype=torch.float64) for t in ("depth", "normals")}
    with torch.no_grad():
        got = block(streams, encoder)
        for task in streams:
            naive = naive_block(block, task, streams[task][1], encoder[1])
            torch.testing.assert_close(got[task][1], naive, atol=1e-10, rtol=0)


def test_the_shared_attention_s_gradients_equal_the_equations() -> None:
    """Of a loss on two tasks: both reach the one attention, each its own values alone."""
    block = DecoderBlock(4, 2, 3, 1, ("depth", "normals"), mlp_ratio=2.0).double().eval()
    randomise(block)
    encoder = torch.randn(1, 5, 4, 4, dtype=torch.float64, requires_grad=True)
    streams = {
        task: torch.randn(1, 5, 4, 4, dtype=torch.float64, requires_grad=True)
        for task in ("depth", "normals")
    }
    weights = {task: torch.randn(5, 4, 4, dtype=torch.float64) for task in streams}
    leaves = {"encoder": encoder, **streams, **dict(block.named_parameters())}

    def slopes(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        loss = sum((outputs[task] * weights[task]).sum() for task in streams)
        return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))

    got = slopes({task: out[0] for task, out in block(streams, encoder).items()})
    wanted = slopes(
        {task: naive_block(block, task, stream[0], encoder[0]) for task, stream in streams.items()}
    )
    for name, slope in wanted.items():
        torch.testing.assert_close(got[name], slope, atol=1e-9, rtol=1e-9, msg=name)
    # A key's bias moves all scores of a token alike: softmax does not see it.
    assert wanted["shared.key.bias"].abs().max() < 1e-9
    assert wanted["shared.bias.table"].abs().max() > 1e-3


def test_every_task_gives_its_map_at_the_image_size() -> None:
    net = MulT(TINY).eval()
    randomise(net)
    with torch.no_grad():
        out = net(torch.randn(2, 3, 44, 70))
    assert {name: tuple(value.shape) for name, value in out.items()} == {
        "logits": (2, 5, 44, 70),
        "depth": (2, 44, 70),
        "normals": (2, 3, 44, 70),
        "reshading": (2, 44, 70),
        "keypoints": (2, 44, 70),
        "edges": (2, 44, 70),
    }
    assert 0 < float(out["depth"].min()) < float(out["depth"].max()) < TINY.max_m
    torch.testing.assert_close(out["normals"].norm(dim=1), torch.ones(2, 44, 70))


def test_a_task_does_not_depend_on_the_others_streams() -> None:
    """Dropping tasks that are not the reference changes nothing for those that remain."""
    everything = MulT(TINY).double().eval()
    randomise(everything)
    few_config = MulTConfig(**{**vars(TINY), "tasks": ("depth", "normals")})
    few = MulT(few_config).double().eval()
    own = few.state_dict()
    few.load_state_dict({k: v for k, v in everything.state_dict().items() if k in own})
    image = torch.randn(1, 3, 32, 48, dtype=torch.float64)
    with torch.no_grad():
        a, b = everything(image), few(image)
    assert set(b) == {"depth", "normals"}
    for task in b:
        torch.testing.assert_close(a[task], b[task], atol=1e-12, rtol=0)


def test_the_attention_is_the_reference_task_of_the_encoder_alone() -> None:
    """Disturbing one task's own layers leaves the others as they were."""
    net = MulT(TINY).eval()
    randomise(net)
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        before = net(image)
        for name, parameter in net.named_parameters():
            if ".depth." in name:
                parameter.add_(1)
        after = net(image)
    for task in before:
        assert torch.equal(before[task], after[task]) == (task != "depth")


def test_the_heads_interpolation_commutes_with_the_linear_layer() -> None:
    net = MulT(TINY).double().eval()
    grid = torch.randn(1, 8, 12, 8, dtype=torch.float64)
    with torch.no_grad():
        got = net._output("edges", grid, (32, 48))
        full = F.interpolate(
            net.norms["edges"](grid).permute(0, 3, 1, 2), (32, 48), mode="bilinear"
        )
        late = net.heads["edges"](full.permute(0, 2, 3, 1)).squeeze(-1)
    torch.testing.assert_close(got, late, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"tasks": ()},
        {"tasks": ("depth", "depth")},
        {"tasks": ("depth", "colour")},
        {"tasks": ("depth",), "reference": "normals"},
        {"classes": 1},
        {"max_m": 0.0},
        {"decoder_depths": (2, 2, 2, 0)},
    ],
)
def test_impossible_configurations_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InputError, match="expected"):
        MulTConfig(**changes)


def test_all_sizes_build_and_a_further_task_costs_less_than_an_encoder() -> None:
    with torch.device("meta"):
        for config in VARIANTS.values():
            net = MulT(config)
            assert set(net.heads) == set(TASKS)
        one = MulT(MulTConfig(tasks=("normals",)))
        two = MulT(MulTConfig(tasks=("normals", "depth")))
    sizes = [sum(p.numel() for p in part.parameters()) for part in (one, two, one.encoder)]
    assert sizes[1] - sizes[0] < sizes[2]
