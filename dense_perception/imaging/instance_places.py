"""Where things are in space: the median and the extent of their points in the optical frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import InputError
from dense_perception.core.prediction import Instances
from dense_perception.imaging.lenses import pixel_rays

LEAST_POINTS = 10
"""A thing with fewer pixels of known depth has no place."""
_MOST_POINTS = 1000  # of a large thing every so manieth pixel says as much
_LEFT_OUT = 0.05  # of the nearest, and of the farthest pixels: a mask's border often misses


@dataclass(frozen=True)
class Place:
    """In metres, x right, y down, z along the optical axis (REP 103): the ``median`` of the points
    by axis, and the box that holds them, ``low`` to ``high``, without the nearest and the farthest
    twentieth."""

    median: tuple[float, float, float]
    low: tuple[float, float, float]
    high: tuple[float, float, float]


def places(found: Instances, depth_m: np.ndarray, intrinsics: Intrinsics) -> list[Place | None]:
    """Of each row, ``None`` where there is too little depth.

    Of a model without masks the pixels in the middle half of a box, in both directions, count, and
    the box itself says how wide and high the thing is.

    :raises InputError: if the depth is not of the intrinsics' size, or the ids not of the depth's.
    """
    height, width = depth_m.shape
    ids_hw = found.ids_hw
    sizes = {"intrinsics": (intrinsics.height, intrinsics.width)}
    if ids_hw is not None:
        sizes["instance ids"] = ids_hw.shape
    for name, size in sizes.items():
        if size != depth_m.shape:
            raise InputError(f"the depth has shape {depth_m.shape}, the {name} are for {size}")
    rays = [np.broadcast_to(each, depth_m.shape) for each in pixel_rays(intrinsics)]
    answer: list[Place | None] = []
    for row, box in enumerate(found.boxes_n4.astype(np.float64)):
        inner = box if ids_hw is not None else _middle(box)
        left, top = (int(side) for side in np.floor(inner[:2]))
        right, bottom = (int(side) for side in np.ceil(inner[2:]))
        part = slice(max(top, 0), min(bottom, height)), slice(max(left, 0), min(right, width))
        z_hw, x_hw, y_hw = depth_m[part], rays[0][part], rays[1][part]
        shown_hw = np.isfinite(z_hw) & np.isfinite(x_hw)
        if ids_hw is not None:
            shown_hw &= ids_hw[part] == row + 1
        chosen = np.flatnonzero(shown_hw)
        if len(chosen) < LEAST_POINTS:
            answer.append(None)
            continue
        chosen = chosen[:: -(-len(chosen) // _MOST_POINTS)]
        at = np.unravel_index(chosen, z_hw.shape)
        z = z_hw[at]
        points_3n = np.stack([x_hw[at] * z, y_hw[at] * z, z]).astype(np.float64)
        # A few times as fast as NumPy's percentiles and median of so few numbers.
        order_3n = np.sort(points_3n, axis=1)
        last = len(chosen) - 1
        near, far = order_3n[2, [round(_LEFT_OUT * last), round((1 - _LEFT_OUT) * last)]]
        kept_3n = points_3n[:, (points_3n[2] >= near) & (points_3n[2] <= far)]
        low, high = kept_3n.min(axis=1), kept_3n.max(axis=1)
        median = order_3n[:, last // 2]
        if ids_hw is None:
            _widen(low, high, box, median[2], rays)
        answer.append(Place(_triple(median), _triple(low), _triple(high)))
    return answer


def _middle(box: np.ndarray) -> np.ndarray:
    quarter = (box[2:] - box[:2]) / 4
    return np.concatenate([box[:2] + quarter, box[2:] - quarter])


def _widen(
    low: np.ndarray, high: np.ndarray, box: np.ndarray, z: float, rays: list[np.ndarray]
) -> None:
    """To the box's sides at the depth ``z``, in place; sides whose rays are unknown stay."""
    height, width = rays[0].shape
    columns = np.clip(np.floor([box[0], box[2] - 1]), 0, width - 1).astype(int)
    rows = np.clip(np.floor([box[1], box[3] - 1]), 0, height - 1).astype(int)
    middle = int(rows.mean()), int(columns.mean())
    x, y = rays[0][middle[0], columns] * z, rays[1][rows, middle[1]] * z
    low[:2] = np.fmin(low[:2], [x[0], y[0]])
    high[:2] = np.fmax(high[:2], [x[1], y[1]])


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
