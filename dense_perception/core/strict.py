"""Plain data (YAML, JSON) into frozen dataclasses, strictly.

Whatever is unknown, missing, mistyped or out of range is refused by name: every message is
``WHERE: ENTRY is GOT, expected WHAT``.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, Field, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

from dense_perception.core.errors import DensePerceptionError, InputError
from dense_perception.core.json_text import parse_json
from dense_perception.core.printable import short
from dense_perception.core.storage import read_file

T = TypeVar("T")

_MAX_BYTES, _MAX_VALUES, _MAX_DEPTH = 64 << 10, 20_000, 24
_BRACKETS, _MAX_BRACKETS = re.compile(r"[][{}]"), 200


def yaml_file(
    path: Path, what: str, error: type[DensePerceptionError], *, numbers: bool = False
) -> object:
    """The plain data of a small YAML file, read with the safe loader; see :func:`plain`.

    :param what: what it is, for messages: ``the model card``.
    :param numbers: whether entries may be named by whole numbers, which become texts.
    :raises DensePerceptionError: an ``error``, if it cannot be read, is not YAML, or is larger than
        64 kB or 20,000 values, each counted wherever an alias repeats it.
    """
    try:
        text = read_file(path, _MAX_BYTES)
    except InputError as problem:
        raise error(f"cannot read {what}: {problem}") from problem
    try:
        decoded = text.decode("utf-8")
        check_nesting(decoded, f"cannot read {what} {path}", error)
        loader = yaml.SafeLoader(decoded)
        node = loader.get_single_node()
        if node is None:
            return None
        # Before anything is built: aliases of aliases make a kilobyte a gigabyte.
        if _expanded(node, {}) > _MAX_VALUES:
            raise error(f"{what} {path} has more than {_MAX_VALUES} values, aliases written out")
        data = loader.construct_document(node)
    except DensePerceptionError:  # which may be a ValueError too
        raise
    except RecursionError as problem:
        raise error(f"cannot read {what} {path}: it is nested too deeply") from problem
    except (ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError) as problem:
        # The kinds beside YAMLError are those of a tag that does not fit its text: !!bool maybe
        why = " ".join(str(problem).split())
        raise error(f"cannot read {what} {path}: {why}") from problem
    return plain(data, str(path), error, numbers=numbers)


def check_nesting(text: str, where: str, error: type[DensePerceptionError]) -> None:
    """Before a YAML text is parsed, which takes seconds for some thousand brackets.

    :raises DensePerceptionError: an ``error``, if over 200 brackets are open at once.
    """
    depth = 0
    for bracket in _BRACKETS.finditer(text):
        depth += 1 if bracket[0] in "[{" else -1
        if depth > _MAX_BRACKETS:
            raise error(f"{where}: it is nested too deeply")


def json_value(text: str, where: str, error: type[DensePerceptionError]) -> object:
    """The plain data of a JSON text; see :func:`plain`.

    :raises DensePerceptionError: an ``error``, if it is no JSON or is nested too deeply.
    """
    try:
        data = parse_json(text)
    except ValueError as problem:
        raise error(f"{where} is not JSON: {problem}") from problem
    return plain(data, where, error)


def plain(
    data: object,
    where: str,
    error: type[DensePerceptionError],
    depth: int = 0,
    *,
    numbers: bool = False,
) -> Any:
    """``data`` as a JSON file could hold it: the shape is checked before any value is.

    Dates become texts, as YAML makes them of unquoted ones.

    :raises DensePerceptionError: an ``error``, for names that are no texts, other kinds of values,
        and more than 24 levels.
    """
    if depth > _MAX_DEPTH:
        raise error(f"{where}: it is nested more than {_MAX_DEPTH} deep")
    if isinstance(data, Mapping):
        for key in data:
            if not (isinstance(key, str) or (numbers and type(key) is int)):
                raise error(f"{where}: an entry is named {short(key)}, expected a text: quote it")
        return {
            str(key): plain(value, where, error, depth + 1, numbers=numbers)
            for key, value in data.items()
        }
    if isinstance(data, (list, tuple)):
        return [plain(value, where, error, depth + 1, numbers=numbers) for value in data]
    if isinstance(data, datetime.date):
        return data.isoformat()
    if data is None or isinstance(data, (bool, int, float, str)):
        return data
    raise error(
        f"{where}: {short(data)} is a {type(data).__name__}, expected texts, numbers, true or "
        "false, lists and mappings"
    )


def _expanded(node: yaml.Node, sizes: dict[int, int]) -> int:
    """How many values a node has where each alias is written out; very many if it holds itself."""
    known = sizes.get(id(node))
    if known is not None:
        return known
    sizes[id(node)] = _MAX_VALUES + 1
    if isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
    else:
        parts = node.value if isinstance(node, yaml.SequenceNode) else []
    sizes[id(node)] = 1 + sum(_expanded(part, sizes) for part in parts)
    return sizes[id(node)]


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
        return self.error(f"{self.where}: {entry} is {short(value)}, expected {expected}")

    def check_names(self, known: Collection[str], required: Collection[str] = ()) -> None:
        """Refuse entries beside ``known`` ones, and the lack of ``required`` ones."""
        unknown = sorted(str(key) for key in self.data if key not in known)
        if unknown:
            raise self.error(
                f"{self.where}: unknown entries {short(unknown)}, expected some of {sorted(known)}"
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
        if isinstance(value, int) and abs(value) > 2**1000:  # no float is so large
            fits = False
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
