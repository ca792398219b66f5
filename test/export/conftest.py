"""Small networks under test cards, and files of them, shared by the export tests."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from dense_perception.backends.openvino import openvino_core
from dense_perception.core.card import ModelCard
from dense_perception.core.card_specs import DepthSpec, InputSpec
from dense_perception.core.prediction import DepthKind
from dense_perception.export.graph_file import tidy, write_onnx
from dense_perception.export.onnx_graph import to_onnx
from dense_perception.export.simplify import simplify
from dense_perception.nets import zoo
from dense_perception.nets.positions import fix_positions
from test.support.models import default_network
from test.support.randomise import randomise
from test.support.threads import one_thread
from test.support.tiny_families import DENSE, prepared

TINY = {
    **default_network(),
    "height": 64,
    "width": 96,
    "features": 16,
    "head_features": [8, 8],
    "dim": 32,
    "depth": 2,
    "heads": 2,
}
VIT = {
    "family": "dpt",
    "variant": "base",
    "height": 64,
    "width": 64,
    "dim": 32,
    "heads": 2,
    "features": 16,
    "taps": [0, 1, 2, 3],
    "channels": [8, 12, 16, 20],
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
}
HYBRID = {
    **VIT,
    "variant": "hybrid",
    "taps": [0, 1],
    "stem_depths": [1, 1, 1],
    "channels": [256, 512, 16, 20],
}


def tiny_card(**changes: object) -> ModelCard:
    card = ModelCard(
        name="tiny",
        family="dpt",
        variant="hybrid_lite0",
        task="depth",
        summary="A network with random weights.",
        input=InputSpec(height=64, width=96, focal=True),
        depth=DepthSpec(DepthKind.METRIC, 0.1, 20.0),
        network=TINY,
    )
    return replace(card, **changes)  # type: ignore[arg-type]


def vit_card(network: dict[str, object]) -> ModelCard:
    return tiny_card(
        name="vit",
        variant=str(network["variant"]),
        input=InputSpec(height=64, width=96),
        depth=DepthSpec(DepthKind.RELATIVE_INVERSE),
        network=network,
    )


def random_network(card: ModelCard) -> nn.Module:
    """Random weights that make the output vary."""
    torch.manual_seed(0)
    network = zoo.build(card.network).eval()
    last = network.head.conv3 if hasattr(network, "head") else network.head_conv3
    torch.nn.init.normal_(last.weight, std=0.3)
    if hasattr(network, "head"):
        torch.nn.init.constant_(last.bias, 1.0)
    return network


@pytest.fixture(autouse=True, scope="module")
def at_one_thread() -> Iterator[None]:
    with one_thread():
        yield


class Exported(NamedTuple):
    card: ModelCard
    network: nn.Module
    path: Path


@pytest.fixture(scope="session")
def exported_family(
    made_once: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Exported]:
    """A family of `tiny_families` by its name; its export, which takes seconds, is made once.

    Keywords are the card's rule of sizes, which leaves those of the graph free.
    """

    @functools.cache
    def export(name: str, **rule: object) -> Exported:
        card, network = prepared(name, tmp_path_factory.mktemp(name))
        usual = {field: getattr(card.input, field) for field in rule}
        rule = {field: value for field, value in rule.items() if value != usual[field]}
        card = replace(card, input=replace(card.input, **rule))  # type: ignore[arg-type]

        def write(folder: Path) -> None:
            write_onnx(to_onnx(network, card), folder / "network.onnx")

        key = "_".join([name, *(str(value) for value in rule.values())])
        return Exported(card, network, made_once(key, write) / "network.onnx")

    return export


class ExportedDense(NamedTuple):
    """Three frames uint8 (3, H, W, 3), what eager PyTorch says of them by output, and the file."""

    image: torch.Tensor
    expected: dict[str, torch.Tensor]
    path: Path


class FromBytes(nn.Module):
    """Bytes in, the network's outputs as a tuple in a fixed order."""

    def __init__(self, network: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.network = network
        self.names = names

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        scaled_nchw = (image.to(torch.float32) / 127.5 - 1).permute(0, 3, 1, 2).contiguous()
        outputs = self.network(scaled_nchw)
        return tuple(outputs[name] for name in self.names)


@pytest.fixture(scope="session")
def exported_dense(made_once: Callable[..., Path]) -> Callable[[str], ExportedDense]:
    """A network of `tiny_families.DENSE` by its name, without card; each is exported once."""

    @functools.cache
    def export(name: str) -> ExportedDense:
        network = zoo.build(DENSE[name]).eval()
        randomise(network)
        generator = torch.Generator().manual_seed(0)
        image = torch.randint(0, 256, (3, 64, 96, 3), dtype=torch.uint8, generator=generator)
        with torch.no_grad():
            expected = network((image / 127.5 - 1).permute(0, 3, 1, 2).contiguous())

        def write(folder: Path) -> None:
            write_from_bytes(network, image[:2], list(expected), folder / "network.onnx")

        path = made_once(f"dense_{name}", write) / "network.onnx"
        return ExportedDense(image, expected, path)

    return export


def write_from_bytes(
    network: nn.Module, image_nhwc: torch.Tensor, names: list[str], path: Path
) -> None:
    with torch.no_grad():
        fix_positions(network, torch.zeros(1, 3, 64, 96))
        program = torch.onnx.export(
            FromBytes(network, names).eval(),
            (image_nhwc,),
            dynamo=True,
            opset_version=18,
            input_names=["image"],
            output_names=names,
            dynamic_shapes={"image": {0: torch.export.Dim("N", min=1, max=64)}},
            verbose=False,
            optimize=False,
        )
        assert program is not None
        simplify(program.model)
    model = program.model_proto
    tidy(model)
    write_onnx(model, path)


def runtimes(path: Path) -> dict[str, Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]]:
    """Each runtime's name, and what it computes of inputs by name: the outputs in order."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    compiled = openvino_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return {
        "onnxruntime": lambda feeds: session.run(None, dict(feeds)),
        "openvino": lambda feeds: list(compiled(dict(feeds)).values()),
    }
