"""Whether a corpus teaches what a training is for: said before the training, not by its result."""

from __future__ import annotations

import numpy as np

from dense_perception.core.errors import InputError, TrainingError
from dense_perception.core.printable import counted
from dense_perception.data.corpus import Corpus, evenly
from dense_perception.data.doubts import MILLIMETRES, Evidence, doubts_of
from dense_perception.data.sample import NamedFrames

_FRAMES = 32
_LABELLED_FRAMES = 256
_MIN_SHARE = 0.01
_DOUBTED_FRAMES = 96


def check_depth(frames: NamedFrames, min_m: float, max_m: float) -> None:
    """Look at some frames spread over the corpus.

    :raises TrainingError: if under a hundredth of their pixels has a depth from ``min_m`` to
        ``max_m``, or the depth seems to be in millimetres.
    """
    depths = [
        np.asarray(frames[index].depth_m[::4, ::4], np.float32)
        for index in evenly(len(frames), _FRAMES)
    ]
    depth_m = np.concatenate([depth.ravel() for depth in depths])
    known = depth_m[np.isfinite(depth_m) & (depth_m > 0)]
    where = f"{_place(frames)} (of {len(depths)} frames that were looked at)"
    if not known.size:
        raise TrainingError(
            f"{where} has no depth at all, only 0, infinity or NaN: there is nothing to learn; "
            "give another corpus, or check how its depth was made"
        )
    median = float(np.median(known))
    if median > MILLIMETRES:
        raise TrainingError(
            f"{where} has a median depth of {median:.0f}, expected metres: millimetres must be "
            "divided by 1000 before they are written"
        )
    share = float(((known >= min_m) & (known <= max_m)).sum() / depth_m.size)
    if share < _MIN_SHARE:
        raise TrainingError(
            f"{where} has {100 * share:.2f} % of its depth from {min_m:g} to {max_m:g} m (median "
            f"{median:.2f}), expected at least {100 * _MIN_SHARE:g} %: is it in metres? Else "
            "change min_m and max_m of the configuration"
        )


def has_labels(frames: NamedFrames) -> bool:
    """Whether some frame has labels; a corpus without is void everywhere to a segmentation."""
    return any(frames[index].labels_hw is not None for index in evenly(len(frames), _FRAMES))


def has_instances(frames: NamedFrames) -> bool:
    """Whether some frame has its things numbered."""
    return any(frames[index].instances_hw is not None for index in evenly(len(frames), _FRAMES))


def shows_things(frames: NamedFrames) -> bool:
    """Whether a thing of a class is in the frames, of which many are looked at."""
    return any(
        any(label != 0 for label in frames[index].instance_labels.values())
        for index in evenly(len(frames), _LABELLED_FRAMES)
    )


def check_labels(frames: NamedFrames, classes: int) -> tuple[str, ...]:
    """The names of the corpus's classes from 1 on; empty where its description names none.

    Looks at frames spread over the corpus. A label above the classes in another frame is refused
    by name when that frame is read.

    :raises TrainingError: if a frame has no labels, they are above ``classes``, all are 0, or the
        description names another number of classes.
    """
    place = _place(frames)
    highest = 0
    for index in evenly(len(frames), _LABELLED_FRAMES):
        sample = frames[index]
        if sample.labels_hw is None:
            raise TrainingError(
                f"frame {sample.key} of {place} has no labels, and other frames have some: "
                "make those of this frame, or remove all to leave the corpus out of that task"
            )
        highest = max(highest, int(sample.labels_hw.max(initial=0)))
    if highest == 0:
        raise TrainingError(f"{place} has labels of 0 (none) alone: there is nothing to learn")
    if highest > classes:
        raise TrainingError(
            f"{place} has labels up to {highest}, the network {counted(classes, 'class')} (1 to "
            f"{classes}, 0 is none): set `classes` of the configuration's network, or relabel"
        )
    return _names(frames, classes)


def check_things(frames: NamedFrames, classes: int) -> tuple[str, ...]:
    """As :func:`check_labels`, of a corpus whose things are numbered and pixels have no labels.

    :raises TrainingError: if their classes are above ``classes``, or the description names another
        number of classes.
    """
    found = [
        label
        for index in evenly(len(frames), _LABELLED_FRAMES)
        for label in frames[index].instance_labels.values()
    ]
    highest = max(found, default=0)
    if highest > classes:
        raise TrainingError(
            f"{_place(frames)} has things of class {highest}, the network "
            f"{counted(classes, 'class')} (1 to {classes}): set `classes` of the configuration's "
            "network, or relabel"
        )
    return _names(frames, classes)


def doubts(frames: NamedFrames) -> list[str]:
    """What looks wrong with some frames spread over ``frames``, and does not rule out training.

    Such as depth that does not fit its picture, mixed units, pictures of one colour, copies.
    """
    evidence = Evidence(frames.name, len(frames.classes))
    for index in evenly(len(frames), _DOUBTED_FRAMES):
        try:
            evidence.add(frames[index])
        except (InputError, TrainingError) as error:
            evidence.add_unreadable(str(error))
    return doubts_of(evidence)


def _names(frames: NamedFrames, classes: int) -> tuple[str, ...]:
    """
    :raises TrainingError: if there are some, and not one for each of ``classes``.
    """
    names = tuple(frames.classes)
    if names and (len(names) != classes or len(set(names)) != len(names)):
        raise TrainingError(
            f"{_place(frames)} names {counted(len(names), 'class')} after that of 0, the network "
            f"has {classes}: name each once, and set `classes` of the configuration's network"
        )
    return names


def _place(frames: NamedFrames) -> str:
    return str(frames.root) if isinstance(frames, Corpus) else frames.name
