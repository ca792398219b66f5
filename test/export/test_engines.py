"""A small network of every family, in every precision, becomes an engine for an RTX GPU.

TensorRT for RTX builds without a GPU: what its parser or builder refuses shows here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from dense_perception.backends.nvidia.build import TensorRtOptions, build_engine
from dense_perception.export.half import to_half
from dense_perception.export.onnx_graph import tidy, write_onnx
from dense_perception.export.quantize import Quantizer
from dense_perception.nets import zoo
from dense_perception.nets.positions import fix_positions
from test.export.test_dense_networks import NETWORKS
from test.support.onnx_graphs import fp16_nodes, quantized_layers
from test.support.randomise import randomise
from test.support.tiny_families import FAMILIES, HALF

# Every family for each of the three, every precision once: nine builds a family take too long.
BUILDS = (("fp32", "8.6"), ("fp16", "8.9"), ("int8", "12.0"))
FLOAT8 = ("dpt_depth", "depth_anything")
SMALL = ("dpt_depth", "depth_anything", "segmenter", "upernet", "vit_comer", "mult")


def small(name: str) -> tuple[nn.Module, int, int]:
    if name in NETWORKS:
        return zoo.build(NETWORKS[name]).eval(), 64, 96
    family: dict[str, Any] = FAMILIES[name]
    height, width = (family["window"],) * 2 if "window" in family else family["size"]
    network = {**family["network"], **HALF, "height": height, "width": width}
    return zoo.build(network).eval(), height, width


class FromBytes(nn.Module):
    """Bytes in, the network's first output out, as in the files of `export`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        scaled_nchw = (image.to(torch.float32) / 255).permute(0, 3, 1, 2)
        outputs: dict[str, torch.Tensor] = self.network(scaled_nchw)
        return next(iter(outputs.values()))


def exported(name: str) -> onnx.ModelProto:
    network, height, width = small(name)
    randomise(network)
    fix_positions(network, torch.zeros(1, 3, height, width))
    with torch.no_grad():
        program = torch.onnx.export(
            FromBytes(network).eval(),
            (torch.zeros(2, height, width, 3, dtype=torch.uint8),),
            dynamo=True,
            opset_version=18,
            input_names=["image"],
            output_names=["answer"],
            dynamic_shapes={"image": {0: torch.export.Dim("N", min=1, max=64)}},
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    tidy(model)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_every_precision_builds(name: str, tmp_path: Path) -> None:
    fp32 = exported(name)
    shape = [side.dim_value for side in fp32.graph.input[0].type.tensor_type.shape.dim][1:]
    image = np.random.RandomState(0).randint(0, 256, (1, *shape)).astype(np.uint8)
    quantizer = Quantizer(fp32, [{"image": image}])
    int8 = quantizer.build()
    fp16 = to_half(fp32)
    assert quantized_layers(int8)
    assert fp16_nodes(fp16)
    models = {"fp32": fp32, "fp16": fp16, "int8": int8}
    builds = list(BUILDS)
    if name in FLOAT8:
        models["fp8"] = quantizer.build(precision="fp8")
        builds += [("fp8", "8.9"), ("fp8", "12.0")]
    for precision, capability in builds:
        path = tmp_path / f"{precision}.onnx"
        write_onnx(models[precision], path)
        engine = build_engine(path, TensorRtOptions(compute_capability=capability, max_batch=2))
        assert len(engine) > 1000
