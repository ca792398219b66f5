"""Where the windows of a network lie in a picture: whole numbers alone."""

from __future__ import annotations

from dense_perception.core.errors import InputError


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
