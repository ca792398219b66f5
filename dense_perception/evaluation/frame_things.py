"""The things in one answer against those in view: matches for average precision, and segments."""

from __future__ import annotations

import numpy as np

from dense_perception.core.boxes import areas, shared_areas
from dense_perception.core.errors import InputError
from dense_perception.core.prediction import Instances
from dense_perception.evaluation.contestants import Answer
from dense_perception.evaluation.figures import PANOPTIC, ThingMatches
from dense_perception.evaluation.judge import Judge
from dense_perception.evaluation.thing_classes import (
    PanopticClasses,
    SharedClasses,
    true_segments,
)
from dense_perception.evaluation.true_things import NAMELESS, UNNUMBERED_NOTE, TrueThings
from dense_perception.media.problems import Problems
from dense_perception.metrics.average_precision import (
    SIZES,
    Matches,
    match,
    match_of_size,
    shares,
)
from dense_perception.metrics.panoptic import PanopticQuality

HALF = 127
"""Of a mask's bytes: above it the pixel is the thing's."""
Names = tuple[str, ...]


class ThingScorer:
    """Scores the things in the answers of one contestant; what cannot be compared is skipped."""

    def __init__(self, skipped: Problems) -> None:
        self._skipped = skipped
        self._classes: dict[tuple[Names, Names], SharedClasses | None] = {}
        self._panoptic: dict[tuple[Names, Names, Names], PanopticClasses | None] = {}

    def score(
        self, judge: Judge, answer: Answer, sums: dict[str, tuple[float, float]]
    ) -> ThingMatches | None:
        """The matches; what panoptic quality adds up goes to ``sums``. None where there is nothing
        to compare."""
        truth, found = judge.truth, answer.instances
        if found is None or (true := judge.things) is None:
            return None
        size = truth.frame.rgb_hwc.shape[:2]
        if true.rows_hw.shape != size:
            self._skipped.at(truth.key, "the numbers of its things are of another size than it")
            return None
        if found.ids_hw is not None and found.ids_hw.shape != size:
            self._skipped.at(truth.key, "its things were found at another size than it has")
            return None
        classes = self._shared(found, truth.classes)
        if classes is None:
            return None
        if true.labels_k.max(initial=-1) >= len(truth.classes):
            self._skipped.at(
                truth.key,
                f"a thing has the class {true.labels_k.max() + 1}, the data names "
                f"{len(truth.classes)}",
            )
            return None
        self._name_unknown(true, classes, answer, truth.classes)
        self._segments(judge, answer, found, sums)
        with_void = judge.things_with_void(classes.of_both)
        assert with_void is not None
        if len(with_void) > len(true):
            self._skipped.at(truth.key, f"things: {UNNUMBERED_NOTE}")
        found = found.selected(classes.of_model[found.classes_n] >= 0)
        return _matches(found, with_void, classes)

    def _shared(self, found: Instances, truth: Names) -> SharedClasses | None:
        names = tuple(found.labels.labels)
        if (names, truth) not in self._classes:
            shared = None
            try:
                shared = SharedClasses(names, truth, "the data")
                if shared.of_model_alone:
                    self._skipped.note(f"things: {shared.of_model_alone}")
            except InputError as error:
                self._skipped.note(f"things: {error}")
            self._classes[names, truth] = shared
        return self._classes[names, truth]

    def _name_unknown(
        self, true: TrueThings, classes: SharedClasses, answer: Answer, names: Names
    ) -> None:
        """The classes of things in view that the model cannot find; stuff of its own is none."""
        stuff = {name.casefold() for name in answer.classes}
        for label in np.unique(true.labels_k[true.labels_k >= 0]).tolist():
            if classes.of_truth[label] < 0 and names[label].casefold() not in stuff:
                self._skipped.note(
                    f"things: the model does not find {names[label]}: those do not count"
                )

    def _segments(
        self,
        judge: Judge,
        answer: Answer,
        found: Instances,
        sums: dict[str, tuple[float, float]],
    ) -> None:
        """Of each class the overlap of its pairs, how many there are, and what they are shares
        of."""
        truth = judge.truth
        if answer.labels_hw is None or found.ids_hw is None or not answer.classes:
            return
        if truth.labels_hw is None or truth.labels_hw.shape != found.ids_hw.shape:
            return
        assert truth.instances_hw is not None
        key = (answer.classes, tuple(found.labels.labels), truth.classes)
        if key not in self._panoptic:
            try:
                self._panoptic[key] = PanopticClasses(*key, "the data")
            except InputError:  # said of the things already
                self._panoptic[key] = None
        classes = self._panoptic[key]
        if classes is None:
            return
        true = true_segments(
            truth.instances_hw, truth.instance_labels, truth.labels_hw, truth.classes, key[1]
        )
        quality = PanopticQuality(len(classes.names))
        quality.add(classes.of_answer(found, answer.labels_hw), classes.of_truth(true))
        weights = quality.found + 0.5 * quality.false + 0.5 * quality.missed
        for group, places in (("things", classes.things), ("stuff", classes.stuff)):
            for place in places:
                weight = float(weights[place])
                if weight:
                    name = classes.names[place]
                    pair = float(quality.overlap[place]), float(quality.found[place])
                    sums[f"{PANOPTIC}{group}.pq.{name}"] = (pair[0], weight)
                    sums[f"{PANOPTIC}{group}.rq.{name}"] = (pair[1], weight)


