"""One answer to one frame against its truth: arrays in, figures out."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from dense_perception.core.labels import VOID
from dense_perception.core.prediction import DepthKind, DepthMap
from dense_perception.core.printable import short
from dense_perception.data.targets import (
    corner_strength,
    normals_from_depth,
    reshading,
    texture_edges,
)
from dense_perception.evaluation.contestants import Answer, Entry
from dense_perception.evaluation.figures import FrameScore
from dense_perception.evaluation.truth import TruthFrame
from dense_perception.imaging.resize import restore, restore_gray, restore_labels, restore_normals
from dense_perception.media.problems import Problems
from dense_perception.metrics import dense, depth

_BASELINE_SIDE = 160


@dataclass(frozen=True)
class ScoreOptions:
    """``max_depth_m``: truth beyond it does not count. ``crop``: ``garg``, ``eigen`` or None."""

    max_depth_m: float = 20.0
    crop: str | None = None


def looks(truth: TruthFrame) -> dict[str, str | float]:
    """What a frame is like, for slices: mean brightness 0 to 1, and how sharp it is.

    ``sharpness`` is the variance of the Laplacian of the gray picture, which blur takes away.
    """
    gray = cv2.cvtColor(truth.frame.rgb_hwc, cv2.COLOR_RGB2GRAY)
    step = max(1, max(gray.shape) // 640)
    gray = np.ascontiguousarray(gray[::step, ::step])
    sharpness = float(cv2.Laplacian(gray, cv2.CV_32F).var())
    return {"brightness": round(float(gray.mean()) / 255, 4), "sharpness": round(sharpness, 2)}


class FrameScorer:
    """Scores the answers of one contestant to successive frames of one part.

    ``skipped`` says what of the answers could not be compared, and why.
    """

    def __init__(self, entry: Entry, options: ScoreOptions) -> None:
        self.skipped = Problems()
        self._entry, self._options = entry, options

    def score(
        self, truth: TruthFrame, answer: Answer, tags: dict[str, str | float]
    ) -> FrameScore | None:
        """None where truth and answer share nothing.

        Maps are brought to the truth's size. Baselines are scored on every n-th pixel.
        """
        values: dict[str, float] = {}
        sums: dict[str, tuple[float, float]] = {}
        confusion = None
        if truth.depth_m is not None:
            true_m = np.where(
                truth.depth_m <= self._options.max_depth_m, truth.depth_m, np.float32(np.nan)
            )
            if not np.isfinite(true_m).any():
                self.skipped.at(
                    truth.key, f"no true depth up to {self._options.max_depth_m:g} m (--max-depth)"
                )
            elif answer.depth is not None:
                self._depth(true_m, answer.depth, values)
            if answer.normals_hwc is not None or "reshading" in answer.gray:
                self._normals(true_m, truth, answer, values)
        if truth.labels_hw is not None and answer.labels_hw is not None:
            confusion = self._labels(truth, answer)
        for name, target in (("edges", texture_edges), ("keypoints", corner_strength)):
            if name in answer.gray:
                true_hw = target(truth.frame.rgb_hwc)
                given = restore_gray(answer.gray[name], *true_hw.shape[::-1])
                values[f"{name}.l1"] = dense.mean_absolute_error(given / np.float32(255), true_hw)
        if not values and confusion is None:
            return None
        return FrameScore(
            self._entry.name,
            truth.recording,
            truth.key,
            truth.frame.stamp_ns,
            {name: value for name, value in values.items() if np.isfinite(value)},
            sums,
            confusion,
            tags,
        )

    def _depth(self, true_m: np.ndarray, given: DepthMap, values: dict[str, float]) -> None:
        step = 1
        if self._entry.kind == "baseline":
            step = max(1, round(max(true_m.shape) / _BASELINE_SIDE))
        height, width = true_m.shape
        predicted = restore(given.values_hw, width, height)[::step, ::step]
        true_m = true_m[::step, ::step]
        if given.kind is DepthKind.RELATIVE_INVERSE:
            with np.errstate(divide="ignore"):
                predicted = 1 / predicted
        names = {"abs_rel": "absrel", "sq_rel": "sqrel"}
        for name, value in depth.evaluate(predicted, true_m).items():
            if name == "coverage":
                values["depth.coverage"] = value
                continue
            aligned = name.startswith("aligned_")
            if not aligned and given.kind is not DepthKind.METRIC:
                continue
            kind, plain = "aligned" if aligned else "metric", name.removeprefix("aligned_")
            values[f"depth.{kind}.{names.get(plain, plain)}"] = value

    def _normals(
        self, true_m: np.ndarray, truth: TruthFrame, answer: Answer, values: dict[str, float]
    ) -> None:
        height, width = true_m.shape
        camera = truth.frame.intrinsics
        if camera is None:
            self.skipped.note("normals: the frames have no intrinsics to make true normals of")
            return
        camera = camera.resized(width, height)
        true_hwc = normals_from_depth(true_m, camera)
        if answer.normals_hwc is not None:
            given = restore_normals(answer.normals_hwc, width, height)
            for name, value in dense.normal_metrics(given, true_hwc).items():
                short_name = name.removeprefix("normals_").replace("below", "within")
                values[f"normals.{short_name.partition('_25')[0].partition('_5')[0]}"] = value
        if "reshading" in answer.gray:
            given = restore_gray(answer.gray["reshading"], width, height) / np.float32(255)
            true_hw = reshading(true_hwc, camera)
            values["reshading.l1"] = dense.mean_absolute_error(given, true_hw)

    def _labels(self, truth: TruthFrame, answer: Answer) -> dict[tuple[int, int], int] | None:
        assert truth.labels_hw is not None
        assert answer.labels_hw is not None
        classes = answer.classes or truth.classes
        if truth.classes and answer.classes and truth.classes != answer.classes:
            self.skipped.note(
                f"labels: the data has the classes {short(list(truth.classes))}, the answers "
                f"{short(list(answer.classes))}: compare with data of the same classes"
            )
            return None
        used = truth.labels_hw[truth.labels_hw != VOID]
        count = len(classes) or int(max(used.max(initial=0), answer.labels_hw.max())) + 1
        if used.max(initial=0) >= count:
            self.skipped.at(
                truth.key, f"labels go up to {int(used.max()) + 1}, there are {count} classes"
            )
            return None
        given = answer.labels_hw
        if given.shape != truth.labels_hw.shape:
            given = restore_labels(given, *truth.labels_hw.shape[::-1])
        table = dense.Confusion(count)
        table.add(given, truth.labels_hw)
        return {(int(t), int(p)): int(table.counts[t, p]) for t, p in np.argwhere(table.counts > 0)}
