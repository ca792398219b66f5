"""Model cards and ONNX files: forged entries, forged graphs, damaged bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper

from dense_perception.core.card import METADATA_KEY, ModelCard
from dense_perception.core.errors import ModelNotFoundError
from dense_perception.core.printable import printable
from dense_perception.core.registry import find_model
from dense_perception.runtime.perceiver import Perceiver
from test.fuzz.mutations import NUMBERS, ODD_TEXTS, damaged, damaged_data, pick
from test.support.artefacts import write_red_artefact

SHIPPED = Path(__file__).parents[2] / "models"
BOMBS = (
    "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{b}: &{b} [{', '.join(f'*{a}' for _ in range(9))}]\n" for a, b in
              zip("abcdefgh", "bcdefghi", strict=True)),
    "a: &a {b: *a}\n",
    "{" * 3000,
    "[" * 30_000 + "]" * 30_000,
    "!!python/object/apply:os.system [true]",
    "name: 2026-11-26\n? [a, b]\n: c\n",
    "x: " + "9" * 20_000,
    "!!timestamp maybe",
    "!!binary '='",
)  # fmt: skip
OPERATORS = ("Add", "Conv", "Reshape", "Resize", "Nonsense", "Gather", "Loop", "If", "Cast", "Tile")


class Cards:
    """Half of them cards in YAML, a quarter cards inside files, a quarter graphs and bytes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cards = [yaml.safe_load(path.read_text()) for path in sorted(SHIPPED.glob("*.yaml"))]
        write_red_artefact(folder / "red.onnx")
        self._red = (folder / "red.onnx").read_bytes()
        self._image = np.zeros((48, 64, 3), np.uint8)

    def make(self, rng: np.random.Generator) -> Callable[[], str]:
        how = rng.random()
        if how < 0.5:
            name, text = self._card(rng)
            path = self._folder / f"{name}.yaml"
            path.write_bytes(text)
            return lambda: _list(path)
        path = self._folder / "model.onnx"
        if how < 0.75:
            path.write_bytes(self._with_card(rng))
        elif how < 0.9:
            path.write_bytes(self._with_graph(rng))
        else:
            path.write_bytes(damaged(self._red, rng))
        return lambda: self._load(path)

    def _card(self, rng: np.random.Generator) -> tuple[str, bytes]:
        if rng.random() < 0.1:
            return "bomb", pick(rng, BOMBS).encode()
        data = pick(rng, self._cards)
        name = data["name"]
        for _ in range(int(rng.integers(4))):
            data = damaged_data(data, rng)
        text = yaml.dump(data, Dumper=yaml.CSafeDumper, allow_unicode=True)
        encoded = text.encode("utf-8", "surrogatepass")
        return name, damaged(encoded, rng) if rng.random() < 0.3 else encoded

    def _with_card(self, rng: np.random.Generator) -> bytes:
        model = onnx.load_model_from_string(self._red)
        (entry,) = (each for each in model.metadata_props if each.key == METADATA_KEY)
        data = json.loads(entry.value)
        for _ in range(int(rng.integers(3))):
            data = damaged_data(data, rng)
        text = json.dumps(data, default=str)
        if rng.random() < 0.1:
            text = pick(rng, (*ODD_TEXTS, "[" * 100_000, '{"a":' * 5000, "1" * 10_000))
        entry.value = text.replace("\0", "0") if rng.random() < 0.5 else text
        return bytes(model.SerializeToString())

    def _with_graph(self, rng: np.random.Generator) -> bytes:
        model = onnx.load_model_from_string(self._red)
        for _ in range(int(rng.integers(1, 3))):
            _forge(model.graph, rng)
        return bytes(model.SerializeToString())

    def _load(self, path: Path) -> str:
        with Perceiver.load(path, backend="onnxruntime", threads=1) as perceiver:
            perceiver(self._image)
        return "answered"


def _list(path: Path) -> str:
    """As ``models`` and every command that names a model do."""
    card = ModelCard.from_yaml(path)
    printable(f"{card.name} {card.summary} {card.licence}", keep="")
    card.to_dict()
    with suppress(ModelNotFoundError):  # its files are not here
        find_model(path)
    return "answered"


def _forge(graph: Any, rng: np.random.Generator) -> None:
    node = pick(rng, graph.node)
    how = int(rng.integers(9))
    if how == 0:
        node.op_type = pick(rng, OPERATORS)
    elif how == 1:
        graph.node.remove(node)
    elif how == 2:
        graph.node.append(node)
    elif how == 3 and node.input:  # a circle, a name of nowhere
        node.input[int(rng.integers(len(node.input)))] = pick(rng, ("", "depth", "image", "no"))
    elif how == 4:
        tensor = pick(rng, graph.initializer)
        tensor.dims[:] = [pick(rng, (0, 1, 2, 3, -1, 2**31, 2**40)) for _ in tensor.dims]
    elif how == 5:
        tensor = pick(rng, graph.initializer)
        tensor.raw_data = damaged(tensor.raw_data, rng)
    elif how == 6:
        tensor = pick(rng, graph.initializer)
        tensor.data_type = int(pick(rng, (0, 1, 2, 6, 7, 8, 9, 10, 16, 99)))
    elif how == 7:
        tensor = pick(rng, graph.initializer)
        tensor.data_location = TensorProto.EXTERNAL
        place = tensor.external_data.add()
        place.key, place.value = "location", pick(rng, ("/etc/passwd", "../x", "/dev/zero"))
    else:
        value = pick(rng, (*graph.input, *graph.output))
        sides = value.type.tensor_type.shape.dim
        if sides:
            pick(rng, sides).dim_value = pick(rng, (0, 1, 7, -1, *NUMBERS))
        else:
            node.attribute.append(helper.make_attribute("axis", pick(rng, NUMBERS)))


def target(folder: Path) -> Cards:
    return Cards(folder)
