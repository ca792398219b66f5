"""A model against the truth of a corpus, or of a public data set in its own layout."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from dense_perception.core.camera import Frame
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import DensePerceptionError, InputError, TrainingError
from dense_perception.core.labels import VOID, folded
from dense_perception.core.printable import counted, short
from dense_perception.data.corpus import evenly
from dense_perception.data.sample import NamedFrames, Sample
from dense_perception.evaluation.bags import Pair
from dense_perception.evaluation.segmentation import Labeller, LabelReport, label_report
from dense_perception.evaluation.truth import counted_labels, known_depth
from dense_perception.metrics.dense import Confusion

_LOOKED_AT = 16


class FramePairs:
    """Colour and depth of frames, as :class:`~dense_perception.evaluation.bags.PairSource` gives
    those of a bag; frames without depth are ``unmatched``, damaged ones are named in ``problems``.

    :param limit: take no more frames than this, spread evenly; None for all.
    """

    def __init__(self, frames: NamedFrames, limit: int | None = None) -> None:
        self.frames = frames
        self.topic, self.depth_topic = frames.name, "its depth"
        self.problems: list[str] = []
        self.unmatched = 0
        self._indices = evenly(len(frames), limit or len(frames))
        self.total: int | None = len(self._indices)

    def __iter__(self) -> Iterator[Pair]:
        for index in self._indices:
            try:
                sample = self.frames[index]
            except (InputError, TrainingError) as error:
                self.problems.append(str(error))
                continue
            true_m = known_depth(np.asarray(sample.depth_m, np.float32))
            if true_m is None:
                self.unmatched += 1
                continue
            frame = Frame(
                np.ascontiguousarray(sample.rgb_hwc),
                sample.stamp_ns or 0,
                sample.recording,
                sample.intrinsics,
            )
            yield Pair(frame, true_m)

    def why_none(self) -> str:
        """Why no frame could be compared."""
        return f"none of the {self.total} frames of {self.frames.name} has depth"


def has_depth(frames: NamedFrames) -> bool:
    """Whether some of the frames have depth."""
    return any(np.any(np.asarray(sample.depth_m) > 0) for sample in _some(frames))


def has_labels(frames: NamedFrames) -> bool:
    """Whether some of the frames have labels."""
    return any(sample.labels_hw is not None for sample in _some(frames))


def evaluate_frame_labels(
    card: ModelCard,
    label: Labeller,
    frames: NamedFrames,
    limit: int | None = None,
    *,
    progress: bool = False,
) -> LabelReport:
    """Compare what ``label`` says of at most ``limit`` frames, spread evenly, with their labels.

    ``progress`` shows a bar on a terminal.

    :raises InputError: if the classes differ from the model's, or no frame could be compared.
    """
    assert card.segmentation is not None
    names = tuple(card.segmentation.label_set.labels)
    if frames.classes and folded(frames.classes) != folded(names):
        raise InputError(
            f"{frames.name} has the classes {short(list(frames.classes))}, the model "
            f"{short(list(names))}: compare with a data set of the model's own classes"
        )
    confusion = Confusion(len(names))
    problems: list[str] = []
    indices = evenly(len(frames), limit or len(frames))
    disable = None if progress else True
    for index in tqdm(indices, unit="frame", disable=disable, file=sys.stderr):
        try:
            sample = frames[index]
            true_hw = _true_labels(sample)
            if true_hw.max(initial=0, where=true_hw != VOID) >= len(names):
                raise InputError(
                    f"labels go up to {int(true_hw.max(where=true_hw != VOID, initial=0)) + 1}, "
                    f"the model has {counted(len(names), 'class')}"
                )
            confusion.add(label(np.ascontiguousarray(sample.rgb_hwc)), true_hw)
        except DensePerceptionError as error:
            problems.append(f"{frames.keys[index]}: {error}")
    return label_report(names, confusion, len(indices), problems)


def _true_labels(sample: Sample) -> np.ndarray:
    """(H, W) int64 from 0, VOID where there is no class."""
    labels_hw = counted_labels(sample.labels_hw)
    if labels_hw is None:
        raise InputError("it has no labels")
    return labels_hw


def _some(frames: NamedFrames) -> Iterator[Sample]:
    for index in evenly(len(frames), _LOOKED_AT):
        with contextlib.suppress(InputError, TrainingError):
            yield frames[index]
