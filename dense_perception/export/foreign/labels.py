"""Names of classes as others write them down, and what Ultralytics' exporter leaves in a graph."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path

from dense_perception.core.errors import InputError
from dense_perception.core.labels import LABEL_SETS, VOID
from dense_perception.core.printable import printable, short
from dense_perception.core.storage import read_file, user_path
from dense_perception.core.strict import json_value, yaml_file
from dense_perception.export.foreign.recipe import PRESETS, Facts

_MOST_BYTES = 4 << 20


def read_labels(text: str) -> tuple[str, ...]:
    """Names by label of ``text``: a file, the name of a known set, or a number of classes.

    A ``.txt`` file has a name a line. A ``.json`` or ``.yaml`` file is a list of names, a mapping
    of numbers to names, or has one under ``names`` (Ultralytics), ``id2label`` (Hugging Face),
    ``labels``, ``classes`` or ``ontology`` (Nav2).

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
        content = read_file(path, _MOST_BYTES).decode("utf-8", "replace")
        names = names_of(json_value(content, str(path), InputError))
    elif suffix in (".yaml", ".yml"):
        names = names_of(yaml_file(path, "the labels", InputError, numbers=True))
    else:
        lines = read_file(path, _MOST_BYTES).decode("utf-8", "replace").splitlines()
        names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise InputError(
            f"{path} names no classes: expected a name a line, a list, or numbers with names"
        )
    return names


def metadata_facts(metadata: Mapping[str, str], path: Path) -> Facts:
    """What Ultralytics' exporter wrote into a graph; nothing of others.

    :raises InputError: if it is a graph for another task than labels a pixel.
    """
    if "ultralytics" not in metadata.get("author", "").lower():
        return Facts()
    task = metadata.get("task", "")
    if task and task != "semantic":
        raise InputError(
            f"{path} is a YOLO graph for {short(task)}, which gives boxes or instances: only "
            "semantic segmentation is imported (yolo export of a model of task semantic)"
        )
    usual = PRESETS["ultralytics-sem"]
    values = {
        name: value
        for name, value in vars(usual).items()
        if name not in ("origin", "reasons") and value is not None
    }
    reasons = dict.fromkeys(values, "the graph's metadata: made by Ultralytics")
    names = names_of(_literal(metadata.get("names", "")))
    if names:
        values["labels"], reasons["labels"] = names, "the graph's metadata: names"
    size = _literal(metadata.get("imgsz", ""))
    if isinstance(size, (list, tuple)) and len(size) == 2 and all(type(s) is int for s in size):
        values["size"] = size[1], size[0]
        reasons["size"] = "the graph's metadata: imgsz"
    if metadata.get("license"):
        values["licence"] = metadata["license"]
        reasons["licence"] = "the graph's metadata: license"
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
        except (TypeError, ValueError):
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
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
