"""A model's network as an exported program of PyTorch, compiled by Torch-TensorRT (dynamo path)."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from dense_perception.backends.device import find_gpu, parse_device
from dense_perception.backends.engine_cache import Engine, obtain_engine
from dense_perception.backends.nvidia.torch import (
    RUNTIME,
    load_modules,
    program_key,
    versions,
)
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import ArtefactError, BackendError
from dense_perception.core.registry import Model
from dense_perception.export.onnx_graph import prepare
from dense_perception.nets import zoo
from dense_perception.nets.networks import published_network
from dense_perception.nets.weights import load_weights

PRECISIONS = ("fp32", "fp16")
"""int8 and fp8 are in the ONNX file alone, not in the network."""

Convert = Callable[[torch.export.ExportedProgram, tuple[Tensor, ...]], bytes]
"""The step from an exported program and its example inputs to the bytes of the cache."""


class HalfInside(nn.Module):
    """A network in fp16 between fp32 pixels and fp32 answers: the graph is strongly typed."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.half()

    def forward(self, image_nchw: Tensor, *focal_px: Tensor) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = self.network(image_nchw.half(), *focal_px)
        return {name: output.float() for name, output in outputs.items()}


def compile_program(model: Model, precision: str, device: str) -> Engine:
    """The program of ``model`` for the GPU ``device``, from the cache or compiled now.

    :raises BackendError: if a package, the driver or the GPU is missing, the precision is not one
        of :data:`PRECISIONS`, or PyTorch or Torch-TensorRT refuses the network.
    """
    if precision not in PRECISIONS:
        raise BackendError(
            f"precision is {precision!r}, torch_tensorrt compiles the network in {PRECISIONS}: "
            "for int8 and fp8 take --backend tensorrt"
        )
    index, _ = parse_device(device, RUNTIME)
    version = versions(*load_modules())
    key_device = str(find_gpu(index))
    place = f"cuda:{index}"

    def convert(program: torch.export.ExportedProgram, example: tuple[Tensor, ...]) -> bytes:
        return to_tensorrt(program, example, precision)

    with torch.cuda.device(index):
        return obtain_program(model, precision, version, key_device, place, convert)


def obtain_program(
    model: Model, precision: str, version: str, device: str, place: str, convert: Convert
) -> Engine:
    """The program for these versions and this device name, from the cache or made by ``convert``.

    ``place`` is the device of PyTorch on which the network is exported.

    :raises BackendError: if PyTorch cannot export the network, or ``convert`` fails.
    """
    file, card = model.artefact(precision)

    def build() -> bytes:
        network = network_of(model)
        return convert(*export_program(network, card, precision, place))

    return obtain_engine(program_key(file, version, device, precision), build)


def network_of(model: Model) -> nn.Module:
    """The network with the weights of the model's fp32 file, or of its fetched checkpoint.

    :raises ArtefactError: if the file's weights do not fit and there is no checkpoint to fetch, or
        it is missing.
    """
    file, card = model.artefact("fp32")
    network = zoo.build(card.network).eval()
    try:
        load_weights(network, file)
    except ArtefactError:
        if card.source is None:
            raise
        network, _, _ = published_network(card)
    return network


def export_program(
    network: nn.Module, card: ModelCard, precision: str, place: str
) -> tuple[torch.export.ExportedProgram, tuple[Tensor, ...]]:
    """What ``dense-perception export`` writes as ONNX, for a batch of 1, and its example inputs.

    :raises BackendError: if PyTorch cannot export the network.
    """
    exported, inputs = prepare(network, card, frames=1)
    if precision == "fp16":
        exported.network = HalfInside(exported.network)
    exported = exported.to(place).requires_grad_(False)
    example = tuple(tensor.to(place) for tensor in inputs.values())
    try:
        with torch.no_grad():
            return torch.export.export(exported, example), example
    except Exception as error:  # the exporter's failures have no common base
        raise BackendError(
            f"PyTorch {torch.__version__} cannot export {card.name} in {precision}: "
            f"{str(error)[:300]}; take another precision or backend"
        ) from error


def to_tensorrt(
    program: torch.export.ExportedProgram, example: tuple[Tensor, ...], precision: str
) -> bytes:
    """Torch-TensorRT's step: subgraphs become engines, the rest stays PyTorch.

    :raises BackendError: if it fails.
    """
    _, torch_tensorrt = load_modules()
    known = inspect.signature(torch_tensorrt.dynamo.compile).parameters
    settings: dict[str, object] = {"disable_tf32": True}  # fp32 means fp32
    if "use_explicit_typing" in known:
        settings["use_explicit_typing"] = True
    elif "enabled_precisions" in known:  # before strong typing; later versions know nothing else
        settings["enabled_precisions"] = {torch.float32} | (
            {torch.float16} if precision == "fp16" else set()
        )
    try:
        module = torch_tensorrt.dynamo.compile(program, inputs=list(example), **settings)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "program.ep"
            torch_tensorrt.save(
                module, str(path), output_format="exported_program", inputs=list(example)
            )
            return path.read_bytes()
    except Exception as error:  # TensorRT's and PyTorch's failures have no common base
        raise BackendError(
            f"torch_tensorrt {torch_tensorrt.__version__} does not compile this network in "
            f"{precision}: {str(error)[:300]}; take another precision, or --backend tensorrt"
        ) from error
