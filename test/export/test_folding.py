"""Constants that are cut or turned inside a graph become plain weights."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from dense_perception.export.graph_file import fold_constants
from dense_perception.export.quantize import Quantizer

WHOLE = {"first_column": 0, "last_column": 3, "columns": 1}
WEIGHT = np.random.RandomState(0).randn(5, 8).astype(np.float32)


def cut() -> onnx.ModelProto:
    """y = a w[:, :3]^T + a w[:, 3:6]^T with all of a cut from itself, and w's first part turned."""
    nodes = [
        helper.make_node("Split", ["w", "sizes"], ["w1", "w2", "rest"], axis=1),
        helper.make_node("Transpose", ["w1"], ["w1t"], perm=[1, 0]),
        helper.make_node("Transpose", ["w2"], ["w2t"], perm=[1, 0]),
        # Not a Transpose that changes nothing: ONNX Runtime before 1.23 takes it for one that does.
        helper.make_node("Slice", ["a", "first_column", "last_column", "columns"], ["whole"]),
        helper.make_node("MatMul", ["a", "w1t"], ["y1"], "first"),
        helper.make_node("MatMul", ["whole", "w2t"], ["y2"], "second"),
        helper.make_node("Add", ["y1", "y2"], ["y"]),
        helper.make_node("Transpose", ["w1"], ["promised"], perm=[1, 0]),
    ]
    graph = helper.make_graph(
        nodes,
        "cut",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, ["N", 3])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5]),
            helper.make_tensor_value_info("promised", TensorProto.FLOAT, [3, 5]),
        ],
        [
            numpy_helper.from_array(WEIGHT, "w"),
            numpy_helper.from_array(np.array([3, 3, 2]), "sizes"),
            *(numpy_helper.from_array(np.array([value]), name) for name, value in WHOLE.items()),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def run(model: onnx.ModelProto, a: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    answer: list[np.ndarray] = session.run(None, {"a": a})
    return answer


def test_the_answer_stays_and_the_arithmetic_goes() -> None:
    model = cut()
    fold_constants(model)
    onnx.checker.check_model(model, full_check=True)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds == ["Slice", "MatMul", "MatMul", "Add", "Transpose"]
    assert {t.name for t in model.graph.initializer} == {"w1", "w1t", "w2t", *WHOLE}
    a = np.random.RandomState(1).randn(4, 3).astype(np.float32)
    want = a @ WEIGHT[:, :3].T + a @ WEIGHT[:, 3:6].T
    got = run(model, a)
    np.testing.assert_allclose(got[0], want, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(got[1], WEIGHT[:, :3].T)


def test_such_weights_are_quantised() -> None:
    frames = [{"a": np.ones((1, 3), np.float32)}]
    model = cut()
    fold_constants(model)
    assert Quantizer(model, frames).layers == ["first", "second"]


def test_nothing_to_fold_changes_nothing() -> None:
    model = cut()
    fold_constants(model)
    before = model.SerializeToString(deterministic=True)
    fold_constants(model)
    assert model.SerializeToString(deterministic=True) == before
