"""SmoothQuant: the same function in fp32, a better one in int8."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dense_perception.export.quantize import QuantizeOptions, Quantizer
from test.export.test_quantize import run

RNG = np.random.RandomState(3)
# One channel is fifty times the others: what SmoothQuant is for.
GAMMA = np.array([50.0] + [1.0] * 7, np.float32)
CONSTANTS = {
    "gamma": GAMMA,
    "beta": RNG.randn(8).astype(np.float32),
    "w1": RNG.randn(8, 6).astype(np.float32),
    "w2": RNG.randn(8, 4).astype(np.float32),
}


def outlier_model() -> onnx.ModelProto:
    """A LayerNormalization that two products read, and another that shares its parameters."""
    nodes = [
        helper.make_node("LayerNormalization", ["x", "gamma", "beta"], ["n"], "norm"),
        helper.make_node("MatMul", ["n", "w1"], ["y1"], "first"),
        helper.make_node("MatMul", ["n", "w2"], ["y2"], "second"),
        helper.make_node("LayerNormalization", ["x", "gamma", "beta"], ["y3"], "shown"),
    ]
    graph = helper.make_graph(
        nodes,
        "outlier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 5, 8])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 5, channels])
            for name, channels in (("y1", 6), ("y2", 4), ("y3", 8))
        ],
        [numpy_helper.from_array(value, name) for name, value in CONSTANTS.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def frames() -> list[dict[str, np.ndarray]]:
    return [{"x": RNG.randn(2, 5, 8).astype(np.float32)} for _ in range(6)]


def test_smoothing_changes_nothing_in_fp32_and_much_in_int8() -> None:
    seen = frames()
    errors = {}
    for alpha in (None, 0.5):
        quantizer = Quantizer(outlier_model(), seen, QuantizeOptions(smooth=alpha))
        feeds = seen[0]
        want = run(outlier_model(), feeds)
        smoothed = run(quantizer._model, feeds)
        for name in ("y1", "y2", "y3"):
            np.testing.assert_allclose(smoothed[name], want[name], rtol=1e-4, atol=1e-4)
        got = run(quantizer.build(), feeds)
        errors[alpha] = max(
            np.abs(got[name] - want[name]).mean() / np.abs(want[name]).mean()
            for name in ("y1", "y2")
        )
        # Who shares the parameters but is not quantised keeps its own.
        np.testing.assert_allclose(got["y3"], want["y3"], rtol=1e-5, atol=1e-5)
    assert errors[0.5] < 0.8 * errors[None]
