"""The pictures of ``dense-perception demo``: camera, depth and legend side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.core.storage import atomic_write


class Pictures:
    """Writes numbered side-by-side pictures with steady colours."""

    def __init__(self, folder: Path) -> None:
        from dense_perception.imaging.colorize import DepthColorizer

        folder.mkdir()
        self._folder = folder
        self._colorize = DepthColorizer()
        self._count = 0

    def draw(self, rgb_hwc: np.ndarray, depth_m: np.ndarray) -> None:
        """The next picture, from uint8 RGB (H, W, 3) and float32 metres (H, W).

        :raises InputError: if it cannot be written.
        """
        import cv2

        from dense_perception.imaging.colorize import side_by_side

        color_hwc = self._colorize(depth_m)
        near_m, far_m = self._colorize.limits_m or (0.5, 5.0)
        picture = side_by_side(rgb_hwc, color_hwc, near_m, far_m)
        done, data = cv2.imencode(".jpg", picture[..., ::-1])
        if not done:
            raise InputError(f"OpenCV cannot write a picture of shape {picture.shape}")
        with atomic_write(self._folder / f"{self._count:04d}.jpg") as stream:
            stream.write(data.tobytes())
        self._count += 1
