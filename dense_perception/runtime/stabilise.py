"""Temporal stabilisation of depth: what flickers is averaged, what moves or is new is not."""

from __future__ import annotations

import cv2
import numpy as np

from dense_perception.core.frame import Frame
from dense_perception.core.prediction import DepthKind, DepthMap
from dense_perception.runtime.cuts import CutDetector

_FLOW_WIDTH = 160
# Beyond this relative difference the surface is another one.
_MOST_DIFFERENCE = 0.2
_MOST_GREY_DIFFERENCE = 20.0


class DepthStabiliser:
    """Averages a camera's metric depth along the optical flow, in logarithms.

    Each pixel is blended with what the frame before said of the same place of the scene: with the
    weight ``strength`` (0 to 1) where both agree, with less the more they differ, and not at all
    where the picture changed, at cuts, or where the depth is another surface's. The place comes
    from dense inverse search flow (Kroeger et al. 2016) on pictures 160 pixels wide.

    A camera that approaches at v metres per frame sees depth that lags by about
    ``v * strength / (1 - strength)`` metres, which is the price; 0.7 is a good strength.
    """

    def __init__(self) -> None:
        self._cuts = CutDetector()
        self._flow = cv2.DISOpticalFlow_create(  # type: ignore[attr-defined]
            cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST
        )
        self._grey: np.ndarray | None = None
        self._log_hw: np.ndarray | None = None

    def apply(self, frame: Frame, depth: DepthMap, strength: float) -> DepthMap:
        """The stabilised map, NaN exactly where ``depth`` has it; other kinds than metric as is."""
        if strength <= 0 or depth.kind is not DepthKind.METRIC:
            self._grey = self._log_hw = None
            return depth
        is_cut = self._cuts.is_cut(frame.rgb_hwc, frame.stamp_ns)
        grey = _small_grey(frame.rgb_hwc)
        with np.errstate(divide="ignore", invalid="ignore"):
            log_hw = np.log(depth.values_hw)
        before_grey, before_log = self._grey, self._log_hw
        if (
            not is_cut
            and before_grey is not None
            and before_log is not None
            and (before_grey.shape, before_log.shape) == (grey.shape, log_hw.shape)
        ):
            log_hw = self._blended(grey, log_hw, before_grey, before_log, strength)
        self._grey, self._log_hw = grey, log_hw
        return DepthMap(np.exp(log_hw), DepthKind.METRIC)

    def _blended(
        self,
        grey: np.ndarray,
        log_hw: np.ndarray,
        before_grey: np.ndarray,
        before_log: np.ndarray,
        strength: float,
    ) -> np.ndarray:
        flow_hw2 = self._flow.calc(grey, before_grey, None)
        moved_grey = _sampled(before_grey, flow_hw2, cv2.INTER_LINEAR)
        changed = np.abs(moved_grey.astype(np.float32) - grey) > _MOST_GREY_DIFFERENCE
        height, width = log_hw.shape
        flow_hw2 = cv2.resize(flow_hw2, (width, height), interpolation=cv2.INTER_LINEAR)
        flow_hw2 *= np.array([width / grey.shape[1], height / grey.shape[0]], np.float32)
        changed_hw = cv2.resize(
            changed.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST
        )
        moved_log = _sampled(before_log, flow_hw2, cv2.INTER_NEAREST)
        difference = moved_log - log_hw
        # NaN on either side, and what left the picture before, fail the comparison.
        alike = np.clip(1 - (difference / np.float32(_MOST_DIFFERENCE)) ** 2, 0, None)
        weight = np.where(changed_hw == 0, np.float32(strength) * alike, np.float32(0))
        blended: np.ndarray = log_hw + np.nan_to_num(weight * difference, nan=0.0)
        return blended.astype(np.float32)


def _small_grey(rgb_hwc: np.ndarray) -> np.ndarray:
    height, width = rgb_hwc.shape[:2]
    size = (_FLOW_WIDTH, max(16, round(_FLOW_WIDTH * height / width)))
    return cv2.cvtColor(cv2.resize(rgb_hwc, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)


def _sampled(image: np.ndarray, flow_hw2: np.ndarray, interpolation: int) -> np.ndarray:
    """``image`` at each pixel displaced by its flow; NaN (0 for integers) outside."""
    height, width = image.shape
    columns, rows = np.meshgrid(
        np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    )
    outside = float("nan") if image.dtype == np.float32 else 0
    return cv2.remap(
        image,
        columns + flow_hw2[..., 0],
        rows + flow_hw2[..., 1],
        interpolation,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=outside,
    )
