"""Image files of data sets: read as they are, refused by name."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.core.storage import require_regular_file


def read_image(path: Path, flags: int = cv2.IMREAD_UNCHANGED) -> np.ndarray:
    """The image as OpenCV decodes it: BGR where it has colours.

    :raises InputError: if it is missing, no regular file, or cannot be decoded.
    """
    require_regular_file(path)
    buffer = np.fromfile(path, np.uint8)
    image = cv2.imdecode(buffer, flags | cv2.IMREAD_IGNORE_ORIENTATION) if buffer.size else None
    if image is None:
        raise InputError(f"cannot read the image {path}")
    return image


def read_rgb(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB.

    :raises InputError: as :func:`read_image`.
    """
    return cv2.cvtColor(read_image(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def read_jpeg(path: Path) -> bytes | None:
    """The bytes of a JPEG file, so that a copy of it loses nothing; None for another format."""
    return path.read_bytes() if path.suffix.lower() in (".jpg", ".jpeg") else None
