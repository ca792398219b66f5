"""Frame after frame: where a picture was cut, and depth averaged over time where nothing moved."""

from __future__ import annotations

import cv2
import numpy as np

from dense_perception.core.camera import Frame
from dense_perception.core.prediction import DepthKind, DepthMap
from dense_perception.imaging.resize import flow_size, resample

_THUMB_WIDTH, _THUMB_HEIGHT = 32, 24
_LEAST_CORRELATION = 0.4
# A jump of the clock is a cut too, in either direction.
_MOST_SECONDS = 2.0
_FLOW_WIDTH = 160
# Beyond this relative difference the surface is another one.
_MOST_DIFFERENCE = 0.2
_MOST_GRAY_DIFFERENCE = 20.0


class CutDetector:
    """Compares each frame with the one before it, as thumbnails of 32x24 gray pixels.

    The measure is their normalised correlation, which brightness and contrast do not change. A
    camera that turns by less than a third of its field of view from frame to frame keeps it high.
    """

    def __init__(self) -> None:
        self._before: np.ndarray | None = None
        self._stamp_ns = 0

    def is_cut(self, rgb_hwc: np.ndarray, stamp_ns: int) -> bool:
        """Whether HxWx3 ``uint8`` does not continue the frame before; the first frame does not."""
        now = _thumbnail(rgb_hwc)
        before, self._before = self._before, now
        elapsed_s = (stamp_ns - self._stamp_ns) / 1e9
        self._stamp_ns = stamp_ns
        if before is None or not 0 <= elapsed_s <= _MOST_SECONDS:
            return True
        norm = float(np.linalg.norm(now) * np.linalg.norm(before))
        if norm < 1e-3:  # two pictures without any structure
            return False
        return float((now * before).sum()) / norm < _LEAST_CORRELATION


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
        self._gray: np.ndarray | None = None
        self._log_hw: np.ndarray | None = None

    def apply(self, frame: Frame, depth: DepthMap, strength: float) -> DepthMap:
        """The stabilised map, NaN exactly where ``depth`` has it; other kinds than metric as is."""
        if strength <= 0 or depth.kind is not DepthKind.METRIC:
            self._gray = self._log_hw = None
            return depth
        is_cut = self._cuts.is_cut(frame.rgb_hwc, frame.stamp_ns)
        gray = _small_gray(frame.rgb_hwc)
        with np.errstate(divide="ignore", invalid="ignore"):
            log_hw = np.log(depth.values_hw)
        before_gray, before_log = self._gray, self._log_hw
        if (
            not is_cut
            and before_gray is not None
            and before_log is not None
            and (before_gray.shape, before_log.shape) == (gray.shape, log_hw.shape)
        ):
            log_hw = self._blended(gray, log_hw, before_gray, before_log, strength)
        self._gray, self._log_hw = gray, log_hw
        return DepthMap(np.exp(log_hw), DepthKind.METRIC)

    def _blended(
        self,
        gray: np.ndarray,
        log_hw: np.ndarray,
        before_gray: np.ndarray,
        before_log: np.ndarray,
        strength: float,
    ) -> np.ndarray:
        flow_hw2 = self._flow.calc(gray, before_gray, None)
        moved_gray = _sampled(before_gray, flow_hw2, cv2.INTER_LINEAR)
        changed = np.abs(moved_gray.astype(np.float32) - gray) > _MOST_GRAY_DIFFERENCE
        height, width = log_hw.shape
        flow_hw2 = cv2.resize(flow_hw2, (width, height), interpolation=cv2.INTER_LINEAR)
        flow_hw2 *= np.array([width / gray.shape[1], height / gray.shape[0]], np.float32)
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


def _small_gray(rgb_hwc: np.ndarray) -> np.ndarray:
    size = flow_size(rgb_hwc, _FLOW_WIDTH / rgb_hwc.shape[1])
    small_hwc = resample(rgb_hwc, *size)
    return cv2.cvtColor(small_hwc, cv2.COLOR_RGB2GRAY)


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


def _thumbnail(rgb_hwc: np.ndarray) -> np.ndarray:
    """Zero-mean gray, 24x32 ``float32``."""
    step = max(1, rgb_hwc.shape[1] // (4 * _THUMB_WIDTH))
    small = resample(rgb_hwc[::step, ::step, 1], _THUMB_WIDTH, _THUMB_HEIGHT).astype(np.float32)
    centred: np.ndarray = small - small.mean()
    return centred
