"""What :mod:`dense_perception.data.photometry` does, in batches of tensors on the training device.

:func:`pack` turns what was drawn for N views into tensors, in the process that prepares the batch;
:func:`apply` needs nothing but these tensors and never waits for the device. Both modules read the
same :class:`~dense_perception.data.augmentation.Appearance`; they agree within a gray level or two,
JPEG (a codec here, its arithmetic there) and the noise (the same distribution, other numbers)
apart. Pixels are float32 (N, 3, H, W), whole levels of 0 to 255.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dense_perception.data.augmentation import Appearance
from dense_perception.data.photometry import DARKEST, MIDDLE_GRAY, MOST_STOPS, SHOULDER
from dense_perception.training.device_jpeg import compressed, quantisation

Changes = Mapping[str, Tensor]
_PATCHES = 3
_PIXEL = torch.float32


def pack(looks: Sequence[Appearance], width: int, height: int) -> dict[str, Tensor]:
    """Tensors by ``step.name``; ``step.index`` says which of the N views a step is for."""
    tones = [look.tone for look in looks]
    packed = {
        "tone.metered": torch.tensor([tone.metered for tone in tones]),
        "tone.stops": _floats([tone.stops for tone in tones]),
        "tone.balance": _stacked([tone.balance for tone in tones]),
        "tone.exponent": _floats([tone.exponent for tone in tones]),
        "tone.contrast": _floats([tone.contrast for tone in tones]),
        "tone.pivot": _floats([tone.pivot for tone in tones]),
        "colours.matrix": _stacked([look.colours for look in looks]),
    }

    def indices(step: str, chosen: Sequence[bool]) -> bool:
        packed[f"{step}.index"] = torch.tensor([k for k, is_it in enumerate(chosen) if is_it])
        return any(chosen)

    textures = [look.texture for look in looks if look.texture is not None]
    if indices("texture", [look.texture is not None for look in looks]):
        packed["texture.kernel"] = _stacked([_centred(t.kernel, 5) for t in textures])
        packed["texture.mixing"] = _stacked([t.mixing for t in textures])
        packed["texture.share"] = _floats([t.share for t in textures])
    for step in ("light", "vignette"):
        grids = [getattr(look, step) for look in looks]
        if indices(step, [grid is not None for grid in grids]):
            packed |= _gains(step, [grid for grid in grids if grid is not None], width, height)
    blurs = [_lens(look) for look in looks]
    if indices("lens", [kernel is not None for kernel in blurs]):
        packed["lens.kernel"] = _stacked([_centred(k, 9) for k in blurs if k is not None])
    sizes = [look.low_resolution for look in looks]
    if indices("low", [size is not None for size in sizes]):
        packed["low.size"] = _floats([size for size in sizes if size is not None])
    noises = [look.noise for look in looks if look.noise is not None]
    if indices("noise", [look.noise is not None for look in looks]):
        packed["noise.read"] = _floats([noise.read for noise in noises])
        packed["noise.shot"] = _floats([noise.shot for noise in noises])
        packed["noise.is_gray"] = torch.tensor([noise.channels == 1 for noise in noises])
        packed["noise.seed"] = torch.tensor([noise.seed for noise in noises])
    masks = [look.sharpening for look in looks if look.sharpening is not None]
    if indices("sharpen", [look.sharpening is not None for look in looks]):
        packed["sharpen.amount"] = _floats([mask.amount for mask in masks])
        packed["sharpen.kernel"] = _stacked([_centred(_gaussian(m.sigma), 11) for m in masks])
    qualities = [look.jpeg_quality for look in looks]
    if indices("jpeg", [quality is not None for quality in qualities]):
        packed["jpeg.tables"] = torch.stack([quantisation(q) for q in qualities if q is not None])
    if indices("erase", [bool(look.patches) for look in looks]):
        packed |= _patches([look for look in looks if look.patches])
    return packed


def apply(rgb_nchw: Tensor, changes: Changes) -> Tensor:
    """From scene to file; the argument is not changed."""
    steps = (
        ("texture", _texture),
        ("light", _modulate),
        ("tone", _tone),
        ("colours", _colours),
        ("vignette", _modulate),
        ("lens", _lens_blur),
        ("low", _low_resolution),
        ("noise", _noise),
        ("sharpen", _sharpen),
        ("jpeg", _jpeg),
        ("erase", _erase),
    )
    for step, change in steps:
        values = {
            name.partition(".")[2]: tensor
            for name, tensor in changes.items()
            if name.startswith(f"{step}.")
        }
        if not values:
            continue
        index = values.get("index")
        if index is None:  # every view's
            rgb_nchw = _levels(change(rgb_nchw, values))
        elif len(index):
            changed = _levels(change(rgb_nchw[index], values))
            rgb_nchw = rgb_nchw.index_copy(0, index, changed)
    return rgb_nchw


def _levels(rgb_nchw: Tensor) -> Tensor:
    return rgb_nchw.round().clamp(0, 255)


def _texture(rgb_nchw: Tensor, change: Changes) -> Tensor:
    mixed_nchw = _transformed(rgb_nchw, change["mixing"])
    filtered_nchw = _filtered(mixed_nchw, change["kernel"])
    dims = (2, 3)
    mean, got_mean = rgb_nchw.mean(dims), filtered_nchw.mean(dims)
    spread = rgb_nchw.std(dims, correction=0)
    gain = spread / filtered_nchw.std(dims, correction=0).clamp(min=1e-3)
    offset = mean - gain * got_mean
    share = change["share"][:, None, None, None]
    altered_nchw = gain[..., None, None] * filtered_nchw + offset[..., None, None]
    return (1 - share) * rgb_nchw + share * altered_nchw


def _modulate(rgb_nchw: Tensor, change: Changes) -> Tensor:
    tall = torch.einsum("nhr,nrcj->nhcj", change["rows"], change["grid"])
    return rgb_nchw * torch.einsum("nhcj,nwc->njhw", tall, change["columns"])


def _tone(rgb_nchw: Tensor, change: Changes) -> Tensor:
    meter = (rgb_nchw[:, 1].mean((1, 2)) / 255).clamp(min=DARKEST) ** 2.2
    metered = (MIDDLE_GRAY / meter).log2().clamp(-MOST_STOPS, MOST_STOPS)
    stops = torch.where(change["metered"], metered, 0.0) + change["stops"]
    linear = (torch.arange(256, device=rgb_nchw.device, dtype=_PIXEL) / 255) ** 2.2
    bright = (change["balance"] * stops.exp2()[:, None])[..., None] * linear
    curve = bright ** (change["exponent"] / 2.2)[:, None, None]
    room = 1 - SHOULDER
    curve = torch.where(
        curve > SHOULDER, SHOULDER + room * ((curve - SHOULDER) / room).tanh(), curve
    )
    pivot, contrast = change["pivot"][:, None, None], change["contrast"][:, None, None]
    table_nc256 = _levels(((curve - pivot) * contrast + pivot) * 255)
    return table_nc256.gather(2, rgb_nchw.long().flatten(2)).view_as(rgb_nchw)


def _colours(rgb_nchw: Tensor, change: Changes) -> Tensor:
    return _transformed(rgb_nchw, change["matrix"])


def _lens_blur(rgb_nchw: Tensor, change: Changes) -> Tensor:
    return _filtered(rgb_nchw, change["kernel"])


def _low_resolution(rgb_nchw: Tensor, change: Changes) -> Tensor:
    height, width = rgb_nchw.shape[2:]
    small_width, small_height = change["size"].unbind(1)
    small_nchw = _means(small_height, height) @ rgb_nchw @ _means(small_width, width).mT
    small_nchw = _levels(small_nchw)
    return _between(small_height, height) @ small_nchw @ _between(small_width, width).mT


def _means(small: Tensor, size: int) -> Tensor:
    """(N, 1, size, size): row i < ``small`` averages the i-th of ``small`` equal stretches."""
    step = (size / small)[:, None, None, None]
    at = torch.arange(size, device=small.device, dtype=_PIXEL)
    low, high = at[:, None] * step, (at[:, None] + 1) * step
    return (torch.minimum(high, at + 1) - torch.maximum(low, at)).clamp(min=0) / step


def _between(small: Tensor, size: int) -> Tensor:
    """(N, 1, size, size): row i interpolates linearly between the first ``small`` columns."""
    at = torch.arange(size, device=small.device, dtype=_PIXEL)
    last = small[:, None] - 1
    source = ((at + 0.5) * (small[:, None] / size) - 0.5).clamp(min=0).minimum(last)
    return (1 - (source[:, None, :, None] - at).abs()).clamp(min=0)


def _noise(rgb_nchw: Tensor, change: Changes) -> Tensor:
    normal_nchw = normals(change["seed"], rgb_nchw[0].numel()).view_as(rgb_nchw)
    is_gray = change["is_gray"][:, None, None, None]
    normal_nchw = torch.where(is_gray, normal_nchw[:, :1], normal_nchw)
    read, shot = change["read"][:, None, None, None], change["shot"][:, None, None, None]
    return rgb_nchw + (rgb_nchw * (shot / 255) + read) * normal_nchw


def normals(seed_n: Tensor, count: int) -> Tensor:
    """(N, count) standard normal numbers of N seeds (int64), the same on every device.

    A counter's hash (SplitMix64; Steele 2014) gives two uniform numbers, and these two normal ones
    (Box and Muller 1958): no generator has a state that the order of batches could change.
    """
    half = (count + 1) // 2
    counter = torch.arange(1, half + 1, device=seed_n.device)
    z = seed_n[:, None] + counter * -0x61C8864680B583EB  # wraps around, as it is meant to
    z = (z ^ _shifted(z, 30)) * -0x40A7B892E31B1A47
    z = (z ^ _shifted(z, 27)) * -0x6B2FB644ECCEEE15
    z = z ^ _shifted(z, 31)
    first = (_shifted(z, 40).to(_PIXEL) + 0.5) * 2.0**-24
    second = (_shifted(z, 16) & 0xFFFFFF).to(_PIXEL) * 2.0**-24
    radius = (-2 * first.log()).sqrt()
    angle = 2 * torch.pi * second
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :count]


def _shifted(z: Tensor, bits: int) -> Tensor:
    """A shift to the right that fills with zeros: tensors know signed numbers alone."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _sharpen(rgb_nchw: Tensor, change: Changes) -> Tensor:
    amount = change["amount"][:, None, None, None]
    soft_nchw = _levels(_filtered(rgb_nchw, change["kernel"]))
    return (1 + amount) * rgb_nchw - amount * soft_nchw


