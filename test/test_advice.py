"""What a text advises can be done where it is read: options exist, parameters belong to nodes."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import dense_perception
from dense_perception.commands.verbs import VERBS
from dense_perception.data.extraction.extract import ExtractOptions, extract
from dense_perception.data.extraction.recording import Settings
from dense_perception.evaluation.bags import PairSource
from dense_perception.media.calibration_file import read_calibration
from dense_perception.media.sources import open_source
from test.support import recordings
from test.support.advice import FOREIGN, OPTION, not_there, options_of, verbs

PACKAGE = Path(dense_perception.__file__).parent
MODULES = {
    ".".join(("dense_perception", *path.relative_to(PACKAGE).with_suffix("").parts)): path
    for path in PACKAGE.rglob("*.py")
}


@functools.cache
def read(module: str) -> tuple[frozenset[str], tuple[str, ...]]:
    """What a module imports of the package, also inside functions, and the texts in it.

    No docstrings; an f-string is one text, with {} for its values.
    """
    imported: set[str] = set()
    found: list[str] = []
    left: list[ast.AST] = [ast.parse(MODULES[module].read_text(encoding="utf-8"))]
    while left:
        node = left.pop()
        if isinstance(node, ast.ImportFrom):
            names = {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
            imported |= names & MODULES.keys()
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
        elif isinstance(node, ast.JoinedStr):
            parts = (p.value if isinstance(p, ast.Constant) else "{}" for p in node.values)
            found.append("".join(map(str, parts)))
        elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            left.extend(ast.iter_child_nodes(node))
    return frozenset(imported), tuple(found)


def reached(module: str, without: str = "-") -> set[str]:
    found: set[str] = set()
    left = [module]
    while left:
        name = left.pop()
        if name not in found and not name.startswith(without):
            found.add(name)
            left.extend(read(name)[0])
    return found


def test_every_option_in_a_text_is_one_of_a_command_that_shows_it() -> None:
    shown_by: dict[str, set[str]] = {}
    for _, command in verbs():
        for module in reached(command):
            shown_by.setdefault(module, set()).add(command)
    wrong = []
    for module, commands in shown_by.items():
        if ".commands." in module:
            continue
        for text in read(module)[1]:
            # A single word is handed to another process; `python -m` shows a module's own use.
            if (
                " " in text
                and not text.startswith("python -m ")
                and OPTION.search(text)
                and all(not_there(command, text) for command in commands)
            ):
                wrong.append((module, set(OPTION.findall(text)) - FOREIGN, text))
    assert not wrong


@pytest.mark.parametrize("module", [module for _, module in verbs()])
def test_a_command_advises_its_own_options(module: str) -> None:
    for text in read(module)[1]:
        assert not not_there(module, text), text


def test_parameters_of_nodes_are_advised_by_nodes_alone() -> None:
    """Elsewhere the option is named too: whoever reads it may have started no node."""
    params = pytest.importorskip("dense_perception.ros.params")
    names = {field.name for field in fields(params.MultitaskParameters) if "_" in field.name}
    advice = re.compile(rf"\b(set|raise|lower|change)\b[^.;:]*?\b({'|'.join(names)})\b")
    wrong = []
    nodes = "dense_perception.ros"
    for module in set().union(*(reached(command, nodes) for _, command in verbs())):
        for text in read(module)[1]:
            for match in advice.finditer(text):
                option = f"--{match[2].replace('_', '-')}"
                if option not in text:
                    wrong.append((module, match[0]))
    assert not wrong


def said_by_run(bag: Path, calibration: Path | None, matrix: str) -> str:
    given = read_calibration(calibration) if calibration else None
    with closing(open_source(str(bag), calibration=given, matrix=matrix)) as source:
        list(source)
        return "\n".join(source.problems)


def said_by_evaluate(bag: Path, matrix: str) -> str:
    with closing(PairSource(bag, matrix=matrix)) as source:
        list(source)
        return "\n".join(source.problems)


def said_by_extract(bag: Path, matrix: str) -> str:
    options = ExtractOptions((bag,), bag.parent / f"corpus_{matrix}", Settings(matrix=matrix))
    return "\n".join(extract(options).rows[0].problems)


def test_k_against_p_is_settled_by_an_option_of_each_command(tmp_path: Path) -> None:
    p = np.array([80.0, 0, 32, 0, 0, 80, 24, 0, 0, 0, 1, 0])
    info = recordings.camera_info(64, 48, 55.0, 0, d=np.zeros(5), p=p)
    rgb_hwc = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    depth = recordings.image(np.full((48, 64), 1500, "<u2"), "16UC1", 1)
    messages = [("/c/camera_info", 1, info), ("/c/depth", 3, depth)]
    messages.insert(1, ("/c/image", 2, recordings.image(rgb_hwc, "rgb8", 1)))
    bag = recordings.write_bag(tmp_path / "bag", messages)
    calibration = tmp_path / "camera.yaml"
    calibration.write_text(
        "image_width: 64\nimage_height: 48\n"
        "camera_matrix: [55, 0, 31.5, 0, 55, 23.5, 0, 0, 1]\n"
        "projection_matrix: [80, 0, 31.5, 0, 0, 80, 23.5, 0, 0, 0, 1, 0]\n"
    )
    said: dict[str, Callable[[str], str]] = {
        "run": partial(said_by_run, bag, None),
        "run --camera-info": partial(said_by_run, bag, calibration),
        "evaluate": partial(said_by_evaluate, bag),
        "extract": partial(said_by_extract, bag),
    }
    for verb, by in said.items():
        assert "--camera-matrix" in options_of(VERBS[verb.partition(" ")[0]].module)
        assert "set --camera-matrix to P if the images are rectified" in by("auto"), verb
        assert "fx 55" not in by("K") + by("P"), verb
