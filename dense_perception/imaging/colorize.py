"""Colourised previews of depth: by inverse depth, and beside the image with a legend in metres."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from dense_perception.imaging.resize import resample

_PERCENTILES = (2.0, 98.0)
_SAMPLE = 5_000  # pixels that the percentiles are taken of, at least


class DepthColorizer:
    """Colours depth maps with limits that follow the scene slowly: a video does not flicker.

    Near is red, far is blue, invalid is black. The limits are the 2nd and 98th percentile of the
    inverse depth, smoothed over frames by ``momentum`` (0: each frame for itself); a jump of more
    than a factor of two (a new scene) is followed at once. ``near_m`` and ``far_m`` fix a limit.
    """

    def __init__(
        self, momentum: float = 0.9, near_m: float | None = None, far_m: float | None = None
    ) -> None:
        self.momentum = momentum
        self._fixed = (near_m, far_m)
        self._limits: tuple[float, float] | None = None

    @property
    def limits_m(self) -> tuple[float, float] | None:
        """The nearest and the farthest coloured depth in metres; ``None`` before the first map."""
        return self._limits

    def __call__(self, depth_m: np.ndarray) -> np.ndarray:
        """HxW ``float32`` metres with NaN to HxWx3 ``uint8`` RGB."""
        self._limits = self._follow(robust_limits(depth_m))
        return colorize(depth_m, *(self._limits or (0.5, 5.0)))

    def _follow(self, target: tuple[float, float] | None) -> tuple[float, float] | None:
        if target is None:
            return self._limits
        near, far = target
        if self._limits is not None:
            keep = self.momentum
            old_near, old_far = self._limits
            jumps = any(
                max(new / old, old / new) > 2 for new, old in ((near, old_near), (far, old_far))
            )
            if not jumps:
                near = 1 / (keep / old_near + (1 - keep) / near)
                far = 1 / (keep / old_far + (1 - keep) / far)
        fixed_near, fixed_far = self._fixed
        near = near if fixed_near is None else fixed_near
        far = far if fixed_far is None else fixed_far
        return near, max(far, near * 1.01)


def robust_limits(depth_m: np.ndarray) -> tuple[float, float] | None:
    """The 2nd and 98th percentile of the valid depth in metres; ``None`` without valid pixels."""
    stride = max(1, int(np.sqrt(depth_m.size / _SAMPLE)))
    sample = depth_m[::stride, ::stride]
    sample = sample[np.isfinite(sample) & (sample > 0)]
    if sample.size == 0:
        return None
    near, far = np.percentile(sample, _PERCENTILES)
    return float(near), float(max(far, near * 1.01))


def colorize(depth_m: np.ndarray, near_m: float, far_m: float) -> np.ndarray:
    """HxW metres with NaN to HxWx3 ``uint8`` RGB: linear in inverse depth between the limits."""
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 254 / (1 / near_m - 1 / far_m)
        level = np.float32(scale) / depth_m
        # From 1 to 255, as index 0 is kept for invalid; the half rounds.
        level += np.float32(1.5 - scale / far_m)
    np.clip(level, 1.5, 255.5, out=level)
    invalid = ~(depth_m > 0)  # NaN compares false
    if invalid.any():
        level[invalid] = 0
    return cv2.applyColorMap(level.astype(np.uint8), _palette())


def side_by_side(
    rgb_hwc: np.ndarray,
    depth_rgb_hwc: np.ndarray,
    near_m: float,
    far_m: float,
    *,
    metric: bool = True,
) -> np.ndarray:
    """The picture, its coloured depth, and between near and far a legend in metres: HxW'x3 RGB.

    The picture is resized to the depth map's size. Depth that is not ``metric`` has a legend that
    says near and far alone.
    """
    height, width = depth_rgb_hwc.shape[:2]
    rgb_hwc = resample(rgb_hwc, width, height)
    return np.hstack([rgb_hwc, depth_rgb_hwc, _legend(height, near_m, far_m, metric)])


def _legend(height: int, near_m: float, far_m: float, metric: bool) -> np.ndarray:
    """A strip of colours, near at the bottom, with five labelled depths, or with near and far."""
    scale = max(height / 480, 0.4)
    bar, strip = round(18 * scale), round(88 * scale)
    inverse = np.linspace(1 / far_m, 1 / near_m, height, dtype=np.float32)[:, None]
    legend = np.zeros((height, strip, 3), np.uint8)
    legend[:, :bar] = colorize(np.repeat(1 / inverse, bar, axis=1), near_m, far_m)
    margin = min(round(14 * scale), height // 2)
    rows = np.linspace(margin, max(margin, height - 1 - margin // 2), 5 if metric else 2)
    for row in rows.astype(int):
        depth = 1 / float(inverse[min(row, height - 1), 0])
        text = f"{depth:.1f} m" if depth < 100 else f"{depth:.0f} m"
        if not metric:
            text = "far" if row == int(rows[0]) else "near"
        position = (bar + round(6 * scale), int(row + 5 * scale))
        cv2.putText(
            legend,
            text,
            position,
            cv2.FONT_HERSHEY_SIMPLEX,
            0.45 * scale,
            (255, 255, 255),
            1,
            cv2.LINE_AA,
        )
    return legend


@lru_cache(maxsize=1)
def _palette() -> np.ndarray:
    """256 RGB colours; index 0 is black and means invalid."""
    bgr = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_TURBO)
    palette = np.ascontiguousarray(bgr[..., ::-1])
    palette[0] = 0
    return palette