def _jpeg(rgb_nchw: Tensor, change: Changes) -> Tensor:
    return compressed(rgb_nchw, change["tables"])


def _erase(rgb_nchw: Tensor, change: Changes) -> Tensor:
    height, width = rgb_nchw.shape[2:]
    y = torch.arange(height, device=rgb_nchw.device)[:, None]
    x = torch.arange(width, device=rgb_nchw.device)
    for box_n4, colour_n3, is_mean_n in zip(
        change["box"].unbind(1),
        change["colour"].unbind(1),
        change["is_mean"].unbind(1),
        strict=True,
    ):
        top, left, bottom, right = (side[:, None, None] for side in box_n4.unbind(1))
        inside_n1hw = ((y >= top) & (y < bottom) & (x >= left) & (x < right))[:, None]
        area = inside_n1hw.sum((2, 3)).clamp(min=1)
        mean_n3 = ((rgb_nchw * inside_n1hw).sum((2, 3)) / area).floor()
        fill_n3 = torch.where(is_mean_n[:, None], mean_n3, colour_n3)
        rgb_nchw = torch.where(inside_n1hw, fill_n3[..., None, None], rgb_nchw)
    return rgb_nchw


def _transformed(rgb_nchw: Tensor, matrix_n33: Tensor) -> Tensor:
    return (matrix_n33 @ rgb_nchw.flatten(2)).view_as(rgb_nchw)


