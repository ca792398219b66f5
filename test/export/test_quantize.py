"""The int8 graph: its structure, and its numbers against arithmetic done by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from dense_perception.backends.nvidia.build import TensorRtOptions, build_engine
from dense_perception.backends.opening import open_backend
from dense_perception.core.errors import ArtefactError, InputError
from dense_perception.export.quantize import QuantizeOptions, Quantizer
from test.support.onnx_graphs import quantized_layers

RNG = np.random.RandomState(0)
WEIGHTS = {
    "w1": RNG.randn(8, 3, 1, 1).astype(np.float32),
    "b1": RNG.randn(8).astype(np.float32),
    "w2": (RNG.randn(8, 1, 3, 3) + 0.5).astype(np.float32),
    "w3": RNG.randn(8, 5).astype(np.float32),
}
ALL = (0, 0)
KINDS = ("Conv", "Relu", "Transpose", "MatMul", "Softmax")


def quantize(
    model: onnx.ModelProto,
    frames: list[dict[str, np.ndarray]],
    options: QuantizeOptions,
) -> onnx.ModelProto:
    return Quantizer(model, frames, options).build()


def toy() -> onnx.ModelProto:
    """1x1 conv with bias, ReLU, depthwise conv, a product with a constant, then attention."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1"),
        helper.make_node("Relu", ["c1"], ["r1"], "relu"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "conv2", group=8, pads=[1, 1, 1, 1]),
        helper.make_node("Transpose", ["c2"], ["t"], "transpose", perm=[0, 2, 3, 1]),
        helper.make_node("MatMul", ["t", "w3"], ["m"], "matmul"),
        helper.make_node("Transpose", ["m"], ["mt"], "again", perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["m", "mt"], ["s"], "scores"),
        helper.make_node("Softmax", ["s"], ["p"], "softmax"),
        helper.make_node("MatMul", ["p", "m"], ["y"], "sums"),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 6, 6])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 6, 6, 5]),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, ["N", 6, 6, 6]),
            helper.make_tensor_value_info("c1", TensorProto.FLOAT, ["N", 8, 6, 6]),
            helper.make_tensor_value_info("m", TensorProto.FLOAT, ["N", 6, 6, 5]),
        ],
        [numpy_helper.from_array(value, name) for name, value in WEIGHTS.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def frames(count: int = 4) -> list[dict[str, np.ndarray]]:
    random = np.random.RandomState(1)
    return [{"x": random.rand(1, 3, 6, 6).astype(np.float32)} for _ in range(count)]


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Node by node, so that Q and DQ are what they say."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def test_only_what_every_runtime_reads() -> None:
    model = quantize(toy(), frames(), QuantizeOptions(keep_float=ALL))
    values = constants(model)
    assert quantized_layers(model) == ["conv1", "conv2", "matmul", "scores", "sums"]
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = values[node.input[2]]
            assert zero.dtype == np.int8
            assert not zero.any()
            assert values[node.input[1]].dtype == np.float32
            assert (values[node.input[1]] > 0).all()
    assert {v.dtype for v in values.values()} == {np.dtype(np.float32), np.dtype(np.int8)}
    kinds = {node.op_type for node in model.graph.node}
    assert kinds - {"QuantizeLinear", "DequantizeLinear"} == set(KINDS)
    # The float weights are gone, the float biases are not.
    assert not {"w1", "w2", "w3"} & set(values)
    bias_inputs = [n.input[2] for n in model.graph.node if n.op_type == "Conv"]
    assert all(values[name].dtype == np.float32 for name in bias_inputs)


def test_numbers_are_those_of_integer_arithmetic() -> None:
    options = QuantizeOptions(keep_float=ALL, bias_correction=False)
    model = quantize(toy(), frames(), options)
    x = frames(1)[0]["x"]
    limit = max(float(f["x"].max()) for f in frames())
    x_int = np.rint(x.astype(np.float64) / np.float32(limit / 127)).clip(-128, 127)
    values, made_by = constants(model), {n.output[0]: n for n in model.graph.node}
    conv = next(node for node in model.graph.node if node.name == "conv1")
    w_int, scales = (values[name] for name in made_by[conv.input[1]].input[:2])
    # Each filter's largest weight takes half of int8's range, none is off by over half a step.
    np.testing.assert_array_less(np.abs(w_int), 65)
    assert (np.abs(w_int).max((1, 2, 3)) >= 63).all()
    steps = scales[:, None, None, None]
    assert (np.abs(w_int * steps - WEIGHTS["w1"]) < 0.501 * steps).all()
    product = np.einsum("oi,nihw->nohw", w_int[:, :, 0, 0].astype(np.int64), x_int.astype(int))
    want = product * np.float64(np.float32(limit / 127)) * scales[None, :, None, None]
    want += WEIGHTS["b1"][None, :, None, None]
    np.testing.assert_allclose(run(model, {"x": x})["c1"], want, rtol=1e-5, atol=1e-5)


def test_result_is_close_to_float() -> None:
    model = quantize(toy(), frames(), QuantizeOptions(keep_float=ALL))
    x = frames(1)[0]
    want, got = run(toy(), x)["m"], run(model, x)["m"]
    assert np.abs(got - want).max() < 0.05 * np.ptp(want)


def test_bias_correction_removes_the_mean_error() -> None:
    feeds = {"x": np.concatenate([f["x"] for f in frames()])}
    want = run(toy(), feeds)["c1"].mean((0, 2, 3))
    errors = {}
    for correct in (False, True):
        options = QuantizeOptions(keep_float=ALL, bias_correction=correct)
        got = run(quantize(toy(), frames(), options), feeds)["c1"]
        errors[correct] = np.abs(got.mean((0, 2, 3)) - want).max()
    # What is left is the rounding of the activations.
    assert errors[False] > 3 * errors[True]


def test_depthwise_convolution_without_bias_gets_one() -> None:
    # Away from the border every output sees nine inputs, so a constant input is corrected exactly.
    ones = [{"x": np.ones((1, 3, 6, 6), np.float32)}]
    model = toy()
    model.graph.output.append(
        helper.make_tensor_value_info("c2", TensorProto.FLOAT, ["N", 8, 6, 6])
    )
    want = run(model, ones[0])["c2"][..., 2, 2]
    got = run(quantize(model, ones, QuantizeOptions(keep_float=ALL)), ones[0])["c2"][..., 2, 2]
    np.testing.assert_allclose(got, want, atol=0.02 * np.abs(want).max())


def test_first_and_last_layers_stay_float() -> None:
    options = QuantizeOptions(keep_float=(1, 1), products=False)
    assert quantized_layers(quantize(toy(), frames(), options)) == ["conv2"]
    kept = Quantizer(toy(), frames()).build({"conv1", "scores", "sums"})
    assert quantized_layers(kept) == ["conv2", "matmul"]
    with pytest.raises(ArtefactError, match="no layer left"):
        quantize(toy(), frames(), QuantizeOptions(keep_float=(2, 1)))


def test_products_of_attention_are_those_of_integer_arithmetic() -> None:
    everything = Quantizer(toy(), frames(), QuantizeOptions(full_range=True))
    assert everything.layers == ["conv1", "conv2", "matmul", "scores", "sums"]
    x = frames()[2]
    plain = [run(toy(), f) for f in frames()]
    model = everything.build({"conv1", "conv2", "matmul"})
    got = run(model, x)
    step = np.float64(max(np.abs(p["m"]).max() for p in plain) / 127)
    m_int = np.rint(got["m"] / step).astype(np.int64)
    want = np.einsum("nrik,nrjk->nrij", m_int, m_int) * step**2
    np.testing.assert_allclose(got["s"], want, rtol=1e-5, atol=1e-5)
    # A softmax's values are all in the range of its largest.
    shares = np.exp(got["s"] - got["s"].max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    largest = [np.exp(p["s"] - p["s"].max(-1, keepdims=True)) for p in plain]
    unit = max(float((e / e.sum(-1, keepdims=True)).max()) for e in largest) / 127
    sums = np.einsum("nrij,nrjk->nrik", np.rint(shares / unit).clip(-128, 127), m_int) * unit * step
    np.testing.assert_allclose(got["y"], sums, rtol=1e-4, atol=1e-4)


def test_no_pair_of_products_leaves_16_bits() -> None:
    """x86 without VNNI adds two products of a byte up to 255 and a signed one."""
    model = quantize(toy(), frames(), QuantizeOptions())
    values, made_by = constants(model), {n.output[0]: n for n in model.graph.node}
    feeds = frames()[2]
    answers = run(toy(), feeds)
    for name, tensor in (("scores", "m"), ("sums", "m")):
        product = next(node for node in model.graph.node if node.name == name)
        step = values[made_by[product.input[1]].input[1]]
        integers = np.rint(answers[tensor] / step)
        assert 2 * 255 * np.abs(integers).max() < 2**15
        assert np.abs(integers).max() > 40


def test_every_runtime_takes_int8_products(tmp_path: Path) -> None:
    path = tmp_path / "toy.onnx"
    onnx.save(Quantizer(toy(), frames()).build(), path)
    want = run(toy(), frames()[0])["y"]
    for name in ("onnxruntime", "openvino"):
        backend = open_backend(name, path)
        got = backend.infer(frames()[0])["y"]
        assert np.abs(got - want).mean() < 0.01 * np.ptp(want), name
        backend.close()
    assert len(build_engine(path, TensorRtOptions(compute_capability="8.6"))) > 1000


def test_the_given_graph_is_left_alone() -> None:
    model = toy()
    before = model.SerializeToString(deterministic=True)
    quantize(model, frames(), QuantizeOptions(keep_float=ALL))
    assert model.SerializeToString(deterministic=True) == before


def test_same_frames_give_the_same_bytes() -> None:
    options = QuantizeOptions(keep_float=ALL, method="mse")
    one = quantize(toy(), frames(), options).SerializeToString(deterministic=True)
    assert one == quantize(toy(), frames(), options).SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"method": "magic"}, "method is 'magic'"),
        ({"percentile": 10.0}, "percentile is 10.0"),
        ({"keep_float": (-1, 0)}, "keep_float"),
        ({"smooth": 2.0}, "smooth is 2.0"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        QuantizeOptions(**options)  # type: ignore[arg-type]
