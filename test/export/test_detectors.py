"""Detectors become files: lists, masks and ids are those of PyTorch in every runtime."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from dense_perception.backends.nvidia.build import TensorRtOptions, build_engine
from dense_perception.backends.onnxruntime import OnnxRuntimeBackend
from dense_perception.backends.openvino import OpenVinoBackend
from dense_perception.core.onnx_file import OnnxFile
from dense_perception.export.graph_file import write_onnx
from dense_perception.export.onnx_graph import to_onnx, torch_outputs
from test.support.tensorrt8 import keeps_the_rules_of_tensorrt8
from test.support.tiny_detectors import COUNT, DETECTORS, detector, detector_card

# What decides that nothing is found: the class logits' bias.
_CLASS_BIAS = {
    "mask_rcnn": ("box_heads.0.classify.bias",),
    "cascade_mask_rcnn": tuple(f"box_heads.{stage}.classify.bias" for stage in range(3)),
    "atss": ("head.classify.bias",),
    "gfl": ("head.classify.bias",),
}


# The others have the same operators, several times over.
FULL = os.environ.get("DENSE_PERCEPTION_ENDURANCE") == "full"


@pytest.fixture(params=DETECTORS if FULL else ["mask_rcnn", "gfl"])
def exported(
    request: pytest.FixtureRequest, made_once: Callable[..., Path]
) -> tuple[str, torch.nn.Module, Path]:
    name = request.param
    network = detector(name)

    def write(folder: Path) -> None:
        write_onnx(to_onnx(network, detector_card(name)), folder / "network.onnx")

    return name, network, made_once(f"detector_{name}", write) / "network.onnx"


def compare(network: torch.nn.Module, name: str, path: Path, frames: int) -> dict[str, np.ndarray]:
    """What eager PyTorch says, after both runtimes have said the same."""
    card = detector_card(name)
    generator = np.random.default_rng(0)
    feeds = {"image": generator.integers(0, 256, (frames, 64, 96, 3), np.uint8)}
    want = torch_outputs(network, card, feeds)
    for runtime in (OnnxRuntimeBackend, OpenVinoBackend):
        backend = runtime(OnnxFile.read(path))
        got = backend.infer(feeds)
        assert set(got) == set(want)
        assert np.abs(got["boxes"] - want["boxes"]).max() <= 1e-4 * 96
        assert np.abs(got["box_scores"] - want["box_scores"]).max() <= 1e-4
        assert np.array_equal(got["box_classes"], want["box_classes"])
        if "masks" in want:
            apart = np.abs(got["masks"].astype(int) - want["masks"])
            assert apart.max() <= 1  # of 255, by rounding
            assert (got["instance_ids"] != want["instance_ids"]).mean() <= 2e-3
        backend.close()
    return want


@pytest.mark.slow
def test_every_runtime_says_what_pytorch_says(
    exported: tuple[str, torch.nn.Module, Path], tmp_path: Path
) -> None:
    name, network, path = exported
    compare(network, name, path, 1)
    want = compare(network, name, path, 4)
    used = want["box_scores"] > 0
    assert used.sum(axis=1).max() == COUNT
    assert (want["boxes"] == np.array([0, 0, 96, 64], np.float32))[used].any()  # at the border
    model = onnx.load(path)
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), np.uint8)
    keeps_the_rules_of_tensorrt8(model, {"image": image}, ties=2e-3)
    with torch.no_grad():
        for key in _CLASS_BIAS[name]:
            bias = dict(network.named_parameters())[key]
            bias[:5] = -100.0
            stored = next(t for t in model.graph.initializer if t.name.endswith(key))
            stored.CopyFrom(numpy_helper.from_array(bias.detach().numpy(), stored.name))
    onnx.save(model, tmp_path / "nothing.onnx")
    nothing = compare(network, name, tmp_path / "nothing.onnx", 1)
    assert all(not array.any() for array in nothing.values())
    engine = build_engine(path, TensorRtOptions(compute_capability="8.9", max_batch=2))
    assert len(engine) > 1000