def _filtered(rgb_nchw: Tensor, kernel_nkk: Tensor) -> Tensor:
    """Every view by its own kernel, mirrored at the border about the last pixel."""
    count, channels, height, width = rgb_nchw.shape
    reach = kernel_nkk.shape[-1] // 2
    padded = F.pad(rgb_nchw, (reach,) * 4, mode="reflect").flatten(0, 1)[None]
    weights = kernel_nkk.repeat_interleave(channels, dim=0)[:, None]
    filtered = F.conv2d(padded, weights, groups=count * channels)
    return filtered.view(count, channels, height, width)


def _lens(look: Appearance) -> np.ndarray | None:
    return look.motion if look.defocus is None else _gaussian(look.defocus)


def _gaussian(sigma: float) -> np.ndarray:
    """The kernel that OpenCV takes for pictures of bytes."""
    across = cv2.getGaussianKernel(round(6 * sigma + 1) | 1, sigma)
    return across @ across.T


def _centred(kernel: np.ndarray, side: int) -> np.ndarray:
    """With zeros around, to ``side`` x ``side``; a kernel's middle is at half of its side."""
    before = side // 2 - kernel.shape[0] // 2
    return np.pad(kernel, (before, side - before - kernel.shape[0]))


def _gains(step: str, grids: Sequence[np.ndarray], width: int, height: int) -> dict[str, Tensor]:
    rows, columns = max(len(g) for g in grids), max(g.shape[1] for g in grids)
    grown = [np.pad(g, ((0, rows - len(g)), (0, columns - g.shape[1]), (0, 0))) for g in grids]
    across = [_cubic(g.shape[1], width) for g in grids]
    down = [_cubic(len(g), height) for g in grids]
    return {
        f"{step}.grid": _stacked(grown),
        f"{step}.rows": _stacked([np.pad(m, ((0, 0), (0, rows - m.shape[1]))) for m in down]),
        f"{step}.columns": _stacked(
            [np.pad(m, ((0, 0), (0, columns - m.shape[1]))) for m in across]
        ),
    }


