"""Label maps: relabelled by a table, and laid over the picture."""

from __future__ import annotations

import cv2
import numpy as np

from dense_perception.core.relabel import Relabelling
from dense_perception.imaging.resize import resample


def relabel(labels_hw: np.ndarray, mapping: Relabelling) -> np.ndarray:
    """HxW labels of the network to those of ``mapping``: HxW ``uint8`` or ``uint16``.

    The answer is ``labels_hw`` itself where the mapping changes nothing.
    """
    if mapping.changes_nothing:
        return labels_hw
    if labels_hw.dtype == np.uint8:
        return cv2.LUT(labels_hw, mapping.table)
    return np.take(mapping.table, labels_hw)


def overlay(
    rgb_hwc: np.ndarray, labels_hw: np.ndarray, mapping: Relabelling, opacity: float
) -> np.ndarray:
    """The picture with each pixel tinted in its class's colour; void pixels keep the picture's.

    ``rgb_hwc``: ``uint8``, resized to the map's size where it differs. ``labels_hw`` are the
    network's labels. ``opacity`` of the tint: 0 to 1. Returns HxWx3 ``uint8`` RGB.
    """
    height, width = labels_hw.shape
    rgb_hwc = resample(rgb_hwc, width, height)
    if labels_hw.dtype == np.uint8:
        tint = cv2.applyColorMap(labels_hw, mapping.colors[:, None])
    else:
        tint = mapping.colors[labels_hw]
    mixed = cv2.addWeighted(rgb_hwc, 1 - opacity, tint, opacity, 0)
    void_hw = relabel(labels_hw, mapping) == mapping.void
    if void_hw.any():
        cv2.copyTo(rgb_hwc, void_hw.view(np.uint8), mixed)
    return mixed
