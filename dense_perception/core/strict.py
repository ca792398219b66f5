"""Plain data (YAML, JSON) into frozen dataclasses, strictly.

Whatever is unknown, missing, mistyped or out of range is refused by name: every message is
``WHERE: ENTRY is GOT, expected WHAT``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, Field, field, fields, is_dataclass, replace
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from dense_perception.core.errors import DensePerceptionError

T = TypeVar("T")


def number(default: float, low: float, high: float, text: str) -> Any:
    """A dataclass field: a number from ``low`` to ``high``; ``text`` says what it is."""
    return field(default=default, metadata={"low": low, "high": high, "help": text})


class Entries:
    """A mapping of untrusted plain data, read entry by entry.

    :param where: the origin in messages, such as a file's path.
    :param error: what is raised, in the constructor too, if ``data`` is not a mapping.
    """

    def __init__(self, data: object, where: str, error: type[DensePerceptionError]) -> None:
        if not isinstance(data, Mapping):
            raise error(f"{where}: expected a mapping, got {type(data).__name__}")
        self.data: Mapping[str, object] = data
        self.where = where
        self.error = error

    def refusal(self, entry: str, value: object, expected: str) -> DensePerceptionError:
        """The error to raise for an entry."""
        return self.error(f"{self.where}: {entry} is {value!r}, expected {expected}")

    def check_names(self, known: Collection[str], required: Collection[str] = ()) -> None:
        """Refuse entries beside ``known`` ones, and the lack of ``required`` ones."""
        unknown = sorted(str(key) for key in self.data if key not in known)
        if unknown:
            raise self.error(
                f"{self.where}: unknown entries {unknown}, expected some of {sorted(known)}"
            )
        missing = [name for name in required if name not in self.data]
        if missing:
            raise self.error(f"{self.where}: {missing} are missing")

    def text(self, entry: str, value: object) -> str:
        """A text that is not empty."""
        if not isinstance(value, str) or not value:
            raise self.refusal(entry, value, "a non-empty text")
        return value

    def choice(self, entry: str, value: object, choices: Sequence[str]) -> str:
        """One of ``choices``."""
        if value not in choices:
            raise self.refusal(entry, value, f"one of {list(choices)}")
        return str(value)

    def flag(self, entry: str, value: object) -> bool:
        """True or false."""
        if not isinstance(value, bool):
            raise self.refusal(entry, value, "true or false")
        return value

    def number(
        self, entry: str, value: object, low: float, high: float, meaning: str = ""
    ) -> float:
        """A number from ``low`` to ``high``, both inclusive; ``meaning`` explains it."""
        fits = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (fits and low <= value <= high):  # type: ignore[operator]
            raise self.refusal(entry, value, f"a number in {_range(low, high, meaning)}")
        return value  # type: ignore[return-value]

    def whole(self, entry: str, value: object, low: float, high: float, meaning: str = "") -> int:
        """A whole number from ``low`` to ``high``, both inclusive; ``meaning`` explains it."""
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.refusal(entry, value, f"a whole number in {_range(low, high, meaning)}")
        return value

    def texts(self, entry: str, value: object) -> tuple[str, ...]:
        """A list of texts."""
        if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
            raise self.refusal(entry, value, "a list of texts")
        return tuple(value)

    def mapping(self, entry: str, value: object) -> Mapping[str, Any]:
        """A mapping of anything."""
        if not isinstance(value, Mapping):
            raise self.refusal(entry, value, "a mapping")
        return value


def read(cls: type[T], data: object, where: str, error: type[DensePerceptionError]) -> T:
    """An instance of the dataclass ``cls`` from plain data.

    Its fields are texts, booleans, numbers with a range (:func:`number`), lists of texts, mappings
    (of numbers, where the field has a range), other such dataclasses and lists of them.

    :raises DensePerceptionError: an ``error`` that names the entry.
    """
    entries = Entries(data, where, error)
    known = {entry.name: entry for entry in fields(cls)}  # type: ignore[arg-type]
    required = [name for name, entry in known.items() if _has_no_default(entry)]
    entries.check_names(known, required)
    hints = get_type_hints(cls)
    values = {
        name: _value(entries, known[name], hints[name], value)
        for name, value in entries.data.items()
    }
    try:
        return cls(**values)
    except error as problem:
        raise error(f"{where}: {problem}") from problem


def replaced(
    preset: T, data: Mapping[str, object], where: str, error: type[DensePerceptionError]
) -> T:
    """The dataclass ``preset`` with entries replaced by plain data of the types that it holds.

    Whole numbers are widened where it holds a number with a point; lists become tuples.

    :raises DensePerceptionError: an ``error`` that names the entry.
    """
    entries = Entries(data, where, error)
    entries.check_names([entry.name for entry in fields(preset)])  # type: ignore[arg-type]
    values = {
        name: _like(entries, name, value, getattr(preset, name)) for name, value in data.items()
    }
    return replace(preset, **values)  # type: ignore[type-var]


def _has_no_default(entry: Field[Any]) -> bool:
    return entry.default is MISSING and entry.default_factory is MISSING


def _range(low: float, high: float, meaning: str) -> str:
    return f"[{low}, {high}]" + (f" ({meaning})" if meaning else "")


def _value(entries: Entries, entry: Field[Any], hint: Any, value: object) -> Any:
    name, origin = entry.name, get_origin(hint)
    low: Any = entry.metadata.get("low")
    high: Any = entry.metadata.get("high")
    meaning: str = entry.metadata.get("help", "")
    if is_dataclass(hint):
        return read(hint, value, f"{entries.where}: {name}", entries.error)  # type: ignore[arg-type]
    if hint is int:
        return entries.whole(name, value, low, high, meaning)
    if hint is float:
        return float(entries.number(name, value, low, high, meaning))
    if hint is bool:
        return entries.flag(name, value)
    if hint is str:
        return entries.text(name, value)
    if origin is tuple and is_dataclass(get_args(hint)[0]):
        if not isinstance(value, (list, tuple)):
            raise entries.refusal(name, value, "a list")
        kind: Any = get_args(hint)[0]
        return tuple(
            read(kind, item, f"{entries.where}: {name}[{index}]", entries.error)
            for index, item in enumerate(value)
        )
    if origin is tuple:
        return entries.texts(name, value)
    found = entries.mapping(name, value)
    if low is not None:
        for key, item in found.items():
            entries.number(f"{name}.{key}", item, low, high)
    return dict(found)


def _like(entries: Entries, name: str, value: object, example: object) -> Any:
    """``value`` in the type of ``example``."""
    if isinstance(example, tuple):
        kind = type(example[0]) if example else int
        if isinstance(value, (list, tuple)) and all(type(item) is kind for item in value):
            return tuple(value)
        what = {int: "whole numbers", bool: "truth values", str: "names"}.get(kind, kind.__name__)
        raise entries.refusal(name, value, f"{what} like {list(example)}")
    if isinstance(example, float) and isinstance(value, (int, float)) and type(value) is not bool:
        return float(value)
    if type(value) is type(example):
        return value
    raise entries.refusal(name, value, f"something like {example!r}")
