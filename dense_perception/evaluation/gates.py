"""Conditions under which an evaluation fails a build: ``depth.metric.absrel > 0.2``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dense_perception.core.errors import InputError
from dense_perception.evaluation.document import FigureValue
from dense_perception.evaluation.figures import figure

_SIGNS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_FORM = re.compile(r"\s*(\S+)\s*(>=|<=|>|<)\s*([-+0-9.eE]+)\s*")


@dataclass(frozen=True)
class Gate:
    """A figure, a comparison and a number; true is a failure."""

    figure: str
    sign: str
    limit: float

    def holds(self, value: float) -> bool:
        return _SIGNS[self.sign](value, self.limit)


def read_gate(text: str) -> Gate:
    """
    :raises InputError: if it is no comparison of a figure with a number.
    """
    match = _FORM.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        limit = float(match[3])
    except ValueError:
        raise InputError(
            f"--fail-if {text!r} is no condition, expected e.g. 'depth.metric.absrel > 0.2'"
        ) from None
    figure(match[1])
    return Gate(match[1], match[2], limit)


def failures(
    gates: tuple[Gate, ...], figures: Mapping[str, Mapping[str, FigureValue]]
) -> list[str]:
    """A sentence for each contestant and gate that holds.

    :param figures: by contestant and name; baselines left out.
    :raises InputError: if no contestant has a gate's figure: it would always pass.
    """
    found = []
    for gate in gates:
        values = {name: each[gate.figure]["value"] for name, each in figures.items()
                  if gate.figure in each}  # fmt: skip
        known = {name: value for name, value in values.items() if value is not None}
        if not known:
            raise InputError(
                f"--fail-if {gate.figure}: no contestant has this figure on this data: there are "
                f"{', '.join(sorted({name for each in figures.values() for name in each}))}"
            )
        found += [
            f"{gate.figure} of {name} is {value:.4g}, which is {gate.sign} {gate.limit:g}"
            for name, value in known.items()
            if gate.holds(value)
        ]
    return found
