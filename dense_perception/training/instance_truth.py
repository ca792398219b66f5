"""The things of a batch: how they lie in it, and as boxes, classes and masks.

A batch holds two targets of them, so that frames with different numbers stack:

====================  =============================================================================
``instance_ids``      (N, H, W) whole numbers: 0 for no thing, k for that of row k - 1
``instance_classes``  (N, K) int64: class of each row, :data:`NOBODY` for rows without a thing, and
                      for things that nobody is to learn or to be blamed for (crowds, and
                      what is of a class of things and has no number)
====================  =============================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dense_perception.core.errors import TrainingError
from dense_perception.core.instance_lists import IDS
from dense_perception.data.check import has_instances
from dense_perception.data.instance_rows import NOBODY
from dense_perception.data.sample import NamedFrames
from dense_perception.data.targets import ROW_CLASSES as CLASSES
from dense_perception.data.unnumbered import numbering_of
from dense_perception.nets.detection.boxes import boxes_around
from dense_perception.nets.zoo import things_of as declared_things

__all__ = ["CLASSES", "NOBODY", "Things", "thing_classes", "things_of"]


@dataclass(frozen=True)
class Things:
    """Of one frame with K things: ``boxes_k4`` float32 in pixels, ``classes_k`` int64 and
    ``masks_khw`` bool. ``ignored_hw`` bool is where things of :data:`NOBODY` are."""

    boxes_k4: Tensor
    classes_k: Tensor
    masks_khw: Tensor
    ignored_hw: Tensor

    def __len__(self) -> int:
        return len(self.classes_k)


def thing_classes(
    network: Mapping[str, object], corpora: Iterable[NamedFrames]
) -> tuple[frozenset[int], list[str]]:
    """The classes that are things to a network, from 1 on, and the corpora some of whose pixels of
    them have no number, each in a sentence.

    To a network without labels these are the classes that its corpora number: it may name stuff as
    well, which they label alone.

    :raises CardError: if the network cannot be built.
    """
    found = [(corpus, numbering_of(corpus)) for corpus in corpora if has_instances(corpus)]
    declared = declared_things(network)
    things = frozenset(declared or ()).union(
        *(each.numbered for _, each in found if declared is None)
    )
    problems = [each.problem(corpus.name, things, corpus.classes) for corpus, each in found]
    return things, [problem for problem in problems if problem]


def things_of(targets: Mapping[str, Tensor]) -> list[Things]:
    """The things of each frame; one without a pixel is none.

    :raises TrainingError: if there are no such targets, or ids without a row.
    """
    if IDS not in targets or CLASSES not in targets:
        raise TrainingError(
            f"the batch has {sorted(targets)}, a network of things needs {IDS} and {CLASSES}: "
            "train on a corpus with instance ids"
        )
    return [_of_frame(*pair) for pair in zip(targets[IDS], targets[CLASSES], strict=True)]


def _of_frame(ids_hw: Tensor, classes_k: Tensor) -> Things:
    ids_hw = ids_hw.to(torch.int64)
    counts = torch.bincount(ids_hw.flatten(), minlength=len(classes_k) + 1)
    if len(counts) > len(classes_k) + 1:
        raise TrainingError(
            f"a frame has the instance {len(counts) - 1}, its list of classes ends at "
            f"{len(classes_k)}"
        )
    here_k = counts[1:] > 0
    rows = (here_k & (classes_k != NOBODY)).nonzero().flatten()
    masks_khw = ids_hw.unsqueeze(0) == (rows + 1).reshape(-1, 1, 1)
    ignored = (here_k & (classes_k == NOBODY)).nonzero().flatten() + 1
    return Things(
        boxes_around(masks_khw.to(torch.float32)),
        classes_k[rows].to(torch.int64),
        masks_khw,
        torch.isin(ids_hw, ignored),
    )
