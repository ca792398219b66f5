"""Predicted depth of any kind beside its truth: at its size, as depth, in metres."""

from __future__ import annotations

import math

import numpy as np

from dense_perception.core.prediction import DepthKind, DepthMap
from dense_perception.imaging.resize import restore
from dense_perception.metrics.depth import KINDS, align_scale_shift
from dense_perception.metrics.protocols import Protocol

COMPARED = {
    DepthKind.METRIC: KINDS,
    DepthKind.RELATIVE: KINDS[1:],
    DepthKind.RELATIVE_INVERSE: KINDS[2:],
}
"""In which ways depth of a kind is compared, of :data:`~dense_perception.metrics.depth.KINDS`."""


def restored_depth(depth: DepthMap, height: int, width: int) -> np.ndarray:
    """(height, width) float32 of what grows with distance: inverse depth is turned round."""
    values_hw = restore(depth.values_hw, width, height)
    if depth.kind is DepthKind.RELATIVE_INVERSE:
        with np.errstate(divide="ignore"):
            values_hw = 1 / values_hw
    return values_hw


def judged_metres(
    restored_hw: np.ndarray, kind: DepthKind, true_m: np.ndarray, protocol: Protocol
) -> np.ndarray:
    """What :func:`restored_depth` gave in metres, as it is compared with (H, W) ``true_m``: what is
    metric limited as the protocol says, the rest with the scale and shift that fit the truth."""
    if kind is DepthKind.METRIC:
        return protocol.answer(restored_hw)
    return align_scale_shift(restored_hw, true_m, farthest(protocol))


def farthest(protocol: Protocol) -> float:
    """The farthest that aligned depth may be, metres."""
    return protocol.max_m if protocol.clamp else math.inf
