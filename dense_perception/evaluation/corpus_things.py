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
from dense_perception.data.sample import NamedFrames
from dense_perception.evaluation.thing_classes import true_segments
from dense_perception.evaluation.things import (
    PanopticFigures,
    PanopticJudge,
    ThingsJudge,
    ThingsReport,
)
from dense_perception.evaluation.true_things import (
    NAMELESS,
    UNNUMBERED_NOTE,
    TrueThings,
    true_things,
)
from dense_perception.evaluation.truth import counted_labels
from dense_perception.media.problems import Problems
from dense_perception.metrics.detection import TrueThing, rle_of_mask
from dense_perception.runtime.perceiver import Perceiver

_LOOKED_AT = 16


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
    unnumbered = Problems()
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
            labels_hw = counted_labels(sample.labels_hw)
            true = true_things(
                sample.instances_hw, sample.instance_labels, labels_hw, judge.classes_of_both
            )
            judge.add(annotated_things(true), answer)
            if true.void_k[true.labels_k != NAMELESS].any():
                unnumbered.at(frames.keys[index], UNNUMBERED_NOTE)
            if panoptic is not None and labels_hw is not None:
                assert card.instances is not None
                segments = true_segments(
                    sample.instances_hw,
                    sample.instance_labels,
                    labels_hw,
                    frames.classes,
                    card.instances.label_set.labels,
                )
                panoptic.add(segments, answer)
            compared += 1
        except DensePerceptionError as error:
            problems.append(f"{frames.keys[index]}: {error}")
    if not compared:
        raise InputError(
            f"none of the {len(indices)} frames could be compared: {'; '.join(problems[:3])}"
        )
    figures: PanopticFigures | None = panoptic.figures() if panoptic is not None else None
    problems += unnumbered.lines
    return ThingsReport(card.name, compared, *judge.figures(), figures, tuple(problems))


def annotated_things(true: TrueThings) -> list[TrueThing]:
    """The things in view with the boxes of their pixels, classes counted from 0."""
    found = []
    for row, (label, sides) in enumerate(zip(true.labels_k, true.boxes_k4, strict=True)):
        left, top, right, bottom = (float(side) for side in sides)
        found.append(
            TrueThing(
                (left, top, right, bottom),
                int(label),
                crowd=bool(true.void_k[row]),
                mask=rle_of_mask(true.rows_hw == row + 1),
            )
        )
    return found


def _panoptic_judge(card: ModelCard, frames: NamedFrames) -> PanopticJudge | None:
    if card.segmentation is None or card.instances is None or not card.instances.has_ids:
        return None
    return PanopticJudge(card, frames.classes, frames.name)
