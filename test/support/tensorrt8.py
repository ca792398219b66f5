"""TensorRT 8 does not run here: what it would get keeps its rules, and means what it meant."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime

from dense_perception.backends.nvidia.tensorrt8_graph import for_tensorrt8
from dense_perception.backends.nvidia.tensorrt8_rules import problems
from test.support.onnx_graphs import fp16_nodes


def keeps_the_rules_of_tensorrt8(
    model: onnx.ModelProto,
    feeds: Mapping[str, np.ndarray],
    *,
    exact: bool = True,
    ties: float = 0.0,
) -> None:
    """Hold the rewritten graph against ONNX Runtime's answers of the one as it was.

    :param exact: in fp16 labels and their like may change with the rounding of what other nodes
        round, so that only the rules are looked at.
    :param ties: the share of values that may be others, where the graph chooses among what is
        equal up to rounding: labels, ids, rows.
    """
    want = _outputs(model, feeds) if exact else []
    for version in ((8, 5), (8, 6)):
        assert problems(model, version), "opset 18 alone breaks a rule"
        rewritten = for_tensorrt8(model, version)
        assert problems(rewritten, version) == []
        if not exact:
            assert fp16_nodes(rewritten)
            continue
        for got, expected in zip(_outputs(rewritten, feeds), want, strict=True):
            off = np.abs(got.astype(float) - expected)
            # A byte more or less where a confidence lies between two.
            allowed = 1 if got.dtype == np.uint8 else 2e-5 * np.ptp(expected)
            assert (off > allowed).mean() <= ties


def _outputs(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [np.asarray(output) for output in session.run(None, dict(feeds))]
