"""Boxes at every place of a map, from which detectors say where things are (Ren 2015, section 3.1).

Row-major places, the shapes of a place next to each other, as the published heads lay out their
channels. Centres are at multiples of the stride, not half a stride on.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


def anchors(
    size_hw: tuple[int, int],
    stride: int,
    scale: float,
    ratios: tuple[float, ...],
    like: Tensor,
) -> Tensor:
    """(rows * columns * ratios, 4) of the map of ``size_hw``.

    :param scale: side of the square anchor in strides; others have its area.
    :param ratios: height over width.
    """
    boxes = _anchors(tuple(size_hw), stride, scale, tuple(ratios))
    return torch.tensor(boxes, dtype=like.dtype, device=like.device)


@lru_cache(maxsize=64)
def _anchors(
    size_hw: tuple[int, int], stride: int, scale: float, ratios: tuple[float, ...]
) -> np.ndarray:
    root = np.sqrt(np.asarray(ratios))
    half_a2 = np.stack([1 / root, root], axis=-1) * (stride * scale / 2)
    y, x = np.mgrid[: size_hw[0], : size_hw[1]] * stride
    centre_p12 = np.stack([x, y], axis=-1).reshape(-1, 1, 2)
    return np.concatenate([centre_p12 - half_a2, centre_p12 + half_a2], axis=-1).reshape(-1, 4)


def sizes(image_hw: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """Rows and columns of the maps at ``strides`` of an image, rounded up."""
    return [(-(-image_hw[0] // stride), -(-image_hw[1] // stride)) for stride in strides]
