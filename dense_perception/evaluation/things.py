"""A model's things against annotated pictures: average precision, or panoptic quality."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dense_perception.core.camera import Frame
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import DensePerceptionError, InputError
from dense_perception.core.prediction import Prediction
from dense_perception.core.printable import counted
from dense_perception.core.storage import read_file
from dense_perception.data.coco_annotations import (
    Annotations,
    read_segments,
)
from dense_perception.evaluation.frame_things import HALF
from dense_perception.evaluation.thing_classes import PanopticClasses, SharedClasses
from dense_perception.imaging.messages import ImageReader
from dense_perception.metrics.detection import (
    DetectionScores,
    FoundThings,
    Precision,
    TrueThing,
    rle_of_mask,
)
from dense_perception.metrics.panoptic import PanopticQuality, Quality, Segments
from dense_perception.runtime.perceiver import Perceiver


@dataclass(frozen=True)
class PanopticFigures:
    """Over all classes that occur, over things and over stuff, and PQ by class."""

    all: Quality
    things: Quality
    stuff: Quality
    by_class: dict[str, float]


@dataclass(frozen=True)
class ThingsReport:
    """How a model compared; ``masks`` is None where the model or the truth has none."""

    model: str
    pictures: int
    boxes: Precision | None
    masks: Precision | None
    panoptic: PanopticFigures | None
    problems: tuple[str, ...]


def evaluate_things(
    perceiver: Perceiver,
    truth: Annotations,
    images: Path,
    *,
    limit: int | None = None,
    reader: ImageReader | None = None,
    progress: bool = False,
) -> ThingsReport:
    """Compare the model with ``truth`` on the pictures of the folder ``images``.

    Classes are matched by name. Panoptic truth judges a model of panoptic labels; its PNGs are in
    the folder named as the file, without ``.json``.

    :raises InputError: if the model does not give what the truth is about, they share no class, or
        no picture could be compared.
    """
    card, reader = perceiver.card, reader or ImageReader()
    where = (card, truth.classes, truth.path.name)
    judge = PanopticJudge(*where) if truth.is_panoptic else ThingsJudge(*where)
    segments = truth.path.with_suffix("")
    problems = [*truth.problems, *judge.notes]
    things = [each for picture in truth.pictures for each in picture.things]
    if 0 < (without := sum(each.mask is None for each in things)) < len(things):
        problems.append(
            f"{truth.path.name}: {counted(without, 'thing')} without a mask: the box counts alone, "
            "and what is found inside it counts neither way for masks"
        )
    chosen = truth.pictures[:limit]
    compared = 0
    for picture in tqdm(
        chosen, unit="picture", disable=None if progress else True, file=sys.stderr
    ):
        try:
            rgb_hwc = reader.picture(read_file(images / picture.file_name))
            if rgb_hwc.shape[:2] != (picture.height, picture.width):
                raise InputError(
                    f"it is {rgb_hwc.shape[1]}x{rgb_hwc.shape[0]}, its annotation says "
                    f"{picture.width}x{picture.height}"
                )
            (answer,) = perceiver.perceive([Frame(rgb_hwc)], judge.wanted)
            if isinstance(judge, PanopticJudge):
                true, doubts = read_segments(segments, picture)
                problems += doubts
                judge.add(true, answer)
            else:
                judge.add(picture.things, answer)
            compared += 1
        except (DensePerceptionError, OSError) as error:
            problems.append(f"{picture.file_name}: {error}")
    if not compared:
        raise InputError(
            f"none of the {len(chosen)} pictures could be compared: {'; '.join(problems[:3])}"
        )
    figures = judge.figures()
    boxes, masks = (None, None) if isinstance(figures, PanopticFigures) else figures
    return ThingsReport(
        card.name,
        compared,
        boxes,
        masks,
        figures if isinstance(figures, PanopticFigures) else None,
        (*problems, *reader.doubts),
    )


class ThingsJudge:
    """Average precision of boxes, and of masks where there are some."""

    def __init__(self, card: ModelCard, classes: Sequence[str], where: str) -> None:
        if card.instances is None:
            raise InputError(
                f"model {card.name} gives {' and '.join(card.outputs)}, no things: choose a model "
                "with instances"
            )
        self._classes = SharedClasses(card.instances.label_set.labels, classes, where)
        self.notes = self._classes.notes
        self.wanted = ["instances", *(n for n in ("instance_ids",) if n in card.outputs)]
        self.wanted += card.on_request
        self._scores = DetectionScores(self._classes.names)

    @property
    def classes_of_both(self) -> frozenset[int]:
        """The truth's numbers of the classes that the model finds, too."""
        return self._classes.of_both

    def add(self, things: Sequence[TrueThing], answer: Prediction) -> None:
        """``things`` are numbered as the truth's classes; -1 is a thing that counts neither way."""
        found = answer.instances
        assert found is not None
        found = found.selected(self._classes.of_model[found.classes_n] >= 0)
        masks = None
        if found.masks_nhw is not None:
            masks = [rle_of_mask(mask > HALF) for mask in found.masks_nhw]
        elif found.ids_hw is not None:
            masks = [rle_of_mask(found.ids_hw == row + 1) for row in range(len(found))]
        labels = self._classes.of_model[found.classes_n]
        true: list[TrueThing] = []
        for each in things:
            shared = [int(self._classes.of_truth[each.label])]
            if each.label < 0:  # a crowd of every class
                shared = list(range(len(self._classes.names)))
            true += [
                TrueThing(each.box, label, each.crowd, each.mask, each.area)
                for label in shared
                if label >= 0
            ]
        given = FoundThings(found.boxes_n4, found.scores_n, labels, masks)
        self._scores.add(answer.width, answer.height, given, true)

    def figures(self) -> tuple[Precision, Precision | None]:
        return self._scores.boxes(), self._scores.masks()


class PanopticJudge:
    """Panoptic quality: a thing is a segment, and so are all pixels of a class of stuff."""

    wanted: Sequence[str] = ("labels", "instances", "instance_ids")

    def __init__(self, card: ModelCard, classes: Sequence[str], where: str) -> None:
        things, labelled = card.instances, card.segmentation
        if things is None or labelled is None or not things.has_ids:
            raise InputError(
                f"model {card.name} gives {' and '.join(card.outputs)}: panoptic truth needs "
                "labels and instance ids; choose a panoptic model"
            )
        self._classes = PanopticClasses(
            labelled.label_set.labels, things.label_set.labels, classes, where
        )
        self.notes = self._classes.notes
        self._quality = PanopticQuality(len(self._classes.names))

    def add(self, true: Segments, answer: Prediction) -> None:
        assert answer.instances is not None
        assert answer.labels is not None
        found = self._classes.of_answer(answer.instances, answer.labels.values_hw)
        self._quality.add(found, self._classes.of_truth(true))

    def figures(self) -> PanopticFigures:
        by_class = self._quality.by_class()[:, 0]
        return PanopticFigures(
            self._quality.mean(),
            self._quality.mean(self._classes.things),
            self._quality.mean(self._classes.stuff),
            {
                name: float(value)
                for name, value in zip(self._classes.names, by_class, strict=True)
                if np.isfinite(value)
            },
        )