@lru_cache(maxsize=64)
def _cubic(few: int, many: int) -> np.ndarray:
    """(many, few): OpenCV's bicubic interpolation from few samples to many."""
    eye = np.eye(few, dtype=np.float32)
    return cv2.resize(eye, (few, many), interpolation=cv2.INTER_CUBIC)


def _patches(looks: Sequence[Appearance]) -> dict[str, Tensor]:
    """Boxes (N, 3, top left bottom right), empty where a view has fewer; colours (N, 3, 3)."""
    box = np.zeros((len(looks), _PATCHES, 4), np.int64)
    colour = np.zeros((len(looks), _PATCHES, 3), np.float32)
    is_mean = np.zeros((len(looks), _PATCHES), bool)
    for k, look in enumerate(looks):
        for j, patch in enumerate(look.patches):
            bottom, right = patch.top + patch.height, patch.left + patch.width
            box[k, j] = (patch.top, patch.left, bottom, right)
            is_mean[k, j] = patch.colour is None
            colour[k, j] = patch.colour or 0
    return {
        "erase.box": torch.from_numpy(box),
        "erase.colour": torch.from_numpy(colour),
        "erase.is_mean": torch.from_numpy(is_mean),
    }


def _floats(values: Sequence[float] | Sequence[Sequence[float]]) -> Tensor:
    return torch.tensor(values, dtype=_PIXEL)


def _stacked(arrays: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays).astype(np.float32))
