"""A small network of every family, in every precision, becomes an engine for an RTX GPU.

TensorRT for RTX builds without a GPU: what its parser or builder refuses shows here. Of fp32 it
shows in test_chain.py and, for a network of several tasks, in test_dense_networks.py. TensorRT 8
does not: the rewritten graphs keep its rules, and ONNX Runtime says that they compute the same.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from dense_perception.backends.nvidia.build import TensorRtOptions, build_engine
from dense_perception.export.graph_file import write_onnx
from dense_perception.export.half import to_half
from dense_perception.export.quantize import Quantizer
from test.export.conftest import Exported, ExportedDense
from test.support.onnx_graphs import fp16_nodes, quantized_layers
from test.support.tensorrt8 import keeps_the_rules_of_tensorrt8

# Every family for each of the three, every precision once: nine builds a family take too long.
BUILDS = (("fp16", "8.9"), ("int8", "12.0"))
FLOAT8 = ("dpt_depth", "depth_anything")
SMALL = ("dpt_depth", "depth_anything", "segmenter", "upernet", "vit_comer", "mult")


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_every_precision_builds(
    name: str,
    tmp_path: Path,
    exported_family: Callable[[str], Exported],
    exported_dense: Callable[[str], ExportedDense],
) -> None:
    exported = exported_dense(name) if name == "mult" else exported_family(name)
    fp32 = onnx.load(exported.path)
    shape = [side.dim_value for side in fp32.graph.input[0].type.tensor_type.shape.dim][1:]
    image = np.random.RandomState(0).randint(0, 256, (1, *shape)).astype(np.uint8)
    quantizer = Quantizer(fp32, [{"image": image}])
    int8 = quantizer.build()
    fp16 = to_half(fp32)
    assert quantized_layers(int8)
    assert fp16_nodes(fp16)
    models = {"fp16": fp16, "int8": int8}
    builds = list(BUILDS)
    if name in FLOAT8:
        models["fp8"] = quantizer.build(precision="fp8")
        builds += [("fp8", "8.9"), ("fp8", "12.0")]
    for precision, capability in builds:
        batch = 2 if precision == "fp16" else 1  # a free one takes half as long again
        path = tmp_path / f"{precision}.onnx"
        write_onnx(models[precision], path)
        engine = build_engine(path, TensorRtOptions(compute_capability=capability, max_batch=batch))
        assert len(engine) > 1000
    for precision, model in {"fp32": fp32, "fp16": fp16, "int8": int8}.items():
        keeps_the_rules_of_tensorrt8(model, {"image": image}, exact=precision != "fp16")
