"""Average precision of a contestant over all frames, over single units and over resamples.

It is no ratio of sums, so what was found in every frame is kept, matched once, and ranked by score
with each unit's frames as often as a resample has them.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

import numpy as np

from dense_perception.evaluation.document import Ranked, RankedFigure
from dense_perception.evaluation.figures import KINDS, SIZED, ThingMatches
from dense_perception.metrics.average_precision import THRESHOLDS, Matches, Ranking

_MOST_WORK = 20_000_000  # right things times resamples: some two seconds
_FEWEST_RESAMPLES = 500
_KEPT = 500  # resamples of a figure in a report: of all there would be megabytes
_DIGITS = 9
_Packed = tuple[int, bytes]
_AT_50, _AT_75 = (int(np.argmin(np.abs(THRESHOLDS - least))) for least in (0.5, 0.75))


class ThingScores:
    """What one contestant found, frame by frame, in any order; about 150 bytes for each class in a
    frame and 8 for each found thing, by each of :data:`KINDS` and again by size."""

    def __init__(self) -> None:
        self._of_frame: dict[int, dict[str, dict[str, _Packed]]] = {}

    def __bool__(self) -> bool:
        return bool(self._of_frame)

    def add(self, frames: Iterable[tuple[int, ThingMatches]]) -> None:
        """Frames with the numbers that they have among all."""
        for frame, things in frames:
            self._of_frame[frame] = {
                kind: {sys.intern(name): _packed(matches) for name, matches in found.items()}
                for kind, found in things.items()
            }

    def only(self, others: ThingScores, classes: Collection[str] | None) -> ThingScores:
        """What was found in the frames of ``others`` as well, of ``classes`` in lower case (None:
        of all)."""
        kept = ThingScores()
        for frame, kinds in self._of_frame.items():
            theirs = others._of_frame.get(frame)
            if theirs is not None:
                kept._of_frame[frame] = {
                    kind: {
                        name: packed
                        for name, packed in found.items()
                        if classes is None or name.casefold() in classes
                    }
                    for kind, found in kinds.items()
                    if kind.partition("@")[0] in theirs
                }
        return kept

    def of_frames(self, frames: np.ndarray) -> ThingScores:
        """What was found in ``frames``, bool (all frames,), without the parts by size."""
        kept = ThingScores()
        for frame, kinds in self._of_frame.items():
            if frames[frame]:
                kept._of_frame[frame] = {kind: kinds[kind] for kind in KINDS if kind in kinds}
        return kept

    def frames(self, kind: str) -> list[int]:
        """Those in which things were compared by ``kind``, rising."""
        return sorted(frame for frame, kinds in self._of_frame.items() if kind in kinds)

    def totals(self, units: np.ndarray, count: int) -> ThingTotals:
        """
        :param units: the unit of each frame of all, int64; ``count`` is how many units there are.
        """
        rankings: dict[str, dict[str, Ranking]] = {}
        for kind in (*KINDS, *SIZED):
            by_class: dict[str, tuple[list[Matches], list[int]]] = {}
            for frame in self.frames(kind):
                for name, packed in self._of_frame[frame][kind].items():
                    found, places = by_class.setdefault(name, ([], []))
                    found.append(_unpacked(packed))
                    places.append(int(units[frame]))
            ranked = {name: Ranking(*pair, count) for name, pair in sorted(by_class.items())}
            # A class that is nowhere to be found has no precision.
            rankings[kind] = {name: each for name, each in ranked.items() if each.true}
        return ThingTotals(rankings, count)


class ThingTotals:
    """Rankings by kind and class, of ``units`` that can be weighted."""

    def __init__(self, rankings: dict[str, dict[str, Ranking]], units: int) -> None:
        self._rankings, self._units = rankings, units

    def resamples(self, most: int) -> int:
        """How many can be drawn in a reasonable time."""
        right = sum(each.right for kind in self._rankings.values() for each in kind.values())
        return min(most, max(_FEWEST_RESAMPLES, _MOST_WORK // max(1, right)))

    def whole(self) -> dict[str, np.ndarray]:
        """Every figure over all units, (1,)."""
        return self.figures(np.ones((1, self._units)))

    def by_unit(self) -> dict[str, np.ndarray]:
        """Every figure of each unit alone, (units,); NaN where nothing is to be found."""
        return self.figures(np.eye(self._units))

    def figures(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Every figure of each sample, float64 (samples,).

        :param weights: how often each unit is in each sample, (samples, units).
        """
        found: dict[str, np.ndarray] = {}
        for kind, rankings in self._rankings.items():
            if not rankings:
                continue
            parts = [each.figures(weights) for each in rankings.values()]
            if kind in SIZED:
                precisions_cr = np.stack([precision_rt.mean(axis=1) for precision_rt, _ in parts])
                found[SIZED[kind]] = _mean(precisions_cr)
                continue
            precision_crt = np.stack([precision for precision, _ in parts])
            recall_crt = np.stack([recall for _, recall in parts])
            found[f"{kind}.ap"] = _mean(precision_crt.mean(axis=2))
            found[f"{kind}.ap50"] = _mean(precision_crt[..., _AT_50])
            found[f"{kind}.ap75"] = _mean(precision_crt[..., _AT_75])
            found[f"{kind}.recall"] = _mean(recall_crt.mean(axis=2))
            for name, precision_rt in zip(rankings, precision_crt, strict=True):
                found[f"{kind}.ap.{name}"] = precision_rt.mean(axis=1)
        return found

    def kept(self, drawn: Mapping[str, np.ndarray]) -> Ranked:
        """What a report keeps for later comparisons.

        :param drawn: the figures of every resample, as :meth:`figures` gives them.
        """
        figures: dict[str, RankedFigure] = {}
        for name, by_unit in self.by_unit().items():
            kept = drawn[name][:_KEPT]
            figures[name] = RankedFigure(units=_plain(by_unit), drawn=_plain(kept))
        return Ranked(true=self.true(), figures=figures)

    def true(self) -> dict[str, int]:
        """How many things of each class there are to be found."""
        return {name: each.true for kind in KINDS for name, each in self._rankings[kind].items()}


