"""Arrays to compressed pictures; ``decode.py`` has the way back."""

from __future__ import annotations

import struct

import cv2
import numpy as np

from dense_perception.core.errors import InputError

# A little of the possible compression for a third of the time.
_PNG_LEVEL = 1
# A step of stored depth is metres^2 / A. The first is what compressed_depth_image_transport has by
# default; the second is wanted for each metre of the farthest pixel, a step of 0.1 %; the third is
# kept whatever is near: closer than 1.5 cm, depth is then stored as 1.5 cm.
_QUANT_A, _QUANT_A_PER_M, _LEAST_QUANT_A = 10100.0, 1000.0, 1000.0
_LAST = 65535.0
_INVERSE_DEPTH = 0


def encode_jpeg(pixels: np.ndarray, quality: int = 80) -> bytes:
    """HxWx3 RGB or HxW gray ``uint8`` as JPEG; ``quality`` is 1 to 100."""
    return _encoded(".jpg", _bgr(pixels), [cv2.IMWRITE_JPEG_QUALITY, quality])


def encode_png(pixels: np.ndarray) -> bytes:
    """HxWx3 RGB ``uint8``, or HxW ``uint8`` or ``uint16``, as PNG without loss."""
    return _encoded(".png", _bgr(pixels), [cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL])


def encode_compressed_depth(depth_hw: np.ndarray) -> bytes:
    """Depth as ``compressed_depth_image_transport`` packs it: a header of 12 bytes, then a PNG.

    ``uint16`` millimetres are stored as they are. ``float32`` metres are stored as 16 bits of
    inverse depth, A / metres + B, whose A and B are in the header: in steps of 0.1 mm at 1 m, which
    grow with the square of the distance; finer where a frame is far, coarser where it is also very
    near. 0, NaN, infinite and negative values are invalid.
    """
    if depth_hw.dtype == np.uint16:
        return struct.pack("<iff", _INVERSE_DEPTH, 0.0, 0.0) + encode_png(depth_hw)
    stored_hw, quant_a, quant_b = _inverse(depth_hw)
    return struct.pack("<iff", _INVERSE_DEPTH, quant_a, quant_b) + encode_png(stored_hw)


def _inverse(depth_hw: np.ndarray) -> tuple[np.ndarray, float, float]:
    """HxW ``uint16`` of 1 to 65535, 0 where invalid, and A and B."""
    valid_hw = (depth_hw > 0) & (depth_hw < np.inf)
    least = float(np.min(depth_hw, initial=np.inf, where=valid_hw))
    most = float(np.max(depth_hw, initial=0.0, where=valid_hw))
    if most == 0:
        return np.zeros(depth_hw.shape, np.uint16), _QUANT_A, 1.0
    # The farthest pixel is stored as 1, so that no limit of the format cuts anything off.
    wanted = max(_QUANT_A, _QUANT_A_PER_M * most)
    fitting = (_LAST - 1) / max(1 / least - 1 / most, 1e-12)
    quant_a = max(_LEAST_QUANT_A, min(wanted, fitting))
    quant_b = 1 - quant_a / most
    inverse_hw = np.zeros(depth_hw.shape, np.float32)
    np.divide(np.float32(quant_a), depth_hw, out=inverse_hw, where=valid_hw)
    # The half rounds, as a cast to whole numbers cuts.
    np.add(inverse_hw, np.float32(quant_b + 0.5), out=inverse_hw, where=valid_hw)
    return np.minimum(inverse_hw, np.float32(_LAST)).astype(np.uint16), quant_a, quant_b


def _bgr(pixels: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels


def _encoded(suffix: str, pixels: np.ndarray, options: list[int]) -> bytes:
    done, data = cv2.imencode(suffix, pixels, options)
    if not done:
        raise InputError(f"OpenCV writes no {suffix} of {pixels.dtype} {pixels.shape}")
    return data.tobytes()
