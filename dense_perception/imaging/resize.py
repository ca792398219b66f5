"""Resampling: a frame to the network's size, and its answers back, inverse in geometry.

All of it follows the half-pixel convention (pixel centre u goes to (u + 0.5) * scale - 0.5),
the one :meth:`~dense_perception.core.camera.Intrinsics.resized` assumes; only maps that a card
wants back by ``corners`` do not.

``stretch`` with ``area`` is what the package's own networks are trained with. The other rules are
those of the published networks, which were trained and are evaluated on pictures that keep their
aspect: each is the one of the authors' own code, with its rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from dense_perception.core.card import ModelCard
from dense_perception.core.card_specs import InputSpec
from dense_perception.core.errors import InputError
from dense_perception.core.windows import at_least

MOST_ASPECT = 4
"""A network of free sizes takes pictures up to this aspect; longer ones are stretched to it."""

_LINEAR_UP_TO = 4 / 3
# Four times the patch of the search, which starts on a quarter of the size.
_LEAST_FLOW_SIDE = 32
_MOST_FLOW_SIDE = 640
# Neighbouring unit vectors whose mean is shorter point in opposite directions.
_SHORTEST_NORMAL = 0.05
_METHODS = {"cubic": cv2.INTER_CUBIC, "linear": cv2.INTER_LINEAR}


def resample(
    image: np.ndarray, width: int, height: int, out: np.ndarray | None = None
) -> np.ndarray:
    """Resize HxW or HxWxC pixels: averages areas where a side shrinks, linear where it grows.

    ``out`` may take the result. Where the size is right already, the answer is ``image`` itself.
    """
    source_height, source_width = image.shape[:2]
    for size, method in (
        ((min(width, source_width), min(height, source_height)), cv2.INTER_AREA),
        ((width, height), cv2.INTER_LINEAR),
    ):
        if (image.shape[1], image.shape[0]) != size:
            target = out if size == (width, height) else None
            image = cv2.resize(image, size, dst=target, interpolation=method)
    return image


def flow_size(image: np.ndarray, scale: float) -> tuple[int, int]:
    """``(width, height)`` at which OpenCV's dense inverse search compares two pictures.

    Scaled, but never so small that the search writes beside its memory, which ends the process, and
    never so large as one column would be whose width is scaled to hundreds.
    """
    height, width = image.shape[:2]
    across, down = (
        min(max(round(scale * side), _LEAST_FLOW_SIDE), _MOST_FLOW_SIDE) for side in (width, height)
    )
    return across, down


def network_size(spec: InputSpec, width: int, height: int) -> tuple[int, int]:
    """``(width, height)`` that a picture of ``width`` x ``height`` pixels is resized to.

    ``stretch`` and ``letterbox`` are the card's size. ``lower_bound`` keeps the aspect and covers
    the card's size, ``minimal`` keeps it and takes the factor nearest 1 of the two that fit a side;
    both round to the nearest multiple. ``windows`` scales the short side to ``short_side``, unless
    the long side would exceed ``long_side``.
    """
    if spec.resize in ("stretch", "letterbox"):
        return spec.width, spec.height
    if spec.resize == "windows":
        return _for_windows(spec, width, height)
    by_width, by_height = spec.width / width, spec.height / height
    if spec.resize == "lower_bound":
        scale = max(by_width, by_height)
        least = (spec.width, spec.height)
    else:
        scale = by_width if abs(1 - by_width) < abs(1 - by_height) else by_height
        least = (spec.multiple, spec.multiple)
    sides = [
        _rounded(scale * side, spec.multiple, low)
        for side, low in zip((width, height), least, strict=True)
    ]
    most = MOST_ASPECT * max(spec.width, spec.height) // spec.multiple * spec.multiple
    return min(sides[0], most), min(sides[1], most)


def picture_box(spec: InputSpec, width: int, height: int) -> tuple[int, int, int, int]:
    """``(left, top, width, height)``: where a picture lies in the network's input of that picture.

    All of it, except with ``letterbox``. An odd rest is one pixel wider right and below.
    """
    across, down = network_size(spec, width, height)
    if spec.resize != "letterbox":
        return 0, 0, across, down
    scale = min(across / width, down / height)
    wide = min(max(1, round(scale * width)), across)
    high = min(max(1, round(scale * height)), down)
    if spec.place == "corner":
        return 0, 0, wide, high
    return (across - wide) // 2, (down - high) // 2, wide, high


def without_padding(array: np.ndarray, spec: InputSpec, width: int, height: int) -> np.ndarray:
    """The part of an HxW or HxWxC map of the network's size that shows the picture: a view."""
    if spec.resize != "letterbox":
        return array
    left, top, wide, high = picture_box(spec, width, height)
    return array[top : top + high, left : left + wide]


