"""One camera image on its way in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import InputError


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """An RGB image, when and where it was taken, and with which camera.

    ``rgb_hwc``: HxWx3 ``uint8`` RGB. ``stamp_ns``: nanoseconds, passed through untouched.
    ``frame_id``: the optical frame's name, passed through untouched. ``intrinsics``: of this very
    image size, or ``None`` where the camera is not calibrated.

    :raises InputError: if the array is not HxWx3 uint8, is empty, or the intrinsics are of another
        size.
    """

    rgb_hwc: np.ndarray
    stamp_ns: int = 0
    frame_id: str = ""
    intrinsics: Intrinsics | None = None

    def __post_init__(self) -> None:
        image = self.rgb_hwc
        if not isinstance(image, np.ndarray):
            raise InputError(f"the image is a {type(image).__name__}, expected a NumPy array")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise InputError(
                f"the image is {image.dtype} of shape {image.shape}, expected uint8 of shape "
                "(height, width, 3) in RGB order: convert it first"
            )
        if image.shape[0] == 0 or image.shape[1] == 0:
            raise InputError(f"the image has shape {image.shape}, expected at least one pixel")
        k = self.intrinsics
        if k is not None and (k.width, k.height) != (image.shape[1], image.shape[0]):
            raise InputError(
                f"intrinsics are for {k.width}x{k.height}, the image is "
                f"{image.shape[1]}x{image.shape[0]}: scale them with Intrinsics.resized"
            )

    @property
    def width(self) -> int:
        return int(self.rgb_hwc.shape[1])

    @property
    def height(self) -> int:
        return int(self.rgb_hwc.shape[0])
