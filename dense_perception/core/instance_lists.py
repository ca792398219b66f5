"""How far two lists of found things are apart, matched by overlap and not by row.

Rounding may swap rows with nearly equal scores, have a duplicate suppress the other one, or let the
last row fall off the list. None of that is an error of its size in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dense_perception.core.boxes import overlaps
from dense_perception.core.card_specs import InputSpec, InstancesSpec
from dense_perception.core.difference import Difference

BOXES, SCORES, CLASSES = "boxes", "box_scores", "box_classes"
LIST = (BOXES, SCORES, CLASSES)
"""The graph outputs that make up the list."""
IDS, MASKS = "instance_ids", "masks"

_SAME = 0.5
"""Of the union: boxes of a class that share at least this much are taken for the same thing."""
_NEAR = 2e-3
"""Of the longer side: as near, boxes without an area are the same one, too."""
_PIXELS_APART = 2e-3
"""Of the picture: pixels on borders, whose masks are equally likely, are chosen by rounding."""
_AGREEMENT = (0.5, 0.75)

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Matched:
    """Pairs of rows (k, 2) of two lists, the row of the first before that of the second."""

    pairs_k2: np.ndarray
    overlaps_k: np.ndarray


def used(answer: Arrays, index: int = 0) -> dict[str, np.ndarray]:
    """The used rows of one picture's list in a batch of a graph's outputs: those with a score."""
    count = int(np.count_nonzero(answer[SCORES][index] > 0))
    return {name: answer[name][index][:count] for name in LIST}


def match(first: Arrays, second: Arrays, longer_side: float) -> Matched:
    """Pair rows of the same class, those that overlap most first, each row once."""
    share_nm = overlaps(first[BOXES], second[BOXES])
    distance_nm = np.abs(first[BOXES][:, None] - second[BOXES][None]).max(axis=2, initial=0)
    share_nm[distance_nm <= _NEAR * longer_side] = 1.0
    share_nm[first[CLASSES][:, None] != second[CLASSES][None]] = 0.0
    # Where overlaps are equal, the scores say who is whose.
    closeness_nm = -np.abs(first[SCORES][:, None] - second[SCORES][None])
    order = np.lexsort((-closeness_nm.ravel(), -share_nm.ravel()))
    rows, columns = np.unravel_index(order, share_nm.shape)
    taken_n, taken_m = np.zeros(share_nm.shape[0], bool), np.zeros(share_nm.shape[1], bool)
    pairs, shares = [], []
    for row, column in zip(rows, columns, strict=True):
        share = share_nm[row, column]
        if share < _SAME:
            break
        if not (taken_n[row] or taken_m[column]):
            taken_n[row] = taken_m[column] = True
            pairs.append((row, column))
            shares.append(share)
    return Matched(np.array(pairs, np.intp).reshape(-1, 2), np.array(shares, np.float64))


def list_difference(
    got: Arrays, want: Arrays, spec: InstancesSpec, size: InputSpec, index: int = 0
) -> Difference:
    """One picture's lists, and the masks and ids that belong to them.

    Of a pair the largest counts of what its box is off, as a share of the longer side, and what
    its score is off. A row without a partner counts with its score, as far as that is above what
    the other list could still hold. ``mean_of_range`` is the mean over the rows. Masks count as
    maps of bytes, pair by pair; ids as the share of the picture where they name another thing.
    """
    longer = float(max(size.height, size.width))
    if not all(np.isfinite(each[name]).all() for each in (got, want) for name in (BOXES, SCORES)):
        return Difference(float("inf"), float("inf"))
    ours, theirs = used(got, index), used(want, index)
    matched = match(ours, theirs, longer)
    rows, columns = matched.pairs_k2.T
    off_k4 = np.abs(ours[BOXES][rows].astype(np.float64) - theirs[BOXES][columns]) / longer
    off_k = np.abs(ours[SCORES][rows].astype(np.float64) - theirs[SCORES][columns])
    errors = [
        np.maximum(off_k, off_k4.max(axis=1, initial=0)),
        _left_over(ours[SCORES], rows, theirs[SCORES], spec.count),
        _left_over(theirs[SCORES], columns, ours[SCORES], spec.count),
    ]
    found = [_of_rows(np.concatenate(errors))]
    if MASKS in want:
        found += [
            Difference.between(got[MASKS][index, row], want[MASKS][index, column])
            for row, column in matched.pairs_k2
        ]
    elif IDS in want:
        share = _pixels_apart(got[IDS][index], want[IDS][index], matched, len(ours[SCORES]))
        found.append(Difference(share, share) if share > _PIXELS_APART else Difference(0.0, 0.0))
    return Difference.worst(found)


def disagreement(got: Arrays, want: Arrays, size: InputSpec, index: int = 0) -> float:
    """What a coarser graph loses against the finer one's list, 0 to 1.

    1 - F1, the rows weighted by their scores, as the mean over pairs that share at least 0.5 and
    0.75; so a faint row counts as little as it does for average precision. Of ids it is the share
    of the picture that they give to another thing, if that is more.
    """
    if not all(np.isfinite(got[name]).all() for name in (BOXES, SCORES)):
        return float("inf")
    ours, theirs = used(got, index), used(want, index)
    total = float(sum(each[SCORES].sum(dtype=np.float64) for each in (ours, theirs)))
    if total == 0:
        return 0.0
    matched = match(ours, theirs, float(max(size.height, size.width)))
    rows, columns = matched.pairs_k2.T
    weights_k = ours[SCORES][rows].astype(np.float64) + theirs[SCORES][columns]
    agreed = [weights_k[matched.overlaps_k >= least].sum() / total for least in _AGREEMENT]
    lost = 1.0 - float(np.mean(agreed))
    if IDS in want:
        apart = _pixels_apart(got[IDS][index], want[IDS][index], matched, len(ours[SCORES]))
        lost = max(lost, apart)
    return max(0.0, lost)


def _left_over(
    scores_n: np.ndarray, taken_k: np.ndarray, others_m: np.ndarray, count: int
) -> np.ndarray:
    """By row without a partner: how far its score is above the least that the other list keeps."""
    left = np.delete(scores_n, taken_k).astype(np.float64)
    if len(others_m) == count:
        floor = float(others_m.min())
    else:
        floor = min(np.min(scores_n, initial=1.0), np.min(others_m, initial=1.0))
        if not len(others_m):
            floor = 0.0
    return np.maximum(left - floor, 0)


def _of_rows(errors_n: np.ndarray) -> Difference:
    if not len(errors_n):
        return Difference(0.0, 0.0)
    return Difference(float(errors_n.max()), float(errors_n.mean()))


def _pixels_apart(
    got_hw: np.ndarray, want_hw: np.ndarray, matched: Matched, got_count: int
) -> float:
    """The share of pixels whose ids do not name the same thing."""
    nobody = np.iinfo(np.uint16).max
    table = np.full(max(got_count, int(got_hw.max(initial=0))) + 1, nobody, np.uint16)
    table[0] = 0
    rows, columns = matched.pairs_k2.T
    table[rows + 1] = columns + 1
    return float((table[got_hw] != want_hw).mean())
