"""Parameters as fields of a frozen dataclass: type, default, meaning, range, when they may change.

The documentation, the commented YAML and the declarations on a node all come from such a table; it
needs no ROS to be read.
"""

from __future__ import annotations

import difflib
import math
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from enum import Enum
from typing import Any, TypeAlias, TypeVar, get_origin, get_type_hints

from dense_perception.core.errors import InputError

Parameters = TypeVar("Parameters", bound="ParameterTable")
Value: TypeAlias = bool | int | float | str | tuple[str, ...]


class Changes(str, Enum):
    """When a parameter may be set."""

    AT_START = "at start"
    """Read-only once the process runs."""
    UNCONFIGURED = "while unconfigured"
    """Read at the configure transition."""
    RELOADS = "any time; loads the model again"
    """The new model is loaded beside the old one, which answers until then. Where it does not load,
    the old model goes on and the parameter is put back."""
    ANY_TIME = "any time"
    """Used from the next frame on."""


@dataclass(frozen=True)
class ParameterSpec:
    """One row of the table; ``low`` and ``high`` are inclusive."""

    name: str
    type: type
    default: Value
    description: str
    changes: Changes
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def constraint(self) -> str:
        """What values are allowed, in words; empty if any of the type is."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.low is not None:
            return f"{self.low:g} to {self.high:g}"
        return ""

    def check(self, value: object) -> None:
        """
        :raises InputError: if ``value`` is of another type or outside the allowed values.
        """
        kind: type = type(value)  # bool is an int to isinstance
        if isinstance(value, tuple) and not all(isinstance(item, str) for item in value):
            kind = list  # of something else than texts
        number = value if isinstance(value, int | float) else None
        if kind is not self.type:
            example = ""
            if self.type is float and number is not None and kind is int:
                example = f": write {float(number)}"
            raise InputError(
                f"parameter {self.name} is {value!r} ({_type_name(kind)}), expected "
                f"{_type_name(self.type)}{example}"
            )
        if number is not None and not self._is_within(number):
            raise InputError(f"parameter {self.name} is {value}, expected {self.constraint}")
        if self.choices and value not in self.choices:
            raise InputError(f"parameter {self.name} is {value!r}, expected {self.constraint}")

    def _is_within(self, number: float) -> bool:
        if self.low is None or self.high is None:
            return math.isfinite(number)
        return self.low <= number <= self.high


def parameter(
    default: Value,
    description: str,
    *,
    changes: Changes = Changes.UNCONFIGURED,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A dataclass field that is a ROS parameter."""
    metadata = {
        "description": description,
        "changes": changes,
        "low": low,
        "high": high,
        "choices": choices,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class ParameterTable:
    """Base of the nodes' parameter classes: a frozen dataclass whose fields are :func:`parameter`.

    :raises InputError: naming the parameter, its value and what was expected.
    """

    def __post_init__(self) -> None:
        for spec in table(type(self)):
            spec.check(getattr(self, spec.name))


def plain(value: object) -> object:
    """A value as ROS gives it to a value of the table: lists of texts are tuples without blanks.

    ROS cannot tell the type of an empty list, so ``[""]`` stands for it.
    """
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return tuple(item.strip() for item in value if item.strip())
    return value


def table(parameters: type[ParameterTable]) -> tuple[ParameterSpec, ...]:
    """The rows of a parameter class, in order of declaration."""
    hints = get_type_hints(parameters)
    rows = []
    for entry in fields(parameters):
        assert entry.default is not MISSING
        hint = hints[entry.name]
        kind = get_origin(hint) or hint
        rows.append(ParameterSpec(entry.name, kind, entry.default, **entry.metadata))
    return tuple(rows)


def changed(
    current: Parameters, values: Mapping[str, object], *, configured: bool = False
) -> Parameters:
    """``current`` with ``values`` replaced, names that are no parameter left out.

    :raises InputError: for a wrong value, or for a change that has to wait for another state.
    """
    specs = {spec.name: spec for spec in table(type(current))}
    known = {name: plain(value) for name, value in values.items() if name in specs}
    for name, value in known.items():
        specs[name].check(value)
        if value == getattr(current, name):
            continue
        if specs[name].changes is Changes.AT_START:
            raise InputError(f"parameter {name} is read at start only: start the node with it")
        if specs[name].changes is Changes.UNCONFIGURED and configured:
            raise InputError(
                f"parameter {name} is read at the configure transition, and the node is already "
                "configured: deactivate and clean it up, set the parameter, configure it again"
            )
    return replace(current, **known)


def model_changes(old: Parameters, new: Parameters) -> dict[str, Any]:
    """The values of ``new`` that differ and whose change loads the model anew, by name."""
    names = [spec.name for spec in table(type(new)) if spec.changes is Changes.RELOADS]
    return {name: getattr(new, name) for name in names if getattr(new, name) != getattr(old, name)}


def with_model_of(settings: Parameters, other: Parameters) -> Parameters:
    """``settings`` with those parameters of ``other`` whose change loads the model anew."""
    return replace(settings, **model_changes(settings, other))


def from_overrides(parameters: type[Parameters], values: Mapping[str, object]) -> Parameters:
    """The parameters of a node that is started with ``values``; other names are left out.

    :raises InputError: for a wrong value.
    """
    names = {spec.name for spec in table(parameters)}
    return parameters(**{name: plain(value) for name, value in values.items() if name in names})


def unknown_names(parameters: type[ParameterTable], names: Iterable[str]) -> list[tuple[str, str]]:
    """Names that are no parameter, each with the closest one that is ("" if none is close)."""
    known = [spec.name for spec in table(parameters)]
    return [
        (name, next(iter(difflib.get_close_matches(name, known, n=1)), ""))
        for name in names
        if name not in known and not name.startswith(_ROS_OWN)
    ]


_ROS_OWN = ("use_sim_time", "start_type_description_service", "qos_overrides.")


def _type_name(kind: type) -> str:
    names = {
        bool: "true or false",
        int: "a whole number",
        float: "a number with a point",
        tuple: "a list of texts",
    }
    return names.get(kind, "a text" if kind is str else kind.__name__)


def as_yaml(node: str, parameters: type[ParameterTable]) -> str:
    """A parameter file with every parameter at its default and its description above."""
    lines = [
        f"# Parameters of {node}, all at their defaults: copy this file and pass it with",
        "#   ros2 launch dense_perception perception.launch.py params_file:=PATH",
        "/**:",
        "  ros__parameters:",
    ]
    for spec in table(parameters):
        allowed = f" One of {', '.join(spec.choices)}." if spec.choices else ""
        if spec.low is not None:
            allowed = f" {spec.constraint}."
        text = f"{spec.description}{allowed} Changes {spec.changes.value}."
        lines += [f"    # {line}" for line in textwrap.wrap(text, 92)]
        lines.append(f"    {spec.name}: {_yaml_value(spec.default)}")
    return "\n".join(lines) + "\n"


def as_markdown(parameters: type[ParameterTable]) -> str:
    """A table: name, default, meaning, when it may change."""
    lines = ["| parameter | default | meaning | changes |", "|---|---|---|---|"]
    for spec in table(parameters):
        allowed = f" ({spec.constraint})" if spec.constraint else ""
        lines.append(
            f"| `{spec.name}` | `{_yaml_value(spec.default)}` | {spec.description}{allowed} "
            f"| {spec.changes.value} |"
        )
    return "\n".join(lines) + "\n"


def _yaml_value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return str(list(value) or [""]).replace("'", '"')
    return f'"{value}"' if isinstance(value, str) else repr(value)
