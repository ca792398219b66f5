"""Tiny random variants of the dense networks: eager against both runtimes; TensorRT builds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dense_perception.backends.nvidia.build import TensorRtOptions, build_engine
from dense_perception.core.errors import CardError
from dense_perception.nets import zoo
from dense_perception.nets.positions import fix_positions
from test.support.randomise import randomise

SWIN = {"dim": 8, "depths": [1, 2, 1, 1], "heads": [1, 2, 2, 2], "window": 3}
HEAD = {"classes": 5, "channels": 8, "auxiliary_channels": 4}
# One deformable attention in each direction: their export is what takes the time.
COMER = {
    "deform_heads": 2,
    "stem": 6,
    "extra": 1,
    "to_v": [False, True, False, False],
    "to_c": [False, False, True, False],
    "interaction": [False, False, True, False],
    **HEAD,
}
NETWORKS: dict[str, dict[str, Any]] = {
    "upernet": {"family": "upernet", "variant": "swin_tiny", **SWIN, **HEAD},
    "vit_comer": {
        "family": "vit_comer",
        "variant": "small",
        **COMER,
        "dim": 12,
        "depth": 4,
        "heads": 2,
        "window": 3,
    },
    "x_comer": {"family": "vit_comer", "variant": "swin_tiny", **COMER, **SWIN, "width": 12},
    "mult": {
        "family": "mult",
        "variant": "swin_tiny",
        **SWIN,
        "tasks": ["segmentation", "depth", "normals"],
        "classes": 5,
        "decoder_depths": [1, 1, 1, 2],
    },
}
HEIGHT, WIDTH = 64, 96


class Flat(nn.Module):
    """The outputs as a tuple in a fixed order."""

    def __init__(self, network: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.network = network
        self.names = names

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = self.network(image)
        return tuple(outputs[name] for name in self.names)


# UperNet on Swin and on ViT-CoMer go through the whole chain in test_chain.py.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["x_comer", "mult"])
def test_an_exported_network_computes_what_eager_computes(name: str, tmp_path: Path) -> None:
    """Dynamic batch, opset 18, no GridSample, within 1e-4 of the output's range in both.

    TensorRT for RTX builds it, too.
    """
    import onnx
    import onnxruntime
    import openvino

    network = zoo.build(NETWORKS[name]).eval()
    randomise(network)
    image = torch.randn(3, 3, HEIGHT, WIDTH)
    with torch.no_grad():
        expected = network(image)
    fix_positions(network, image[:1])
    names = list(expected)
    path = tmp_path / "network.onnx"
    with torch.no_grad():
        program = torch.onnx.export(
            Flat(network, names).eval(),
            (image[:2],),
            dynamo=True,
            opset_version=18,
            input_names=["image"],
            output_names=names,
            dynamic_shapes={"image": {0: torch.export.Dim("N", min=1, max=64)}},
            verbose=False,
        )
    program.save(path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert max(entry.version for entry in model.opset_import if not entry.domain) >= 18
    assert "GridSample" not in {node.op_type for node in model.graph.node}
    assert not [node for node in model.graph.node if any(a.s == b"cubic" for a in node.attribute)]
    engine = build_engine(path, TensorRtOptions(compute_capability="8.6", max_batch=3))
    assert len(engine) > 10_000
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for batch in (1, 3):
        feed = image[:batch].numpy()
        for got in (session.run(names, {"image": feed}), list(compiled(feed).values())):
            for key, value in zip(names, got, strict=True):
                want = expected[key][:batch].numpy()
                assert value.shape == want.shape
                assert np.abs(value - want).max() <= 1e-4 * np.ptp(want)


def test_a_card_with_an_unknown_or_ill_typed_entry_is_refused() -> None:
    for name, bad in (
        ("upernet", {"grid": [14, 14]}),
        ("vit_comer", {"to_v": [1, 0, 1, 1]}),
        ("mult", {"tasks": ["depth", 3]}),
        ("mult", {"tasks": ["depth", "colour"]}),
        ("mult", {"variant": "swin_huge"}),
    ):
        with pytest.raises(CardError, match="expected"):
            zoo.build({**NETWORKS[name], **bad})
