"""Names of classes as others write them down, and what exporters leave in a graph's metadata."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dense_perception.core.errors import InputError
from dense_perception.core.labels import LABEL_SETS, VOID
from dense_perception.core.printable import printable, short
from dense_perception.core.storage import read_file, user_path
from dense_perception.core.strict import json_value, yaml_file
from dense_perception.export.foreign.recipe import PRESETS, Facts

_MOST_BYTES = 4 << 20
_NAMES = ("names", "id2label", "labels", "classes", "class_names")
_NOTHING = Facts()
METADATA = "the graph's metadata"
"""How the reasons of what a graph says of itself begin."""


def read_labels(text: str) -> tuple[str, ...]:
    """Names by label of ``text``: a file, the name of a known set, or a number of classes.

    A ``.txt`` file has a name a line, with or without its number before it. A ``.json`` or
    ``.yaml`` file is a list of names, a mapping of numbers to names, or has one under ``names``
    (Ultralytics), ``id2label`` (Hugging Face), ``labels``, ``classes`` or ``ontology`` (Nav2).

    :raises InputError: if it is none of these, or a label has no name.
    """
    if text in LABEL_SETS:
        return LABEL_SETS[text].labels
    if re.fullmatch("[0-9]+", text):
        if len(text) > 9 or not 1 <= int(text) <= VOID:
            raise InputError(f"--labels is {short(text)}, expected 1 to {VOID} classes")
        return tuple(f"class_{index}" for index in range(int(text)))
    path = user_path(text)
    if not path.is_file():
        raise InputError(
            f"--labels is {short(text)}, which is no file: give one, a number of classes, or one "
            f"of {', '.join(LABEL_SETS)}"
        )
    suffix = path.suffix.lower()
    if suffix == ".json":
        names = _named(path, json_value(_text_of(path), str(path), InputError))
    elif suffix in (".yaml", ".yml"):
        names = _named(path, yaml_file(path, "the labels", InputError, numbers=True))
    else:
        lines = [line.strip() for line in _text_of(path).splitlines()]
        names = _without_numbers([line for line in lines if line])
    if not names:
        raise InputError(
            f"{path} names no classes: expected a name a line, a list, or numbers with names"
        )
    return names


def _text_of(path: Path) -> str:
    return read_file(path, _MOST_BYTES).decode("utf-8-sig", "replace")


def _named(path: Path, data: object) -> tuple[str, ...]:
    try:
        return names_of(data)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _without_numbers(lines: Sequence[str]) -> tuple[str, ...]:
    """``0 road``, ``1: car`` and so on are road and car."""
    parts = [re.fullmatch(r"([0-9]{1,3})[\s:,]+(.+)", line) for line in lines]
    numbered = [part and int(part[1]) for part in parts] == list(range(len(lines)))
    return tuple(part[2] for part in parts if part) if numbered else tuple(lines)


def metadata_facts(metadata: Mapping[str, str], path: Path, said: Facts = _NOTHING) -> Facts:
    """What exporters wrote into a graph: names of classes, of Ultralytics' exporter all it says.

    ``said`` are stronger facts: names are not read here if they have some. Odd ones are told as
    ``odd_labels``: a graph for depth has no use for them.

    :raises InputError: if it is a graph of Ultralytics for another task than labels a pixel.
    """
    values: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    if said.labels is None:
        entry = next((key for key in _NAMES if _literal(metadata.get(key, ""))), "")
        try:
            names = names_of(_literal(metadata.get(entry, "")))
        except InputError as error:
            names = ()
            values["odd_labels"] = f"{entry} in the metadata of {path}: {error}"
        if names:
            values["labels"], reasons["labels"] = names, f"{METADATA}: {entry}"
    if "ultralytics" not in metadata.get("author", "").lower():
        return Facts(**values, reasons=reasons)
    task = metadata.get("task", "")
    if task and task != "semantic":
        raise InputError(
            f"{path} is a YOLO graph for {short(task)}, which gives boxes or instances: only "
            "semantic segmentation is imported (yolo export of a model of task semantic)"
        )
    usual = PRESETS["ultralytics-sem"]
    for name, value in vars(usual).items():
        if name not in ("origin", "reasons") and value is not None:
            values[name], reasons[name] = value, f"{METADATA}: made by Ultralytics"
    size = _literal(metadata.get("imgsz", ""))
    if isinstance(size, (list, tuple)) and len(size) == 2 and all(type(s) is int for s in size):
        values["size"] = size[1], size[0]
        reasons["size"] = f"{METADATA}: imgsz"
    if metadata.get("license"):
        values["licence"] = metadata["license"]
        reasons["licence"] = f"{METADATA}: license"
    return Facts(**values, reasons=reasons)


def names_of(data: object) -> tuple[str, ...]:
    """Names by label of plain data, nothing if there are none.

    :raises InputError: if numbers are left out, or a label has a name that is none.
    """
    if isinstance(data, Mapping):
        for key in ("names", "id2label", "labels", "classes", "ontology"):
            if key in data:
                return names_of(data[key])
        try:
            numbers = sorted((int(key), key) for key in data)
        except (TypeError, ValueError, OverflowError):
            return ()
        if [number for number, _ in numbers] != list(range(len(numbers))):
            raise InputError(
                f"the labels are numbered {short([n for n, _ in numbers])}, expected 0 to "
                f"{len(numbers) - 1}: name every class"
            )
        return tuple(_name(number, data[key]) for number, key in numbers)
    if isinstance(data, (list, tuple)):
        return tuple(
            _name(index, each.get("name") if isinstance(each, Mapping) else each)
            for index, each in enumerate(data)
        )
    return ()


def _name(label: int, value: object) -> str:
    if not isinstance(value, (str, int, float)):
        raise InputError(f"label {label} is named {short(value)}, expected a text: correct it")
    return " ".join(printable(str(value), keep="\n\t").split())


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text) if len(text) < 1 << 16 else None
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None