def _matches(found: Instances, true: TrueThings, classes: SharedClasses) -> ThingMatches:
    """Of boxes, and of masks where there are some, and of each size of them; of each class that
    occurs on either side. The size of a true thing is the number of its pixels, as in COCO."""
    label_n = classes.of_model[found.classes_n]
    nameless_m = true.labels_k == NAMELESS
    label_m = np.where(nameless_m, -1, classes.of_truth[true.labels_k])
    both = {"boxes": (shared_areas(found.boxes_n4, true.boxes_k4), areas(found.boxes_n4))}
    theirs = {"boxes": areas(true.boxes_k4), "masks": true.pixels_k}
    masks = _shared_pixels(found, true)
    if masks is not None:
        both["masks"] = masks
    answer: dict[str, dict[str, Matches]] = {f"{k}@{s}": {} for k in both for s in SIZES}
    for kind, (shared_nm, areas_n) in both.items():
        answer[kind] = {}
        for number in np.union1d(label_n, label_m[label_m >= 0]).tolist():
            rows, columns = label_n == number, (label_m == number) | nameless_m
            crowds = true.void_k[columns]
            pairs = shared_nm[rows][:, columns]
            overlap = shares(pairs, areas_n[rows], theirs[kind][columns], crowds)
            name = classes.names[number]
            given = found.scores_n[rows], overlap, crowds
            answer[kind][name] = match(*given)
            for size in SIZES:
                sides = areas_n[rows], true.pixels_k[columns]
                if (of_size := match_of_size(size, *given, *sides)) is not None:
                    answer[f"{kind}@{size}"][name] = of_size
    return answer


def _shared_pixels(found: Instances, true: TrueThings) -> tuple[np.ndarray, np.ndarray] | None:
    """The pixels that each pair shares, (n, k), and those of each found thing, (n,); None of a
    model without masks."""
    size = len(true) + 1
    if found.masks_nhw is not None:
        table = np.zeros((len(found), size))
        for row, mask_hw in enumerate(found.masks_nhw):
            table[row] = np.bincount(true.rows_hw[mask_hw > HALF], minlength=size)
    elif found.ids_hw is not None:
        pairs = found.ids_hw.astype(np.int64) * size + true.rows_hw
        counts = np.bincount(pairs.ravel(), minlength=(len(found) + 1) * size)
        table = counts.reshape(-1, size)[1:].astype(np.float64)
    else:
        return None
    return table[:, 1:], table.sum(axis=1)
