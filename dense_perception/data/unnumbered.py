"""Pixels of a class of things that have no number: void, as crowds are.

A corpus with labels and numbers may number some chairs and not others. What has no number is a
chair, but nobody knows which or how many: it is neither background nor a thing to be found, in
training, in validation and in scores.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from dense_perception.core.printable import counted
from dense_perception.data.corpus import evenly, key_of
from dense_perception.data.instance_rows import UNNUMBERED
from dense_perception.data.sample import Frames, NamedFrames, Sample

_LOOKED_AT = 64
_SHOWN = 5


def unnumbered_pixels(
    instances_hw: np.ndarray, labels_hw: np.ndarray, things: Iterable[int]
) -> np.ndarray:
    """(H, W) bool: where a class of ``things`` is and no number.

    :param labels_hw: whole numbers up to 255, counted as ``things`` are.
    """
    is_thing = np.zeros(256, bool)
    is_thing[list(things)] = True
    return np.asarray(is_thing[labels_hw] & (instances_hw == 0))


def parts_of(region_hw: np.ndarray, labels_hw: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """The connected parts of a region, each of one class: their numbers from 1 on, (H, W) int32
    with 0 outside, and the class of each as ``labels_hw`` has it."""
    rows_hw = np.zeros(region_hw.shape, np.int32)
    labels: list[int] = []
    for label in np.unique(labels_hw[region_hw]).tolist():
        inside_hw = (region_hw & (labels_hw == label)).astype(np.uint8)
        count, parts_hw = cv2.connectedComponents(inside_hw)
        rows_hw += np.where(parts_hw > 0, parts_hw + len(labels), 0)
        labels += [label] * (count - 1)
    return rows_hw, labels


@dataclass(frozen=True)
class VoidUnnumbered:
    """Frames whose pixels of ``things`` (classes from 1 on) without a number have the number
    :data:`~dense_perception.data.instance_rows.UNNUMBERED`, of class 0."""

    frames: Frames
    things: frozenset[int]

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Sample:
        sample = self.frames[index]
        instances_hw, labels_hw = sample.instances_hw, sample.labels_hw
        if instances_hw is None or labels_hw is None or instances_hw.shape != labels_hw.shape:
            return sample
        void_hw = unnumbered_pixels(instances_hw, labels_hw, self.things)
        if not void_hw.any():
            return sample
        instances_hw, labels = instances_hw.copy(), dict(sample.instance_labels)
        if taken := labels.pop(UNNUMBERED, 0):
            free = min(set(range(1, UNNUMBERED)) - labels.keys())
            instances_hw[instances_hw == UNNUMBERED] = free
            labels[free] = taken
        instances_hw[void_hw] = UNNUMBERED
        return replace(sample, instances_hw=instances_hw, instance_labels=labels | {UNNUMBERED: 0})

    def key_of(self, index: int) -> str:
        """What a frame is called in messages."""
        return key_of(self.frames, index)


@dataclass(frozen=True)
class Numbering:
    """Of ``looked_at`` frames: the classes of numbered things, and of each of the frames those of
    pixels without a number."""

    looked_at: int
    numbered: frozenset[int]
    without: tuple[frozenset[int], ...]

    def problem(self, name: str, things: Collection[int], classes: tuple[str, ...]) -> str:
        """A sentence where classes of ``things`` have pixels without a number, else empty.

        :param name: the frames'; ``classes`` the names of their classes from 1 on.
        """
        found = [labels & set(things) for labels in self.without if labels & set(things)]
        if not found:
            return ""
        labels = sorted(frozenset().union(*found))
        names = [classes[n - 1] if n <= len(classes) else f"class {n}" for n in labels]
        shown = f"{', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"
        were = "was" if self.looked_at == 1 else "were"
        return (
            f"{name}: in {len(found)} of {counted(self.looked_at, 'frame')} that {were} looked at, "
            f"pixels of things ({shown}) have no number: they are void, which is neither learnt "
            "nor counted"
        )


def numbering_of(frames: NamedFrames) -> Numbering:
    """Looks at frames spread over all."""
    places = evenly(len(frames), _LOOKED_AT)
    numbered: set[int] = set()
    without: list[frozenset[int]] = []
    for index in places:
        sample = frames[index]
        if sample.instances_hw is None:
            continue
        numbered |= set(sample.instance_labels.values()) - {0}
        if sample.labels_hw is not None and sample.labels_hw.shape == sample.instances_hw.shape:
            left = np.bincount(sample.labels_hw[sample.instances_hw == 0], minlength=1)
            without.append(frozenset((np.flatnonzero(left[1:]) + 1).tolist()))
    return Numbering(len(places), frozenset(numbered), tuple(without))
