"""One answer to one frame against its truth: arrays in, figures out."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from dense_perception.core.labels import VOID, folded
from dense_perception.core.prediction import DepthKind
from dense_perception.core.printable import short
from dense_perception.data.doubts import depth_ratio, scale_doubt, unit_doubts
from dense_perception.evaluation.contestants import Answer, Entry
from dense_perception.evaluation.depth_answer import (
    COMPARED,
    farthest,
    restored_depth,
)
from dense_perception.evaluation.figures import RIGHT, SAID, FrameScore
from dense_perception.evaluation.frame_things import ThingScorer
from dense_perception.evaluation.judge import Judge
from dense_perception.imaging.resize import restore_gray, restore_labels, restore_normals
from dense_perception.media.problems import Problems
from dense_perception.metrics.calibration import reliability
from dense_perception.metrics.dense import Confusion, mean_absolute_error, normal_figures
from dense_perception.metrics.depth import Matched
from dense_perception.metrics.slices import distance_names, distance_place, sliced_errors
from dense_perception.metrics.surfaces import Surfaces
from dense_perception.metrics.temporal import flicker, median_error

_THIN = 4  # units are doubted by every fourth row and column, slices are of every fourth pixel
_COARSE_SIDE = 200  # normals of depth are looked at on about so many columns
_MOST_CLASSES = 64


class FrameScorer:
    """Scores the answers of one contestant to successive frames of one part.

    ``skipped`` says what of the answers could not be compared, and why.
    """

    def __init__(self, entry: Entry) -> None:
        self.skipped = Problems()
        self._entry = entry
        self._things = ThingScorer(self.skipped)
        self._before: tuple[Judge, Matched, float] | None = None
        self._ratios: list[float] = []
        self._medians_m: dict[str, float] = {}

    @property
    def unit_doubts(self) -> list[str]:
        """Whether truth so far can be in metres, by itself and by the metric answers."""
        doubts = unit_doubts([*self._medians_m.values()], [*self._medians_m])
        doubt = scale_doubt(self._ratios)
        return [*doubts, doubt] if doubt else doubts

    def score(self, judge: Judge, answer: Answer) -> FrameScore | None:
        """None where truth and answer share nothing.

        Maps are brought to the truth's size. Baselines are scored on every n-th row and column, and
        not on surfaces.
        """
        truth = judge.truth
        values: dict[str, float] = {}
        sums: dict[str, tuple[float, float]] = {}
        confusion = None
        if truth.depth_m is not None:
            self._medians_m[truth.key] = judge.median_m
        if judge.is_cut:
            self.skipped.at(truth.key, "no true depth within --max-depth and --crop")
        if judge.true_m is not None and answer.depth is not None:
            if self._entry.kind == "baseline":
                self._baseline(judge, answer, values, sums)
            else:
                self._depth(judge, answer, values, sums)
        if judge.is_shaped and answer.normals_hwc is not None and judge.true_m is not None:
            self._normals(judge, answer.normals_hwc, values)
        if truth.labels_hw is not None and answer.labels_hw is not None:
            confusion = self._labels(judge, answer, sums)
        for name, given in answer.gray.items():
            true_hw = judge.gray(name) if judge.is_shaped else None
            if true_hw is not None:
                restored = restore_gray(given, *true_hw.shape[::-1]) / np.float32(255)
                values[f"{name}.l1"] = mean_absolute_error(restored, true_hw)
        things = self._things.score(judge, answer, sums)
        if not values and confusion is None and things is None:
            return None
        return FrameScore(
            self._entry.name,
            truth.recording,
            truth.key,
            truth.frame.stamp_ns,
            {name: float(value) for name, value in values.items() if math.isfinite(value)},
            sums,
            confusion,
            judge.looks,
            things,
        )

    def _baseline(
        self,
        judge: Judge,
        answer: Answer,
        values: dict[str, float],
        sums: dict[str, tuple[float, float]],
    ) -> None:
        assert judge.true_m is not None
        assert answer.depth is not None
        truth, step = judge.coarse
        matched = Matched(answer.depth.values_hw[::step, ::step], truth)
        values |= {f"depth.{name}": value for name, value in matched.figures().items()}
        if judge.is_shaped and len(matched):
            # Beside models of either kind. Its scale by distance would show the truth turned round.
            given = matched.predicted_m
            for kind, like in (("metric", given), ("aligned", matched.aligned(given))):
                self._slices(judge, matched, like, kind, sums, step=step, scale=False)

    def _depth(
        self,
        judge: Judge,
        answer: Answer,
        values: dict[str, float],
        sums: dict[str, tuple[float, float]],
    ) -> None:
        assert judge.true_m is not None
        assert answer.depth is not None
        truth, kind = judge.true_depth, answer.depth.kind
        predicted = restored_depth(answer.depth, *truth.metres_hw.shape)
        metric = kind is DepthKind.METRIC
        if metric and judge.protocol.clamp:
            thin = np.s_[::_THIN, ::_THIN]
            self._ratios.append(depth_ratio(predicted[thin], truth.metres_hw[thin]))
            predicted = judge.protocol.answer(predicted)
        matched, max_m = Matched(predicted, truth), farthest(judge.protocol)
        if metric and not judge.protocol.clamp:
            self._ratios.append(matched.scale)
        found = matched.figures(max_m, COMPARED[kind])
        values |= {f"depth.{name}": value for name, value in found.items()}
        if metric:
            self._time(judge, matched, sums)
        if not judge.is_shaped or not len(matched):
            return
        like = matched.predicted_m
        if not metric:
            like = matched.aligned(like, max_m)
            predicted = np.full(predicted.shape, np.nan, like.dtype)
            predicted[matched.valid_hw] = like
        self._slices(judge, matched, like, "metric" if metric else "aligned", sums)
        shapes = Surfaces(predicted, truth.metres_hw)
        values["depth.boundary.f1"] = shapes.boundary_f1()
        values["depth.edge.within_4px"] = shapes.edge_share()
        if judge.camera is None:
            self.skipped.note("normals of the depth: the frames have no calibration")
        else:
            step = max(1, round(max(predicted.shape) / _COARSE_SIDE))
            angles = shapes.normals(judge.camera, step)
            values |= {f"depth.normals.{name}": value for name, value in angles.items()}

    def _slices(
        self,
        judge: Judge,
        matched: Matched,
        like: np.ndarray,
        kind: str,
        sums: dict[str, tuple[float, float]],
        *,
        step: int = 1,
        scale: bool = True,
    ) -> None:
        """``like`` is the prediction of ``matched`` as it is judged.

        :param step: every n-th row and column of the truth is in ``matched``.
        """
        thin = _THIN if step == 1 else 1
        figures = {f"depth.{kind}.absrel": "absrel", f"depth.{kind}.d1": "d1"}
        if kind == "metric" and scale:
            figures["depth.scale"] = "scale"
        names = distance_names()
        like, true_m = like[::thin], matched.true_m[::thin]
        found = sliced_errors(like, true_m, distance_place(true_m), len(names))
        _put(sums, "distance", names, found, figures)
        classes, labels_hw = judge.truth.classes, judge.truth.labels_hw
        if labels_hw is not None and 0 < len(classes) <= _MOST_CLASSES:
            place = labels_hw[::step, ::step][matched.valid_hw][::thin]
            found = sliced_errors(like, true_m, place, len(classes))
            _put(sums, "class", classes, found, figures)

    def _time(self, judge: Judge, matched: Matched, sums: dict[str, tuple[float, float]]) -> None:
        """How much the error changes since the frame before."""
        error = median_error(matched)
        before, self._before = self._before, (judge, matched, error)
        # Over a frame without an answer a change would be larger than that of others.
        if before is None or before[0] is not judge.before:
            return
        jump = error - before[2]
        if math.isfinite(jump):
            sums["temporal.scale_jitter"] = (jump * jump, 1.0)
        if judge.is_followed:
            total, count = flicker(matched, before[1], judge.same_as(before[0]))
            if count:
                sums["temporal.flicker"] = (total, count)

    def _normals(self, judge: Judge, normals_hwc: np.ndarray, values: dict[str, float]) -> None:
        true_hwc = judge.normals_hwc
        if true_hwc is None:
            self.skipped.note("normals: the frames have no calibration to make true normals with")
            return
        given = restore_normals(normals_hwc, *true_hwc.shape[1::-1])
        found = normal_figures(given, true_hwc)
        values |= {f"normals.{name}": value for name, value in found.items()}

    def _labels(
        self, judge: Judge, answer: Answer, sums: dict[str, tuple[float, float]]
    ) -> dict[tuple[int, int], int] | None:
        truth = judge.truth
        assert truth.labels_hw is not None
        assert answer.labels_hw is not None
        classes = answer.classes or truth.classes
        lists = folded(truth.classes), folded(answer.classes)
        if truth.classes and answer.classes and lists[0] != lists[1]:
            self.skipped.note(
                f"labels: the data has the classes {short(list(truth.classes))}, the answers "
                f"{short(list(answer.classes))}: compare with data of the same classes"
            )
            return None
        known = truth.labels_hw != VOID
        used = truth.labels_hw[known]
        count = len(classes) or int(max(used.max(initial=0), answer.labels_hw.max())) + 1
        if not used.size:
            self.skipped.at(truth.key, "its labels name no class")
            return None
        if used.max() >= count:
            self.skipped.at(
                truth.key,
                f"its labels go up to {int(used.max())}, the classes from 0 to {count - 1}: they "
                "belong to another list of classes or count from another number",
            )
            return None
        size = truth.labels_hw.shape[::-1]
        given = restore_labels(answer.labels_hw, *size)
        table = Confusion(count)
        table.add(given, truth.labels_hw)
        if answer.confidence_hw is not None:
            said = restore_labels(answer.confidence_hw, *size)[known]
            bins = reliability(said, given[known] == used)
            for number, pixels in enumerate(bins.pixels):
                if pixels:
                    sums[f"{SAID}@bin={number}"] = (float(bins.said[number]), float(pixels))
                    sums[f"{RIGHT}@bin={number}"] = (float(bins.right[number]), float(pixels))
        return table.sparse()


def _put(
    sums: dict[str, tuple[float, float]],
    axis: str,
    names: list[str] | tuple[str, ...],
    found: dict[str, np.ndarray],
    figures: Mapping[str, str],
) -> None:
    """The sums of the places that have pixels, as slices of ``figures``, each with its column."""
    for number in np.flatnonzero(found["pixels"]):
        pixels = float(found["pixels"][number])
        for figure, column in figures.items():
            sums[f"{figure}@{axis}={names[number]}"] = (float(found[column][number]), pixels)
