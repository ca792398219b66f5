"""The segmentations of COCO's annotations, checked before the library that reads them sees them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from dense_perception.core.errors import InputError
from dense_perception.core.printable import short
from dense_perception.metrics.detection import Rle, rle_of_counts, rle_of_polygons

_FAR_OUTSIDE = 10
"""Times the longer side. Edges are walked pixel by pixel: a billion would take the memory."""
_LEAST = 6  # numbers of a polygon: three corners
_FIRST, _LAST = ord("0"), ord("0") + 63  # of the characters that compressed run lengths use


def read_mask(given: object, width: int, height: int) -> Rle:
    """The mask of a segmentation: polygons, or run lengths as numbers or as COCO's text.

    :raises InputError: saying what is wrong with it, if it is neither or does not fit the picture.
    """
    if isinstance(given, list):
        return rle_of_polygons([_polygon(each, width, height) for each in given], width, height)
    if not isinstance(given, Mapping):
        raise InputError(f"is {short(given)}, expected polygons or run lengths")
    size = given.get("size")
    if size != [height, width]:
        raise InputError(f"is of the size {short(size)}, expected {[height, width]}")
    counts = given.get("counts")
    if isinstance(counts, str):
        counts = list(_run_lengths(counts))
    if not isinstance(counts, list):
        raise InputError(f"has the run lengths {short(counts)}, expected a list or a text")
    for number in counts:
        if not (isinstance(number, int | float) and 0 <= number == number // 1):
            raise InputError(
                f"has the run length {short(number)}, expected whole numbers from 0 on"
            )
    if sum(counts) != width * height:
        raise InputError(
            f"has run lengths of {short(sum(counts))} pixels, expected {width * height}"
        )
    return rle_of_counts([int(number) for number in counts], width, height)


def leaves(given: object, width: int, height: int) -> bool:
    """Whether a polygon of a segmentation that can be read reaches outside of the picture."""
    if not isinstance(given, list):
        return False
    x, y = (list(chain.from_iterable(each[k::2] for each in given)) for k in (0, 1))
    return min(x) < -1 or max(x) > width + 1 or min(y) < -1 or max(y) > height + 1


def _polygon(given: object, width: int, height: int) -> Sequence[float]:
    if not isinstance(given, list) or len(given) < _LEAST:
        raise InputError(f"has the polygon {short(given)}, expected three corners or more")
    if len(given) % 2:
        raise InputError(f"has a polygon of {len(given)} numbers, expected x and y of each corner")
    most = _FAR_OUTSIDE * max(width, height)
    for number in given:
        if type(number) not in (int, float) or not abs(number) <= most:
            raise InputError(
                f"has the coordinate {short(number)}, expected numbers up to {most} (the picture "
                f"is {width}x{height})"
            )
    return given


def _run_lengths(text: str) -> Iterator[int]:
    """COCO's text as numbers: groups of five bits from the lowest on, a sixth says that more
    follow, the highest of the last is the sign; from the fourth on less the number two before.

    :raises InputError: if it is cut off or has other characters.
    """
    before = [0, 0]
    value = shift = 0
    count = 0
    for char in text:
        code = ord(char) - _FIRST
        if not 0 <= code <= _LAST - _FIRST:
            raise InputError(f"has the run lengths {short(text)}, which no encoder writes")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        length = value + (before[0] if count > 2 else 0)
        yield length
        before = [before[1], length]
        value = shift = 0
        count += 1
    if shift:
        raise InputError(f"has the run lengths {short(text)}, which are cut off")
