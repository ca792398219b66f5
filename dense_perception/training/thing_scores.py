"""How well a network finds the things of a batch: panoptic quality and the precision of its boxes.

Truth are the targets ``instance_ids`` and ``instance_classes``, see
:mod:`dense_perception.training.instance_truth`, and ``segmentation`` where there is one. A network
is not blamed for what it finds in void: things of nobody (crowds, and pixels of things without a
number), things that are too small to be found, and, if it gives labels, pixels without a class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dense_perception.core.boxes import boxes_around, overlaps
from dense_perception.core.errors import InputError
from dense_perception.core.instance_lists import BOXES, CLASSES, IDS, SCORES, used
from dense_perception.core.labels import VOID
from dense_perception.data.centres import SMALLEST_PX
from dense_perception.data.instance_rows import MOST_ROWS, NOBODY
from dense_perception.data.targets import ROW_CLASSES
from dense_perception.data.unnumbered import parts_of
from dense_perception.metrics.detection import DetectionScores, FoundThings, TrueThing, library
from dense_perception.metrics.panoptic import UNSEGMENTED, PanopticQuality, Segments

Arrays = Mapping[str, np.ndarray]

_LEAST_OVERLAP = 0.5  # that of box_ap50


class ThingScores:
    """Collects batches, then counts.

    :param classes: how many the targets tell apart.
    :param things: those of them that are things, in the order in which the network counts them.
    :param labelled: whether the network gives labels.
    """

    def __init__(self, classes: int, things: Sequence[int], *, labelled: bool = True) -> None:
        self._labelled = labelled
        self.classes, self.things = classes, np.array(things, np.int64)
        # One more is all that is no thing.
        self._quality = PanopticQuality(classes + 1)
        self._boxes = None
        if why_no_precision() is None:
            self._boxes = DetectionScores([str(label) for label in range(classes)])

    def add(self, outputs: Arrays, targets: Arrays) -> None:
        """What the network gives of a batch, and the truth."""
        for index in range(len(outputs[BOXES])):
            frame = {name: each[index] for name, each in targets.items()}
            segments, true = self._truth(frame)
            found = used(outputs, index)
            labels = self.things[found[CLASSES].astype(np.int64)]
            if self._boxes is not None:
                height, width = segments.ids_hw.shape
                counts = np.ones(len(labels), bool)
                if self._labelled:
                    counts = ~_in_void(found[BOXES], frame) | _finds(found[BOXES], labels, true)
                given = FoundThings(found[BOXES][counts], found[SCORES][counts], labels[counts])
                self._boxes.add(width, height, given, true)
            if IDS in outputs:
                classes = {row + 1: int(label) for row, label in enumerate(labels)}
                self._quality.add(Segments(outputs[IDS][index], classes), segments)

    def figures(self) -> dict[str, float]:
        """``things_pq``, ``things_sq`` and ``things_rq`` where the network gives ids, and
        ``box_ap50``, COCO's average precision at an overlap of 0.5; not what nothing counts for.
        """
        results = {}
        quality = self._quality.mean(self.things.tolist())
        if quality.classes:
            results = {"things_pq": quality.pq, "things_sq": quality.sq, "things_rq": quality.rq}
        if self._boxes is not None:
            results["box_ap50"] = self._boxes.boxes().ap50
        return {name: value for name, value in results.items() if np.isfinite(value)}

    def _truth(self, targets: Arrays) -> tuple[Segments, list[TrueThing]]:
        """Of one frame: the things, with all else as one segment more, and their boxes.

        In boxes, void is what COCO calls a crowd: of its class, or of each where it has none; of
        pixels without a number each connected part is one. For pixels without a class see
        :func:`_in_void`.
        """
        ids_hw, classes_k = targets[IDS].astype(np.int64), targets[ROW_CLASSES]
        things = self.things.tolist()
        rest = len(classes_k) + 1
        classes = {rest: self.classes}
        true: list[TrueThing] = []
        void_hw = np.zeros(ids_hw.shape, bool)
        segments_hw = np.full(ids_hw.shape, rest)
        boxes = [_sides(box) for box in boxes_around(ids_hw, len(classes_k))]
        for number in np.unique(ids_hw[ids_hw > 0]).tolist():
            label, inside_hw = int(classes_k[number - 1]), ids_hw == number
            if label == NOBODY:
                void_hw |= inside_hw
                if number == MOST_ROWS:
                    true += _parts(inside_hw, targets.get("segmentation"), things)
                else:
                    true += [TrueThing(boxes[number - 1], each, crowd=True) for each in things]
            elif label in things:
                small = bool(np.count_nonzero(inside_hw) < SMALLEST_PX)
                true.append(TrueThing(boxes[number - 1], label, crowd=small))
                segments_hw[inside_hw] = number
                classes[number] = label
                if small:
                    void_hw |= inside_hw
        if self._labelled and "segmentation" in targets:
            void_hw |= (ids_hw == 0) & (targets["segmentation"] == VOID)
        segments_hw[void_hw] = UNSEGMENTED
        present = set(np.unique(segments_hw).tolist()) - {UNSEGMENTED}
        return Segments(segments_hw, {number: classes[number] for number in present}), true


def _parts(
    inside_hw: np.ndarray, labels_hw: np.ndarray | None, things: Sequence[int]
) -> list[TrueThing]:
    """The connected parts of a region as crowds: of the class that its pixels have, or of each of
    ``things`` where nobody knows."""
    of_class_hw = np.full(inside_hw.shape, VOID) if labels_hw is None else labels_hw
    rows_hw, labels = parts_of(inside_hw, of_class_hw)
    return [
        TrueThing(_sides(box), each, crowd=True)
        for box, label in zip(boxes_around(rows_hw, len(labels)), labels, strict=True)
        for each in ([label] if label in things else things)
    ]


def _in_void(boxes_n4: np.ndarray, targets: Arrays) -> np.ndarray:
    """(n,) bool: whether half of a box or more is pixels without a class.

    That is COCO's rule for a crowd, whose region is counted by pixels here: those without a class
    are often a net around everything, and the box around that is the picture. A frame that has no
    class anywhere has no labels, and numbers all of its things.
    """
    labels_hw = targets.get("segmentation")
    if labels_hw is None or (labels_hw == VOID).all():
        return np.zeros(len(boxes_n4), bool)
    void_hw = (labels_hw == VOID) & (targets[IDS] == 0)
    height, width = void_hw.shape
    sides_n4 = np.rint(np.clip(boxes_n4, 0, [width, height] * 2)).astype(np.int64)
    insides = [void_hw[top:bottom, left:right] for left, top, right, bottom in sides_n4.tolist()]
    return np.array([each.size > 0 and each.mean() >= _LEAST_OVERLAP for each in insides], bool)


def _finds(boxes_n4: np.ndarray, labels_n: np.ndarray, true: Sequence[TrueThing]) -> np.ndarray:
    """(n,) bool: whether a box is at the place of a thing of its class."""
    things = [thing for thing in true if not thing.crowd]
    boxes_m4 = np.array([thing.box for thing in things], np.float64).reshape(-1, 4)
    labels_m = np.array([thing.label for thing in things], np.int64)
    same_nm = labels_n[:, None] == labels_m
    return np.asarray((same_nm & (overlaps(boxes_n4, boxes_m4) >= _LEAST_OVERLAP)).any(axis=1))


def why_no_precision() -> str | None:
    """What is missing for ``box_ap50``, if anything."""
    try:
        library()
    except InputError as error:
        return f"the validation has no box_ap50: {error}"
    return None


def _sides(box_4: np.ndarray) -> tuple[float, float, float, float]:
    left, top, right, bottom = (float(side) for side in box_4)
    return left, top, right, bottom
