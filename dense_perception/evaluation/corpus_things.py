"""A model's things against a corpus that numbers its own: average precision, panoptic quality."""

from __future__ import annotations

import contextlib
import sys

import numpy as np
from tqdm import tqdm

from dense_perception.core.camera import Frame
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import DensePerceptionError, InputError, TrainingError
from dense_perception.data.corpus import evenly
from dense_perception.data.sample import NamedFrames, Sample
from dense_perception.evaluation.things import (
    PanopticFigures,
    PanopticJudge,
    ThingsJudge,
    ThingsReport,
)
from dense_perception.metrics.detection import TrueThing, rle_of_mask
from dense_perception.metrics.panoptic import NOBODY, Segments
from dense_perception.runtime.perceiver import Perceiver

_LOOKED_AT = 16
_OF_NO_CLASS = -1


def has_things(frames: NamedFrames) -> bool:
    """Whether some of the frames number their things."""
    for index in evenly(len(frames), _LOOKED_AT):
        with contextlib.suppress(InputError, TrainingError):
            if frames[index].instances_hw is not None:
                return True
    return False


def evaluate_frame_things(
    perceiver: Perceiver,
    frames: NamedFrames,
    limit: int | None = None,
    *,
    progress: bool = False,
) -> ThingsReport:
    """Compare the model with at most ``limit`` frames, spread evenly; classes match by name.

    Of a model that gives labels and instance ids panoptic quality is counted, too. A thing of no
    class counts neither for nor against the model.

    :raises InputError: if the model finds no things, they share no class, or no frame could be
        compared.
    """
    card = perceiver.card
    judge = ThingsJudge(card, frames.classes, frames.name)
    panoptic = _panoptic_judge(card, frames)
    wanted = {*judge.wanted, *(panoptic.wanted if panoptic else ())}
    problems, compared = list(judge.notes), 0
    indices = evenly(len(frames), limit or len(frames))
    for index in tqdm(indices, unit="frame", disable=None if progress else True, file=sys.stderr):
        try:
            sample = frames[index]
            if sample.instances_hw is None:
                raise InputError("its things are not numbered")
            rgb_hwc = np.ascontiguousarray(sample.rgb_hwc)
            frame = Frame(rgb_hwc, intrinsics=sample.intrinsics)
            (answer,) = perceiver.perceive([frame], wanted)
            if answer.instances is None or sample.instances_hw.shape != rgb_hwc.shape[:2]:
                raise InputError("its numbers are of another size than its picture")
            judge.add(true_things(sample), answer)
            if panoptic is not None and sample.labels_hw is not None:
                panoptic.add(_segments(sample, card, frames), answer)
            compared += 1
        except DensePerceptionError as error:
            problems.append(f"{frames.keys[index]}: {error}")
    if not compared:
        raise InputError(
            f"none of the {len(indices)} frames could be compared: {'; '.join(problems[:3])}"
        )
    figures: PanopticFigures | None = panoptic.figures() if panoptic is not None else None
    return ThingsReport(card.name, compared, *judge.figures(), figures, tuple(problems))


def true_things(sample: Sample) -> list[TrueThing]:
    """The things in view with the boxes of their pixels, classes counted from 0."""
    assert sample.instances_hw is not None
    found = []
    for number, label in sample.instance_labels.items():
        mask_hw = sample.instances_hw == number
        rows, columns = np.flatnonzero(mask_hw.any(axis=1)), np.flatnonzero(mask_hw.any(axis=0))
        if not len(rows):
            continue
        box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        left, top, right, bottom = (float(side) for side in box)
        found.append(
            TrueThing(
                (left, top, right, bottom),
                label - 1 if label else _OF_NO_CLASS,
                crowd=not label,
                mask=rle_of_mask(mask_hw),
            )
        )
    return found


def _panoptic_judge(card: ModelCard, frames: NamedFrames) -> PanopticJudge | None:
    if card.segmentation is None or card.instances is None or not card.instances.has_ids:
        return None
    return PanopticJudge(card, frames.classes, frames.name)


def _segments(sample: Sample, card: ModelCard, frames: NamedFrames) -> Segments:
    """Each thing is one, and each class of stuff; pixels of a thing without a number are void."""
    assert card.instances is not None
    assert sample.instances_hw is not None
    assert sample.labels_hw is not None
    ids_hw = sample.instances_hw.astype(np.int64)
    classes = {number: label - 1 for number, label in sample.instance_labels.items() if label}
    nameless = [number for number, label in sample.instance_labels.items() if not label]
    ids_hw[np.isin(ids_hw, nameless)] = NOBODY
    things = {name.casefold() for name in card.instances.label_set.labels}
    first = int(ids_hw.max(initial=0)) + 1
    free_hw = sample.instances_hw == 0
    for label in np.unique(sample.labels_hw[free_hw]).tolist():
        if label and frames.classes[label - 1].casefold() not in things:
            ids_hw[free_hw & (sample.labels_hw == label)] = first + label
            classes[first + label] = label - 1
    present = set(np.unique(ids_hw).tolist())
    return Segments(ids_hw, {n: label for n, label in classes.items() if n in present})
