"""A network's labels to those a robot wants: grouped, renumbered, with a void label."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.core.labels import LabelSet

AUTOMATIC_VOID = -1
"""Stands for 255 in a mask of 8 bits and 65535 in one of 16, as vision_msgs has it."""

_REST = "*"


@dataclass(frozen=True, eq=False)
class Relabelling:
    """What becomes of each label.

    ``names``: the name by published label. ``table``: the published label by the network's, of
    length 256 (or 65536 above 255 classes), ``uint8`` where every published label fits and
    ``uint16`` otherwise. ``colors``: (256, 3) or (65536, 3) ``uint8`` RGB by the network's label.
    """

    names: Mapping[int, str]
    void: int
    table: np.ndarray
    colors: np.ndarray

    @property
    def changes_nothing(self) -> bool:
        return self.table.dtype == np.uint8 and np.array_equal(self.table, np.arange(256))


def relabelling(
    labels: LabelSet,
    groups: Sequence[str] = (),
    *,
    first_label: int = 0,
    void_label: int = AUTOMATIC_VOID,
) -> Relabelling:
    """Build the table.

    :param groups: each ``NAME: class, class, ...``, where ``*`` takes every class that no other
        group names; the groups are numbered from ``first_label`` in their order and classes that
        no group takes become void. Without groups every class is its own.
    :param first_label: number of the first class or group.
    :param void_label: the label of pixels without a class, or :data:`AUTOMATIC_VOID`.
    :raises InputError: for a malformed group, a class that does not exist or is in two groups, or
        a void label that is also a class's.
    """
    if groups:
        members = _members(labels, groups)
        names = {first_label + index: name for index, (name, _) in enumerate(members)}
        colors_by_group = LabelSet("groups", tuple(name for name, _ in members)).colors()
        targets = {
            label: (first_label + index, colors_by_group[index])
            for index, (_, classes) in enumerate(members)
            for label in classes
        }
    else:
        names = {first_label + label: name for label, name in enumerate(labels.labels)}
        own = labels.colors()
        targets = {
            label: (first_label + label, own[label % len(own)])
            for label in range(len(labels.labels))
        }
    if max(max(names), void_label) > 65535:
        raise InputError(
            f"labels go up to {max(max(names), void_label)}, expected at most 65535: lower "
            "first_label"
        )
    wide = max(max(names), void_label) > 255 or (void_label == AUTOMATIC_VOID and max(names) == 255)
    void = (65535 if wide else 255) if void_label == AUTOMATIC_VOID else void_label
    if void in names:
        raise InputError(
            f"void_label is {void}, which is also the label of {names[void]!r}: choose another, or "
            "begin the classes elsewhere with first_label"
        )
    length = 256 if len(labels.labels) <= 256 else 65536
    table = np.full(length, void, np.uint16 if wide else np.uint8)
    colors = np.zeros((length, 3), np.uint8)
    for label, (target, color) in targets.items():
        table[label], colors[label] = target, color
    return Relabelling(names, void, table, colors)


def _members(labels: LabelSet, groups: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Name and labels of each group."""
    numbers = {name.lower(): label for label, name in enumerate(labels.labels)}
    taken: dict[int, str] = {}
    members: list[tuple[str, list[int]]] = []
    rest: int | None = None
    for entry in groups:
        name, colon, classes = entry.partition(":")
        name = name.strip()
        if not colon or not name or not classes.strip():
            raise InputError(
                f"label group {entry!r}, expected 'NAME: class, class, ...' such as "
                "'drivable: road, floor'"
            )
        if name in (known for known, _ in members):
            raise InputError(f"there are two label groups {name!r}: put their classes into one")
        chosen: list[int] = []
        for word in filter(None, (part.strip().lower() for part in classes.split(","))):
            if word == _REST:
                if rest is not None:
                    raise InputError("two label groups take '*', expected one at most")
                rest = len(members)
                continue
            label = _number(word, numbers, labels)
            if label in taken:
                raise InputError(
                    f"class {word!r} is in the label groups {taken[label]!r} and {name!r}, "
                    "expected one"
                )
            taken[label] = name
            chosen.append(label)
        members.append((name, chosen))
    if rest is not None:
        members[rest][1].extend(set(range(len(labels.labels))) - set(taken))
    return members


def _number(word: str, numbers: Mapping[str, int], labels: LabelSet) -> int:
    if word in numbers:
        return numbers[word]
    close = difflib.get_close_matches(word, list(numbers), n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"its classes are {_some(labels.labels)}"
    raise InputError(f"the label set {labels.name} has no class {word!r}: {hint}")


def _some(names: Iterable[str], most: int = 12) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (", ..." if len(listed) > most else "")
