"""COCO's average precision from pictures that are matched once, for any weight of each picture.

pycocotools counts all pictures alike. An interval needs the figure of thousands of samples of them,
in which a picture occurs never, once or several times. What is found in a picture is matched with
its truth independently of the others, so matches are kept, and only the ranking by score over all
pictures is made again. With a weight of 1 everywhere the figures are pycocotools'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""The overlaps from which a found thing counts as right."""
RECALLS = np.linspace(0.0, 1.0, 101)
MOST = 100
"""Things of a class in a picture that count, the best scores."""
SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""From and to which area, in pixels, things are of a size; both ends are in it, as in COCO."""
_LEAST = float(THRESHOLDS[0])
_EVERY = (1 << len(THRESHOLDS)) - 1
_AT_ONCE = 200_000  # numbers of one array: more do not stay in the cache


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """What was found of one class in one picture, the best score first.

    ``true`` things are to be found; crowds are not. ``hits_n`` and ``ignored_n`` int64: bit t says
    that at overlap ``THRESHOLDS[t]`` a thing is right, or counts neither way as it is of a crowd.
    ``scores_n`` float64.
    """

    true: int
    scores_n: np.ndarray
    hits_n: np.ndarray
    ignored_n: np.ndarray


def match(
    scores_n: np.ndarray,
    shares_nm: np.ndarray,
    crowds_m: np.ndarray,
    outside_n: np.ndarray | None = None,
    outside_m: np.ndarray | None = None,
) -> Matches:
    """Match the found things of a class with the true ones: the best score chooses first.

    :param shares_nm: overlap of each pair as :func:`shares` gives it, float64.
    :param crowds_m: which of the true ones are crowds, bool.
    :param outside_n: which found things are of another size than counts, bool; None for none. They
        count neither way unless they are right.
    :param outside_m: the same of true things, which are not to be found. What is matched with one
        of them, and with none that is to be found, counts neither way.
    """
    order = np.argsort(-scores_n, kind="stable")[:MOST]
    aside_m = crowds_m if outside_m is None else crowds_m | outside_m
    singles = np.flatnonzero(~aside_m)
    taken = np.zeros(len(crowds_m), np.int64)  # bit t: by a thing at that overlap
    hits, ignored = np.zeros(len(order), np.int64), np.zeros(len(order), np.int64)
    for place, row in enumerate(order.tolist()):
        near = np.flatnonzero(shares_nm[row] >= _LEAST).tolist()
        is_outside = outside_n is not None and bool(outside_n[row])
        if not near:
            ignored[place] = _EVERY if is_outside else 0
            continue
        choices = [n for n in near if not aside_m[n]], [n for n in near if aside_m[n]]
        for bit, least in enumerate(THRESHOLDS.tolist()):
            best = -1
            for some in choices:
                reached = least
                for n in some:
                    share = float(shares_nm[row, n])
                    is_free = crowds_m[n] or not taken[n] >> bit & 1
                    if share >= reached and is_free:  # of equal ones the last
                        best, reached = n, share
                if best >= 0:
                    break
            if best >= 0 and not crowds_m[best]:
                taken[best] |= 1 << bit
            if best >= 0 and not aside_m[best]:
                hits[place] |= 1 << bit
            elif best >= 0 or is_outside:
                ignored[place] |= 1 << bit
    return Matches(len(singles), scores_n[order].astype(np.float64), hits, ignored)


def match_of_size(
    size: str,
    scores_n: np.ndarray,
    shares_nm: np.ndarray,
    crowds_m: np.ndarray,
    areas_n: np.ndarray,
    areas_m: np.ndarray,
) -> Matches | None:
    """As :func:`match`, of things of one of :data:`SIZES`, without what counts nowhere; None where
    nothing counts.

    :param areas_n: of the found things in pixels; ``areas_m`` of the true ones.
    """
    low, high = SIZES[size]
    outside_n, outside_m = ((each < low) | (each > high) for each in (areas_n, areas_m))
    if outside_n.all() and (outside_m | crowds_m).all():
        return None
    found = match(scores_n, shares_nm, crowds_m, outside_n, outside_m)
    counts = found.ignored_n != _EVERY
    if not found.true and not counts.any():
        return None
    parts = (each[counts] for each in (found.scores_n, found.hits_n, found.ignored_n))
    return Matches(found.true, *parts)


def shares(
    both_nm: np.ndarray, found_n: np.ndarray, true_m: np.ndarray, crowds_m: np.ndarray
) -> np.ndarray:
    """Intersection over union of every pair, (n, m) float64; of a crowd over the found area alone.

    :param both_nm: the shared area of each pair.
    :param found_n: with ``true_m`` the area of each found and true thing.
    """
    both = both_nm.astype(np.float64)
    union = np.where(crowds_m, found_n[:, None], found_n[:, None] + true_m - both)
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)


class Ranking:
    """All that was found of one class, ranked by score.

    :param matches: of the pictures, in their order: of equal scores the first picture's is first.
    :param unit_of: the unit of each picture, 0 to ``units`` - 1: what is weighted.
    """

    def __init__(self, matches: Sequence[Matches], unit_of: Sequence[int], units: int) -> None:
        of_picture = np.asarray(unit_of, np.int64)
        true = np.array([each.true for each in matches], np.float64)
        self._true_u = np.bincount(of_picture, true, units)
        counts = [len(each.scores_n) for each in matches]
        scores = np.concatenate([each.scores_n for each in matches]) if matches else np.zeros(0)
        order = np.argsort(-scores, kind="stable")
        self._unit = np.repeat(of_picture, counts)[order]
        hits = np.concatenate([each.hits_n for each in matches]) if matches else order
        ignored = np.concatenate([each.ignored_n for each in matches]) if matches else order
        self._hits, self._ignored = hits[order], ignored[order]
        self._units = units

    @property
    def true(self) -> int:
        """How many things are to be found."""
        return int(self._true_u.sum())

    @property
    def right(self) -> int:
        """How many found things are right, summed over the overlaps: what a sample costs."""
        return sum(int((self._hits >> bit & 1).sum()) for bit in range(len(THRESHOLDS)))

    def figures(self, weights_ru: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Average precision and final recall, float64 (samples, overlaps), NaN without truth.

        :param weights_ru: how often each unit is in each sample, float64 whole numbers.
        """
        size = len(weights_ru), len(THRESHOLDS)
        precision_rt, recall_rt = np.full(size, np.nan), np.full(size, np.nan)
        true_r = weights_ru @ self._true_u
        known = np.flatnonzero(true_r > 0)
        for bit in range(len(THRESHOLDS)):
            right = np.flatnonzero(self._hits >> bit & 1)
            if not len(right):
                precision_rt[known, bit] = recall_rt[known, bit] = 0.0
                continue
            found_uk = self._found_up_to(right, bit)
            rows = max(1, _AT_ONCE // len(right))
            for start in range(0, len(known), rows):
                some = known[start : start + rows]
                answer = _read(weights_ru[some], found_uk, self._unit[right], true_r[some])
                precision_rt[some, bit], recall_rt[some, bit] = answer
        return precision_rt, recall_rt

    def _found_up_to(self, right: np.ndarray, bit: int) -> np.ndarray:
        """Of each unit how many things that count are found up to each right one, (units, k)."""
        counted = np.flatnonzero(~self._ignored >> bit & 1)
        step = np.searchsorted(right, counted)
        counted, step = counted[step < len(right)], step[step < len(right)]
        places = self._unit[counted] * len(right) + step
        found = np.bincount(places, minlength=self._units * len(right))
        return found.reshape(self._units, len(right)).cumsum(axis=1).astype(np.float64)


def _read(
    weights_ru: np.ndarray, found_uk: np.ndarray, unit_k: np.ndarray, true_r: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The mean over the recalls of the best precision from each on, and the last recall, (r,)."""
    # Sums of whole numbers: exact in any order, so the same however many threads there are.
    right_rk = weights_ru[:, unit_k].cumsum(axis=1)
    found_rk = weights_ru @ found_uk
    precision_rk = np.divide(right_rk, found_rk, out=np.zeros_like(right_rk), where=found_rk > 0)
    best_rk = np.maximum.accumulate(precision_rk[:, ::-1], axis=1)[:, ::-1]
    recall_rk = right_rk / true_r[:, None]
    reached_rk = np.searchsorted(RECALLS, recall_rk, side="right")
    # A sample without the first right things begins at recall 0, which the first place stands for.
    new_rk = np.diff(reached_rk, axis=1, prepend=0)
    return (best_rk * new_rk).sum(axis=1) / len(RECALLS), recall_rk[:, -1]