def scaled_size(spec: InputSpec, width: int, height: int, scale: float = 1.0) -> tuple[int, int]:
    """The first of the sizes on the way to :func:`network_size` with ``windows``.

    That is before its sides become multiples. ``scale`` is one of a multi-scale evaluation: the
    limits of both sides are scaled (and cut to whole pixels), and the picture keeps its own size as
    the start.
    """
    longest, shortest = int(spec.long_side * scale), int(spec.short_side * scale)
    factor = min(longest / max(width, height), shortest / min(width, height))
    return max(1, int(width * factor + 0.5)), max(1, int(height * factor + 0.5))


def multiple_size(spec: InputSpec, width: int, height: int) -> tuple[int, int]:
    """Both sides enlarged to the next multiple."""
    step = spec.multiple
    return -(-width // step) * step, -(-height // step) * step


def network_input(
    rgb_hwc: np.ndarray, spec: InputSpec, out_hwc: np.ndarray | None = None
) -> np.ndarray:
    """An HxWx3 ``uint8`` picture at the network's size, in its dtype; into ``out_hwc`` if given.

    :raises InputError: if ``out_hwc`` has another shape or dtype.
    """
    height, width = rgb_hwc.shape[:2]
    size = network_size(spec, width, height)
    rgb_hwc = rgb_hwc.astype(spec.dtype, copy=False)
    if spec.resize == "letterbox":
        return _letterboxed(rgb_hwc, spec, out_hwc)
    if spec.interpolation == "area":
        return prepare(rgb_hwc, *size, out_hwc)
    if spec.resize == "windows":
        fitted = scaled(rgb_hwc, spec)
        fitted = _resized(fitted, at_least(fitted.shape[1], fitted.shape[0], spec.width), spec)
    else:
        fitted = _resized(rgb_hwc, size, spec)
    # Already of this size: a copy into the buffer, or into a new array.
    return prepare(fitted, *size, out_hwc)


def _letterboxed(rgb_hwc: np.ndarray, spec: InputSpec, out_hwc: np.ndarray | None) -> np.ndarray:
    left, top, wide, high = picture_box(spec, rgb_hwc.shape[1], rgb_hwc.shape[0])
    if spec.interpolation == "area":
        fitted = prepare(rgb_hwc, wide, high)
    else:
        fitted = _resized(rgb_hwc, (wide, high), spec)
    if (wide, high) == (spec.width, spec.height):
        return prepare(fitted, wide, high, out_hwc)
    out_hwc = _target((spec.height, spec.width, 3), rgb_hwc, out_hwc)
    out_hwc[:] = np.array(spec.pad, out_hwc.dtype)
    out_hwc[top : top + high, left : left + wide] = fitted
    return out_hwc


def scaled(rgb_hwc: np.ndarray, spec: InputSpec, scale: float = 1.0) -> np.ndarray:
    """One view of a picture for windows: its scale, then its sides enlarged to multiples.

    Two steps, with pixels of whole bytes between them unless the card wants floats, as
    mmsegmentation resizes.
    """
    height, width = rgb_hwc.shape[:2]
    rgb_hwc = rgb_hwc.astype(spec.dtype, copy=False)
    view_hwc = _resized(rgb_hwc, scaled_size(spec, width, height, scale), spec)
    return _resized(view_hwc, multiple_size(spec, view_hwc.shape[1], view_hwc.shape[0]), spec)


def views(rgb_hwc: np.ndarray, card: ModelCard, scales: Sequence[float]) -> list[np.ndarray]:
    """A picture at several scales of its network's size, each made from the picture itself.

    A card of one fixed size is a square window's here: its short side, aspect kept.
    """
    spec = card.input
    if spec.free:
        return [network_input(rgb_hwc, _times(spec, scale)) for scale in scales]
    if spec.resize in ("stretch", "letterbox"):
        assert card.segmentation is not None
        side = card.segmentation.window or min(spec.height, spec.width)
        spec = InputSpec(
            side,
            side,
            "windows",
            interpolation="linear",
            short_side=side,
            long_side=8192,
            dtype=spec.dtype,
        )
    return [scaled(rgb_hwc, spec, scale) for scale in scales]


def prepare(
    rgb_hwc: np.ndarray, width: int, height: int, out_hwc: np.ndarray | None = None
) -> np.ndarray:
    """Stretch an HxWx3 ``uint8`` or ``float32`` image to ``width`` x ``height``.

    Averages areas where the image shrinks, interpolates linearly where it grows. Written into
    ``out_hwc`` (C-contiguous, of the target shape and the image's dtype) when given; returns the
    target.

    :raises InputError: if ``out_hwc`` has another shape or dtype.
    """
    out_hwc = _target((height, width, 3), rgb_hwc, out_hwc)
    rgb_hwc = _reduced(rgb_hwc, width, height)
    factors = (rgb_hwc.shape[1] / width, rgb_hwc.shape[0] / height)
    if min(factors) >= 1 and 1 < max(factors) <= _LINEAR_UP_TO:
        # Two neighbours cover the area nearly as well, in a tenth of the time.
        result = cv2.resize(rgb_hwc, (width, height), dst=out_hwc, interpolation=cv2.INTER_LINEAR)
    else:
        result = resample(rgb_hwc, width, height, out_hwc)
    if result is not out_hwc:
        np.copyto(out_hwc, result)
    return out_hwc


def _target(
    shape: tuple[int, int, int], rgb_hwc: np.ndarray, out_hwc: np.ndarray | None
) -> np.ndarray:
    """``out_hwc`` if it fits, or a new array of the shape and the picture's dtype.

    :raises InputError: if ``out_hwc`` has another shape or dtype.
    """
    if out_hwc is None:
        return np.empty(shape, rgb_hwc.dtype)
    if (out_hwc.shape, out_hwc.dtype) != (shape, rgb_hwc.dtype) or not out_hwc.flags.c_contiguous:
        raise InputError(
            f"the buffer is {out_hwc.dtype} {out_hwc.shape}, expected contiguous {rgb_hwc.dtype} "
            f"{shape}"
        )
    return out_hwc


def _reduced(rgb_hwc: np.ndarray, width: int, height: int) -> np.ndarray:
    """The image averaged over whole blocks of pixels, as far as its sides divide evenly.

    Exact and several times faster than averaging over fractions of pixels, which is left with a
    smaller image to do.
    """
    source_height, source_width = rgb_hwc.shape[:2]
    for factor in range(min(source_width // width, source_height // height), 1, -1):
        if source_width % factor == 0 and source_height % factor == 0:
            size = (source_width // factor, source_height // factor)
            return resample(rgb_hwc, *size)
    return rgb_hwc


def restore(depth_hw: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize an HxW ``float32`` map to ``width`` x ``height``; always a fresh array.

    Interpolates among valid pixels only: NaN neither spreads into valid neighbours nor is filled
    in. A target pixel is NaN where less than half of its support is valid.
    """
    if depth_hw.shape == (height, width):
        return depth_hw.copy()
    valid = np.isfinite(depth_hw)
    if valid.all():
        return resample(depth_hw, width, height)
    filled = np.where(valid, depth_hw, np.float32(0))
    total = resample(filled, width, height)
    weight = resample(valid.astype(np.float32), width, height)
    enough = weight >= 0.5
    result = np.full((height, width), np.nan, np.float32)
    np.divide(total, weight, out=result, where=enough)
    return result


def restore_labels(labels_hw: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize an HxW ``uint8`` map to ``width`` x ``height`` by the nearest pixel; a fresh array.

    Labels have no values in between; the confidence that belongs to them goes the same way.
    """
    if labels_hw.shape == (height, width):
        return labels_hw.copy()
    # Not OpenCV's INTER_NEAREST, which rounds down and so shifts by half a pixel.
    rows = ((np.arange(height) + 0.5) * (labels_hw.shape[0] / height)).astype(np.intp)
    columns = ((np.arange(width) + 0.5) * (labels_hw.shape[1] / width)).astype(np.intp)
    # Columns first, among few rows: whole rows are then copied at once.
    return labels_hw.take(columns, axis=1).take(rows, axis=0)


def restore_gray(gray_hw: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize an HxW ``uint8`` map of strengths to ``width`` x ``height``; always a fresh array."""
    resized = resample(gray_hw, width, height)
    return resized.copy() if resized is gray_hw else resized


def restore_normals(normals_hwc: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize HxWx3 ``float32`` unit vectors to ``width`` x ``height``, unit again; a fresh array.

    A stretched image shows the same scene, so the vectors themselves do not change. NaN where the
    neighbours are unknown, as in :func:`restore`, or cancel each other.
    """
    if normals_hwc.shape[:2] == (height, width):
        return normals_hwc.copy()
    # Plane by plane: NumPy walks contiguous planes several times faster than triples.
    if np.isfinite(normals_hwc).all():
        planes = [resample(plane, width, height) for plane in cv2.split(normals_hwc)]
    else:
        planes = [restore(plane, width, height) for plane in cv2.split(normals_hwc)]
    x_hw, y_hw, z_hw = planes
    length_hw = x_hw * x_hw
    square_hw = y_hw * y_hw
    length_hw += square_hw
    np.multiply(z_hw, z_hw, out=square_hw)
    length_hw += square_hw
    np.sqrt(length_hw, out=length_hw)
    if not length_hw.min() > _SHORTEST_NORMAL:
        length_hw[~(length_hw > _SHORTEST_NORMAL)] = np.nan
    for plane in planes:
        np.divide(plane, length_hw, out=plane)
    return cv2.merge(planes)


def fit_within(width: int, height: int, max_side: int) -> tuple[int, int]:
    """``(width, height)`` scaled down, aspect kept, so that no side exceeds ``max_side``."""
    longest = max(width, height)
    if longest <= max_side:
        return width, height
    scale = max_side / longest
    return max(1, round(width * scale)), max(1, round(height * scale))


def restore_depth(depth_hw: np.ndarray, width: int, height: int, method: str) -> np.ndarray:
    """A ``float32`` map back at ``width`` x ``height`` by the card's method; a fresh array.

    ``linear`` averages areas where the map shrinks. ``corners`` is bilinear with the corners'
    pixel centres on each other, ``cubic`` stays within the map's own range. A map with NaN goes the
    way of ``linear``, which keeps NaN where it is.
    """
    if method == "linear" or depth_hw.shape == (height, width) or not np.isfinite(depth_hw).all():
        return restore(depth_hw, width, height)
    if method == "corners":
        return _along_columns(_along_columns(depth_hw, height).T, width).T.copy()
    restored_hw = cv2.resize(depth_hw, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(restored_hw, depth_hw.min(), depth_hw.max(), out=restored_hw)


def _for_windows(spec: InputSpec, width: int, height: int) -> tuple[int, int]:
    size = multiple_size(spec, *scaled_size(spec, width, height))
    return at_least(*size, max(spec.width, spec.height))


def _rounded(side: float, multiple: int, least: int) -> int:
    """To the nearest multiple, half to even, but not below ``least``."""
    rounded = round(side / multiple) * multiple
    if rounded < least:
        rounded = int(-(-side // multiple)) * multiple
    return max(rounded, multiple)


def _times(spec: InputSpec, scale: float) -> InputSpec:
    step = spec.multiple
    height, width = (
        max(1, round(side * scale / step)) * step for side in (spec.height, spec.width)
    )
    return replace(spec, height=height, width=width)


def _resized(rgb_hwc: np.ndarray, size: tuple[int, int], spec: InputSpec) -> np.ndarray:
    if (rgb_hwc.shape[1], rgb_hwc.shape[0]) == size:
        return rgb_hwc
    # Without antialiasing, as the authors' code: their weights know these pixels.
    return cv2.resize(rgb_hwc, size, interpolation=_METHODS[spec.interpolation])


def _along_columns(map_hw: np.ndarray, height: int) -> np.ndarray:
    """Bilinear along the first axis, first and last row on each other."""
    rows = map_hw.shape[0]
    positions = np.linspace(0, rows - 1, height) if height > 1 else np.zeros(1)
    first = np.minimum(positions.astype(np.intp), max(rows - 2, 0))
    share = (positions - first).astype(np.float32)[:, None]
    return map_hw[first] * (1 - share) + map_hw[np.minimum(first + 1, rows - 1)] * share
