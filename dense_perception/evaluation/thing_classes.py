"""The classes that a model and a truth share, and the segments of both in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.core.labels import VOID, folded
from dense_perception.core.prediction import Instances
from dense_perception.core.printable import counted
from dense_perception.metrics.panoptic import UNSEGMENTED, Segments

_SHOWN = 5


class SharedClasses:
    """The classes of model and truth by name, whatever their case, numbered from 0.

    ``of_model`` and ``of_truth`` int64 give the number of each side's classes, -1 for one of that
    side alone; ``notes`` name those, ``of_model_alone`` the model's. ``names`` are the truth's.

    :param where: what holds the truth, for messages.
    :raises InputError: if they share none.
    """

    def __init__(self, model: Sequence[str], truth: Sequence[str], where: str) -> None:
        plain = {name.casefold(): name for name in truth}
        self.names = tuple(plain[n.casefold()] for n in model if n.casefold() in plain)
        if not self.names:
            raise InputError(
                f"the model finds {', '.join(model[:_SHOWN])}, {where} names "
                f"{', '.join(truth[:_SHOWN]) or 'no class'}: they share no class"
            )
        self.of_model, self.of_truth = self._places(model), self._places(truth)
        self.of_model_alone = _alone(model, self.of_model, f"{where}: ", "the model's")
        of_truth_alone = _alone(truth, self.of_truth, f"{where}: ", "the truth's")
        self.notes = [note for note in (self.of_model_alone, of_truth_alone) if note]

    @property
    def of_both(self) -> frozenset[int]:
        """The truth's numbers of the shared classes."""
        return frozenset(np.flatnonzero(self.of_truth >= 0).tolist())

    def _places(self, names: Sequence[str]) -> np.ndarray:
        places = {name.casefold(): number for number, name in enumerate(self.names)}
        return np.array([places.get(name.casefold(), -1) for name in names], np.int64)


def _alone(names: Sequence[str], places: np.ndarray, where: str, whose: str) -> str:
    """That classes are of one side alone; empty without any."""
    left = [name for name, place in zip(names, places, strict=True) if place < 0]
    if not left:
        return ""
    are, do = ("is", "does") if len(left) == 1 else ("are", "do")
    shown = f"{', '.join(left[:_SHOWN])}{', ...' if len(left) > _SHOWN else ''}"
    return f"{where}{counted(len(left), 'class')} {are} {whose} alone and {do} not count: {shown}"


class PanopticClasses:
    """The shared classes of a model that cuts pictures into segments of things and stuff.

    :param labels: the names of its labels, from 0; ``things`` those of its things.
    :param classes: the truth's.
    :raises InputError: if they share none.
    """

    def __init__(
        self, labels: Sequence[str], things: Sequence[str], classes: Sequence[str], where: str
    ) -> None:
        self._shared = SharedClasses(labels, classes, where)
        self.names, self.notes = self._shared.names, self._shared.notes
        plain, of_things = folded(labels), folded(things)
        self._is_thing = [name in of_things for name in plain]
        self._label_of = [plain.index(n) if n in plain else -1 for n in of_things]
        places = self._shared.of_model.tolist()
        self.things = [p for p, thing in zip(places, self._is_thing, strict=True) if thing]
        self.things = [place for place in self.things if place >= 0]
        self.stuff = [n for n in range(len(self.names)) if n not in set(self.things)]

    def of_answer(self, found: Instances, labels_hw: np.ndarray) -> Segments:
        """Each thing is a segment, and so are all pixels of a class of stuff."""
        assert found.ids_hw is not None
        ids_hw = found.ids_hw.astype(np.int64)
        classes: dict[int, int] = {}
        for row, label in enumerate(found.classes_n):
            place = self._label_of[label]
            classes[row + 1] = int(self._shared.of_model[place]) if place >= 0 else -1
        first = len(found) + 1
        for label in np.unique(labels_hw[ids_hw == UNSEGMENTED]):
            # Pixels of a thing that is none of the list are of no segment.
            if label < len(self._is_thing) and not self._is_thing[label]:
                ids_hw[(labels_hw == label) & (found.ids_hw == UNSEGMENTED)] = first + int(label)
                classes[first + int(label)] = int(self._shared.of_model[label])
        return _without(ids_hw, classes)

    def of_truth(self, true: Segments) -> Segments:
        """``true``, whose classes are the truth's, in the shared ones."""
        classes = {n: int(self._shared.of_truth[label]) for n, label in true.classes.items()}
        return _without(true.ids_hw, classes, true.crowds)


def true_segments(
    instances_hw: np.ndarray,
    instance_labels: Mapping[int, int],
    labels_hw: np.ndarray,
    classes: Sequence[str],
    things: Sequence[str],
) -> Segments:
    """Of a frame with numbered things: each is a segment, and so is each class of stuff.

    Pixels of a thing without a number, and of one without a class, are void. Numbered stuff, as
    each of four walls, is one segment as well.

    :param instance_labels: as :class:`~dense_perception.data.sample.Sample` has them, from 1.
    :param labels_hw: (H, W) whole numbers from 0, VOID for none, of ``classes``.
    :param things: the names of the classes that are no stuff.
    """
    names = {name.casefold() for name in things}
    is_stuff = [name.casefold() not in names for name in classes]
    present = np.flatnonzero(np.bincount(instances_hw.ravel())).tolist()
    labels = {number: instance_labels.get(number, 0) - 1 for number in present}
    of_number: dict[int, int] = {}
    kept = np.zeros(max(present, default=0) + 1, np.int64)
    is_free = np.zeros(len(kept), bool)
    for number, label in labels.items():
        named = 0 <= label < len(classes)
        is_free[number] = not number or (named and is_stuff[label])
        if named and not is_free[number]:
            kept[number], of_number[number] = number, label
    ids_hw, free_hw = kept[instances_hw], is_free[instances_hw]
    for label in np.unique(labels_hw[free_hw]).tolist():
        if label != VOID and label < len(classes) and is_stuff[label]:
            ids_hw[free_hw & (labels_hw == label)] = len(kept) + label
            of_number[len(kept) + label] = label
    return Segments(ids_hw, of_number)


def _without(
    ids_hw: np.ndarray, classes: Mapping[int, int], crowds: frozenset[int] = frozenset()
) -> Segments:
    """Segments of no shared class become void."""
    left = [number for number, label in classes.items() if label < 0]
    if left:
        ids_hw = np.where(np.isin(ids_hw, left), UNSEGMENTED, ids_hw)
    kept = {number: label for number, label in classes.items() if label >= 0}
    return Segments(ids_hw, kept, crowds - set(left))
