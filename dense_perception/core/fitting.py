"""Which size a picture gets for the network, and where windows lie in it: whole numbers alone.

Published networks were trained and are evaluated on pictures that keep their aspect. Each rule is
the one of the authors' own code, with its rounding.
"""

from __future__ import annotations

from dense_perception.core.card_specs import InputSpec
from dense_perception.core.errors import InputError

MOST_ASPECT = 4
"""A network of free sizes takes pictures up to this aspect; longer ones are stretched to it."""


def network_size(spec: InputSpec, width: int, height: int) -> tuple[int, int]:
    """``(width, height)`` that a picture of ``width`` x ``height`` pixels is resized to.

    ``stretch`` is the card's size. ``lower_bound`` keeps the aspect and covers the card's size,
    ``minimal`` keeps it and takes the factor nearest 1 of the two that fit a side; both round to
    the nearest multiple. ``windows`` scales the short side to ``short_side``, unless the long side
    would exceed ``long_side``.
    """
    if spec.resize == "stretch":
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


def at_least(width: int, height: int, window: int) -> tuple[int, int]:
    """The short side at least ``window``, the aspect kept, the long side cut to whole pixels."""
    short = min(width, height)
    if short >= window:
        return width, height
    return max(window, width * window // short), max(window, height * window // short)


def window_starts(side: int, window: int, stride: int) -> list[int]:
    """First pixels of the windows along a side; the last window ends with the image.

    :raises InputError: if the window is larger than the side, or the stride is not in 1 to window.
    """
    if window > side:
        raise InputError(
            f"the window of {window} pixels is larger than the image's side of {side}: enlarge "
            "the image first"
        )
    if not 1 <= stride <= window:
        raise InputError(f"stride is {stride}, expected 1 to {window}")
    return [start for start in range(0, side, stride) if start < side - window] + [side - window]


def _for_windows(spec: InputSpec, width: int, height: int) -> tuple[int, int]:
    size = multiple_size(spec, *scaled_size(spec, width, height))
    return at_least(*size, max(spec.width, spec.height))


def _rounded(side: float, multiple: int, least: int) -> int:
    """To the nearest multiple, half to even, but not below ``least``."""
    rounded = round(side / multiple) * multiple
    if rounded < least:
        rounded = int(-(-side // multiple)) * multiple
    return max(rounded, multiple)