def ap50_of_frame(things: ThingMatches) -> float:
    """The boxes' AP50 of a frame alone; NaN where nothing is to be found."""
    bit = 1 << _AT_50  # of the other overlaps nothing is left to rank
    found = [
        Ranking([replace(each, hits_n=each.hits_n & bit, ignored_n=each.ignored_n & bit)], [0], 1)
        for each in things.get("boxes", {}).values()
        if each.true
    ]
    values = [each.figures(np.ones((1, 1)))[0][0, _AT_50] for each in found]
    return float(np.mean(values)) if values else float("nan")


def _plain(values: np.ndarray) -> list[float | None]:
    return [round(v, _DIGITS) if np.isfinite(v) else None for v in values.tolist()]


def _packed(matches: Matches) -> _Packed:
    """Scores are ``float32`` in truth, and as many bits as there are overlaps fit two bytes."""
    parts = (
        matches.scores_n.astype(np.float32),
        matches.hits_n.astype(np.uint16),
        matches.ignored_n.astype(np.uint16),
    )
    return matches.true, b"".join(part.tobytes() for part in parts)


def _unpacked(packed: _Packed) -> Matches:
    true, content = packed
    count = len(content) // 8
    bits = np.frombuffer(content, np.uint16, offset=4 * count).astype(np.int64)
    scores_n = np.frombuffer(content, np.float32, count).astype(np.float64)
    return Matches(true, scores_n, bits[:count], bits[count:])


def _mean(values_cr: np.ndarray) -> np.ndarray:
    """Over the classes of which there are things in a sample."""
    known = np.isfinite(values_cr)
    count = known.sum(axis=0)
    total = np.where(known, values_cr, 0).sum(axis=0)
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
