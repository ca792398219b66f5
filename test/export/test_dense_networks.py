"""Tiny random variants of the dense networks: eager against both runtimes; TensorRT builds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dense_perception.backends.nvidia.build import TensorRtOptions, build_engine
from dense_perception.backends.openvino import openvino_core
from dense_perception.core.errors import CardError
from dense_perception.nets import zoo
from test.export.conftest import ExportedDense
from test.support.tiny_families import DENSE


# UperNet on Swin and on ViT-CoMer go through the whole chain in test_chain.py.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["x_comer", "mult"])
def test_an_exported_network_computes_what_eager_computes(
    name: str, exported_dense: Callable[[str], ExportedDense]
) -> None:
    """Dynamic batch, opset 18, no GridSample, within 1e-4 of the output's range in both.

    TensorRT for RTX builds it, too.
    """
    import onnx
    import onnxruntime

    image, expected, path = exported_dense(name)
    names = list(expected)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert max(entry.version for entry in model.opset_import if not entry.domain) >= 18
    assert "GridSample" not in {node.op_type for node in model.graph.node}
    assert not [node for node in model.graph.node if any(a.s == b"cubic" for a in node.attribute)]
    # With a free batch the families in test_chain.py are built.
    engine = build_engine(path, TensorRtOptions(compute_capability="8.6"))
    assert len(engine) > 10_000
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    compiled = openvino_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
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
            zoo.build({**DENSE[name], **bad})
