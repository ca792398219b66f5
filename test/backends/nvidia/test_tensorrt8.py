"""The rules of TensorRT 8.5 and 8.6 on graphs that break one each, and the cure.

ONNX Runtime is the truth: what a graph computes before and after.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from dense_perception.backends import device
from dense_perception.backends.device import Gpu
from dense_perception.backends.nvidia import build as build_module
from dense_perception.backends.nvidia import module
from dense_perception.backends.nvidia.build import TensorRtOptions, build_engine
from dense_perception.backends.nvidia.engine import engine_key
from dense_perception.backends.nvidia.tensorrt8_graph import GraphRefused, for_tensorrt8, version_of
from dense_perception.backends.nvidia.tensorrt8_rules import RULES, problems
from dense_perception.cli import main
from dense_perception.core.errors import BackendError
from dense_perception.core.onnx_file import OnnxFile
from test.support.artefacts import write_red_artefact

RNG = np.random.RandomState(0)
WEIGHTS = RNG.randint(-64, 64, (4, 6)).astype(np.int8)
SCALES = np.linspace(0.01, 0.03, 6, dtype=np.float32)
Graph = tuple[list[onnx.NodeProto], dict[str, np.ndarray]]


def model_of(
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    *,
    kind: int = TensorProto.FLOAT,
    out: int = TensorProto.FLOAT,
    opset: int = 18,
) -> onnx.ModelProto:
    """x (2, 3, 5, 4) becomes y."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", kind, (2, 3, 5, 4))],
        [helper.make_tensor_value_info("y", out, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    imports = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=9)
    return onnx.shape_inference.infer_shapes(model)


def answer(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": x})[0])


def quantised(
    name: str, source: str, scale: str, zero: str, **attributes: int
) -> list[onnx.NodeProto]:
    first = helper.make_node("QuantizeLinear", [source, scale, zero], [f"{name}_q"], **attributes)
    return [
        first,
        helper.make_node("DequantizeLinear", [f"{name}_q", scale, zero], [name], **attributes),
    ]


def product(weights: list[onnx.NodeProto]) -> Graph:
    """Two products with the same quantised input and weights, as the quantiser writes them."""
    nodes = [
        *quantised("a", "x", "s", "z"),
        *weights,
        helper.make_node("MatMul", ["a", "w"], ["m"]),
        helper.make_node("MatMul", ["a", "w"], ["n"]),
        helper.make_node("Add", ["m", "n"], ["y"]),
    ]
    return nodes, {
        "s": np.float32(0.02),
        "z": np.int8(0),
        "w8": WEIGHTS,
        "ws": SCALES,
        "wz": np.zeros(6, np.int8),
    }


def axes(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


node = helper.make_node
CURED: dict[str, tuple[str, Graph]] = {
    "the largest of the classes": (
        "axes as attribute",
        ([node("ReduceMax", ["x", "axes"], ["y"], keepdims=0)], {"axes": axes(1)}),
    ),
    "length over two axes": (
        "axes as attribute",
        ([node("ReduceL2", ["x", "axes"], ["y"])], {"axes": axes(-1, 2)}),
    ),
    "parts of unlike size": (
        "parts by size",
        (
            [
                node("Split", ["x"], ["a", "b"], axis=2, num_outputs=2),
                node("Concat", ["b", "a"], ["y"], axis=2),
            ],
            {},
        ),
    ),
    "opset 18's names in a resize": (
        "opset",
        (
            [
                node("Resize", ["x", "", "scales"], ["y"], mode="linear", antialias=0,
                     keep_aspect_ratio_policy="stretch"),
            ],
            {"scales": np.array([1, 1, 2, 2], np.float32)},
        ),
    ),
    "layer normalisation": (
        "known operators",
        (
            [node("LayerNormalization", ["x", "gain", "bias"], ["y"], axis=-1, epsilon=1e-6)],
            {"gain": SCALES[:4] * 30, "bias": SCALES[:4]},
        ),
    ),
    "weights in bytes": (
        "int8, symmetric, float weights",
        product([node("DequantizeLinear", ["w8", "ws", "wz"], ["w"], axis=1)]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CURED)
def test_a_broken_rule_is_found_and_cured(name: str) -> None:
    rule, (nodes, constants) = CURED[name]
    model = model_of(nodes, constants)
    x = RNG.randn(2, 3, 5, 4).astype(np.float32)
    assert rule in {problem.rule for problem in problems(model, (8, 5))}
    for version in ((8, 5), (8, 6)):
        rewritten = for_tensorrt8(model, version)
        assert problems(rewritten, version) == []
        got, want = answer(rewritten, x), answer(model, x)
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, atol=2e-6 * np.ptp(want))
    assert model.opset_import[0].version == 18, "the given model is left alone"


def test_layer_normalisation_stays_where_it_is_known() -> None:
    _, (nodes, constants) = CURED["layer normalisation"]
    kinds = {n.op_type for n in for_tensorrt8(model_of(nodes, constants), (8, 6)).graph.node}
    assert kinds == {"LayerNormalization"}


def test_half_layer_normalisation_is_computed_in_float32() -> None:
    """Squares of values beyond 256 do not fit in fp16."""
    nodes = [node("LayerNormalization", ["x", "gain"], ["y"], axis=1)]
    gain = np.ones((3, 5, 4), np.float16)
    model = model_of(nodes, {"gain": gain}, kind=TensorProto.FLOAT16, out=TensorProto.FLOAT16)
    x = (RNG.randn(2, 3, 5, 4) * 2000).astype(np.float16)
    wide = x.astype(np.float64).reshape(2, -1)
    want = (wide - wide.mean(1, keepdims=True)) / wide.std(1, keepdims=True)
    got = answer(for_tensorrt8(model, (8, 5)), x).reshape(2, -1)
    assert np.abs(got - want).max() < 5e-3


def test_labels_become_bytes_by_way_of_float() -> None:
    nodes = [
        node("ArgMax", ["x"], ["best"], axis=1, keepdims=0),
        node("Cast", ["best"], ["y"], to=TensorProto.UINT8),
    ]
    model = model_of(nodes, {}, out=TensorProto.UINT8)
    assert {problem.rule for problem in problems(model, (8, 6))} >= {"bytes at the border"}
    x = RNG.randn(2, 3, 5, 4).astype(np.float32)
    rewritten = for_tensorrt8(model, (8, 6))
    assert np.array_equal(answer(rewritten, x), x.argmax(1))
    assert [n.op_type for n in rewritten.graph.node] == ["ArgMax", "Cast", "Cast"]


def test_each_layer_has_its_own_pairs_around_float_weights() -> None:
    """The weights round to the bytes they were; no two layers share a DequantizeLinear."""
    _, (nodes, constants) = CURED["weights in bytes"]
    graph = for_tensorrt8(model_of(nodes, constants), (8, 6)).graph
    made_by = {name: n for n in graph.node for name in n.output}
    weights = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    products = [n for n in graph.node if n.op_type == "MatMul"]
    pairs = [made_by[name].name or made_by[name].output[0] for n in products for name in n.input]
    assert len(products) == 2
    assert len(set(pairs)) == 4
    for each in products:
        before = made_by[made_by[each.input[1]].input[0]]
        assert before.op_type == "QuantizeLinear"
        floats = weights[before.input[0]]
        assert floats.dtype == np.float32
        assert np.array_equal(np.rint(floats / SCALES), WEIGHTS)


UNCURED: dict[str, tuple[str, Graph]] = {
    "an operator of later opsets": ("Gelu", ([node("Gelu", ["x"], ["y"])], {})),
    "antialiasing": (
        "antialias",
        (
            [node("Resize", ["x", "", "scales"], ["y"], mode="linear", antialias=1)],
            {"scales": np.array([1, 1, 0.5, 0.5], np.float32)},
        ),
    ),
    "asymmetric int8": (
        "zero point",
        (quantised("y", "x", "s", "z"), {"s": np.float32(0.1), "z": np.int8(3)}),
    ),
    "unsigned bytes": (
        "UINT8",
        (quantised("y", "x", "s", "z"), {"s": np.float32(0.1), "z": np.uint8(128)}),
    ),
    "an activation's scale for each channel": (
        "only weights",
        (
            quantised("y", "x", "s", "z", axis=1),
            {"s": np.float32([0.1, 0.2, 0.3]), "z": np.zeros(3, np.int8)},
        ),
    ),
    "a scale of zero": (
        "above zero",
        (quantised("y", "x", "s", "z"), {"s": np.float32(0), "z": np.int8(0)}),
    ),
    "a quantised bias": (
        "bias",
        (
            [
                *quantised("b", "bias", "s", "z"),
                node("Conv", ["x", "kernel", "b"], ["y"]),
            ],
            {
                "bias": np.ones(2, np.float32),
                "kernel": np.ones((2, 3, 1, 1), np.float32),
                "s": np.float32(0.1),
                "z": np.int8(0),
            },
        ),
    ),
}


@pytest.mark.parametrize("name", UNCURED)
def test_what_cannot_be_rewritten_is_refused_with_the_node_and_a_cure(name: str) -> None:
    word, (nodes, constants) = UNCURED[name]
    model = model_of(nodes, constants, opset=20 if "Gelu" in word else 18)
    with pytest.raises(GraphRefused, match=f"TensorRT 8.6 does not take.*{word}.*take another"):
        for_tensorrt8(model, (8, 6))


def test_every_rule_has_a_graph_that_breaks_it_and_a_source() -> None:
    graphs = [graph for _, graph in (*CURED.values(), *UNCURED.values())]
    found = {p.rule for graph in graphs for p in problems(model_of(*graph), (8, 5))}
    others = {"pad without axes", "bytes at the border", "constant normalisation"}
    assert {rule.name for rule in RULES} == (found | others) - {"opset"}
    assert all(rule.source for rule in RULES)
    pad = model_of(
        [node("Pad", ["x", "pads", "", "axes"], ["y"])], {"pads": axes(1, 1), "axes": axes(2)}
    )
    assert "pad without axes" in {p.rule for p in problems(pad, (8, 6))}
    bias = [node("Identity", ["x"], ["i"]), node("ReduceSum", ["i", "all"], ["b"], keepdims=0)]
    norm = node("InstanceNormalization", ["x", "b", "b"], ["y"])
    moving = model_of([*bias, norm], {"all": axes(0, 2, 3)})
    assert "constant normalisation" in {p.rule for p in problems(moving, (8, 5))}
    assert "constant normalisation" not in {p.rule for p in problems(moving, (8, 6))}


def test_the_builder_of_8_gets_the_rewritten_graph_and_10_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "red.onnx"
    write_red_artefact(path)
    model = onnx.load(path)
    onnx.save(model, path)
    given = {}
    for version in ("8.5.2", "8.6.1", "10.3.0"):
        trt = MagicMock(__version__=version)
        trt.Builder.return_value.create_network.return_value.num_inputs = 0
        trt.Builder.return_value.build_serialized_network.return_value = b"engine"
        monkeypatch.setattr(build_module, "load_runtime", lambda name, trt=trt: ("tensorrt", trt))
        assert build_engine(path) == b"engine"
        given[version] = trt.OnnxParser.return_value.parse.call_args.args[0]
    assert given["10.3.0"] == path.read_bytes()
    for version in ("8.5.2", "8.6.1"):
        rewritten = onnx.load_model_from_string(given[version])
        assert rewritten.opset_import[0].version <= 17
        assert rewritten.metadata_props == model.metadata_props
    trt = MagicMock(__version__="8.6.1")
    trt.Builder.return_value.create_network.return_value.num_inputs = 0
    trt.Builder.return_value.build_serialized_network.return_value = b"engine"
    monkeypatch.setattr(build_module, "load_runtime", lambda name: ("tensorrt", trt))
    monkeypatch.setitem(sys.modules, "onnx", None)  # as if it were not installed
    assert build_engine(path) == b"engine"
    assert trt.OnnxParser.return_value.parse.call_args.args[0] == path.read_bytes()
    assert "pip install onnx" in caplog.text
    parsed = trt.OnnxParser.return_value.parse.call_count

    def broken(source: object, version: object) -> bytes:
        raise ImportError("libprotobuf is missing")

    monkeypatch.setattr(build_module, "can_rewrite", lambda: True)
    monkeypatch.setattr(build_module, "file_for_tensorrt8", broken)
    with pytest.raises(BackendError, match="onnx is installed but does not load"):
        build_engine(path)
    assert trt.OnnxParser.return_value.parse.call_count == parsed


def test_compile_passes_over_what_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One precision by its name: its error. All of them: a line, and an error if none is left."""
    path = tmp_path / "red.onnx"
    write_red_artefact(path)
    model = onnx.load(path)
    model.graph.node[0].op_type = "Nowhere"
    onnx.save(model, path)
    trt = MagicMock(__version__="8.6.1")
    for place in (build_module, module):
        monkeypatch.setattr(place, "load_runtime", lambda name=None: ("tensorrt", trt))
    monkeypatch.setattr(device, "find_gpu", lambda index: Gpu("Orin", "8.7", "12.2"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = ["compile", str(path), "--backend", "tensorrt", "--precision"]
    assert main([*words, "fp32"]) != 0
    assert "TensorRT 8.6 does not take this graph: Nowhere" in capsys.readouterr().err
    assert main([*words, "all"]) != 0
    told = capsys.readouterr().err
    assert "passed over: fp32: TensorRT 8.6 does not take" in told
    assert "no precision of" in told
    trt.OnnxParser.return_value.parse.assert_not_called()


def test_versions_and_the_engine_key(tmp_path: Path) -> None:
    """What was built, or failed, of the graph as it was is not taken for that of the rewritten."""
    assert version_of("8.6.1") == (8, 6)
    assert version_of("8.5.2.2") == (8, 5)
    assert version_of("10.3.0") is None
    path = tmp_path / "red.onnx"
    write_red_artefact(path)
    gpu = Gpu("Orin", "8.7", "12.2")
    options = TensorRtOptions(dla_core=0)
    keys = [
        engine_key(OnnxFile.read(path), "tensorrt", SimpleNamespace(__version__=v), options, gpu)
        for v in ("8.6.1", "10.3.0")
    ]
    assert [key.options for key in keys] == ["dla 0, opset 17", "dla 0"]
