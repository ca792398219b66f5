"""The parity table as a picture: per cell a bar of its latency, its answer and where it is off."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dense_perception.core.errors import ArtefactError
from dense_perception.core.prediction import DepthKind

_TALL, _TEXT, _BAR = 150, 330, 260
_INK, _PALE, _BLUE = (40, 40, 40), (225, 225, 225), (190, 120, 40)
# An error of this share of the range is white in the error map.
_FULL_ERROR = 0.05


def draw(
    path: Path,
    summary: Mapping[str, Any],
    image_hwc: np.ndarray,
    outputs: Mapping[str, Mapping[str, np.ndarray]],
) -> None:
    """Write the PNG. ``outputs``: cell name to arrays (frames, height, width); frame 0 is shown.

    :raises ArtefactError: if it cannot be written.
    """
    rows = [row for row in summary["rows"] if row["name"] in outputs]
    want = outputs[summary["reference"]]
    key = "depth" if "depth" in want else "labels"
    slowest = max(row["p95_ms"] for row in rows)
    near_is_small = summary["depth"] in (DepthKind.METRIC.value, DepthKind.RELATIVE.value)
    tile_width = round(_TALL * image_hwc.shape[1] / image_hwc.shape[0])
    head = _head(summary, image_hwc, tile_width)
    strips = [head]
    for row in rows:
        got, true = outputs[row["name"]][key][0], want[key][0]
        text = np.full((_TALL, _TEXT, 3), 255, np.uint8)
        _write(text, row["name"], 14, 34, 0.7)
        _write(text, f"{row['file_mb']:.1f} MB, build {row['build_s']:.2f} s", 14, 64)
        _write(text, f"peak memory {row['peak_mb']:.0f} MB", 14, 88)
        _write(text, _errors(row), 14, 112)
        strips.append(
            np.hstack(
                [
                    text,
                    _bar(row["median_ms"], row["p95_ms"], slowest),
                    _tile(_colour(got, true, key, near_is_small), tile_width),
                    _tile(_error(got, true, key), tile_width),
                ]
            )
        )
        strips.append(np.full((2, strips[-1].shape[1], 3), 235, np.uint8))
    ok, encoded = cv2.imencode(".png", np.vstack(strips))
    try:
        if not ok:
            raise OSError("the picture could not be encoded")
        path.write_bytes(encoded.tobytes())
    except OSError as error:
        raise ArtefactError(f"cannot write {path}: {error.strerror or error}") from error


def _head(summary: Mapping[str, Any], image_hwc: np.ndarray, tile_width: int) -> np.ndarray:
    left = np.full((_TALL, _TEXT + _BAR, 3), 255, np.uint8)
    _write(left, f"{summary['model']}, {summary['network']}", 14, 38, 0.8)
    _write(left, f"against {summary['reference']}, {summary['frames']} frames", 14, 70)
    _write(left, str(summary["cpu"]), 14, 96)
    _write(left, "median and 95 % latency", _TEXT, 138)
    right = np.full((_TALL, tile_width, 3), 255, np.uint8)
    _write(right, "error, white:", 8, 112)
    _write(right, "5 % or other label", 8, 136)
    return np.hstack([left, _tile(image_hwc[..., ::-1], tile_width), right])


def _errors(row: Mapping[str, Any]) -> str:
    if "agreement" in row:
        return f"labels agree {100 * row['agreement']:.2f} %"
    return f"error mean {row['mean_of_range']:.1e} max {row['max_of_range']:.1e}"


def _bar(median_ms: float, p95_ms: float, slowest: float) -> np.ndarray:
    canvas = np.full((_TALL, _BAR, 3), 255, np.uint8)
    full = _BAR - 30
    long, longer = (round(full * min(1.0, value / slowest)) for value in (median_ms, p95_ms))
    cv2.rectangle(canvas, (0, 50), (max(longer, 2), 80), _PALE, -1)
    cv2.rectangle(canvas, (0, 50), (max(long, 2), 80), _BLUE, -1)
    _write(canvas, f"{median_ms:.1f} ms, 95 % {p95_ms:.1f}", 0, 104)
    return canvas


def _colour(got: np.ndarray, true: np.ndarray, key: str, near_is_small: bool) -> np.ndarray:
    if key == "labels":
        shades = (got.astype(np.int64) * 47 % 180).astype(np.uint8)
        hsv = np.stack([shades, np.full_like(shades, 150), np.full_like(shades, 220)], -1)
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    low, span = float(true.min()), float(np.ptp(true)) or 1.0
    share = (got - low) / span
    # Near is red and far is blue, as in every other picture of depth.
    return cv2.applyColorMap(_bytes(1 - share if near_is_small else share), cv2.COLORMAP_TURBO)


def _error(got: np.ndarray, true: np.ndarray, key: str) -> np.ndarray:
    if key == "labels":
        gray = _bytes((got != true).astype(np.float32))
    else:
        gray = _bytes(np.abs(got - true) / ((float(np.ptp(true)) or 1.0) * _FULL_ERROR))
    return cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR)


def _bytes(share: np.ndarray) -> np.ndarray:
    return (np.clip(np.nan_to_num(share, nan=1.0), 0, 1) * 255).astype(np.uint8)


def _tile(bgr_hwc: np.ndarray, width: int) -> np.ndarray:
    return cv2.resize(np.ascontiguousarray(bgr_hwc), (width, _TALL), interpolation=cv2.INTER_AREA)


def _write(canvas: np.ndarray, text: str, x: int, y: int, size: float = 0.5) -> None:
    cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, _INK, 1, cv2.LINE_AA)
