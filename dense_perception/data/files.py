"""Image files of data sets: read as they are, refused by name."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.core.limits import MAX_PIXELS
from dense_perception.core.storage import read_file
from dense_perception.imaging.decode import decode_labels
from dense_perception.imaging.encodings import check_pixels
from dense_perception.imaging.picture_headers import read_header


def read_image(path: Path, flags: int = cv2.IMREAD_UNCHANGED) -> np.ndarray:
    """The image as OpenCV decodes it: BGR where it has colours.

    :raises InputError: if it is missing, no regular file, or cannot be decoded.
    """
    content = read_file(path)
    try:
        header = read_header(memoryview(content))
        check_pixels(f"{header.kind} picture", header.width, header.height, MAX_PIXELS)
        buffer = np.frombuffer(content, np.uint8)
        image = cv2.imdecode(buffer, flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except (InputError, cv2.error) as error:
        raise InputError(f"cannot read the image {path}: {error}") from error
    if image is None:
        raise InputError(f"cannot read the image {path}: it is damaged")
    return image


def read_labels(path: Path) -> np.ndarray:
    """(H, W) uint8 or uint16 of a PNG; of one with a palette its indices.

    :raises InputError: as :func:`read_image`, or if it has several channels.
    """
    try:
        return decode_labels(read_file(path))
    except InputError as error:
        raise InputError(f"cannot read the labels {path}: {error}") from error


def read_rgb(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB.

    :raises InputError: as :func:`read_image`.
    """
    return cv2.cvtColor(read_image(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def read_jpeg(path: Path) -> bytes | None:
    """The bytes of a JPEG file, so that a copy of it loses nothing; None for another format."""
    return read_file(path) if path.suffix.lower() in (".jpg", ".jpeg") else None
