"""The fp8 graph: its structure, its numbers against arithmetic by hand, and who takes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dense_perception.backends.nvidia.build import TensorRtOptions, build_engine
from dense_perception.backends.opening import open_backend
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import BackendError, InputError
from dense_perception.core.reference_frames import reference_feeds
from dense_perception.export import compare
from dense_perception.export.graph_file import embed_card, write_onnx
from dense_perception.export.quantize import QuantizeOptions, Quantizer
from test.export.conftest import tiny_card
from test.export.test_quantize import WEIGHTS, frames, run, toy
from test.support.onnx_graphs import quantized_layers

MODELS = Path(__file__).parents[2] / "models"
RUNTIMES = ("onnxruntime", "openvino")
PLAIN = QuantizeOptions(bias_correction=False, smooth=None)


def e4m3(values: np.ndarray) -> np.ndarray:
    """The nearest number with 4 exponent and 3 mantissa bits, ties to even; at most 448."""
    values = np.asarray(values, np.float64)
    exponents = np.floor(np.log2(np.maximum(np.abs(values), 2.0**-6)))
    steps = 2.0 ** (exponents - 3)
    return np.clip(np.rint(values / steps) * steps, -448, 448)


def float8(**options: object) -> onnx.ModelProto:
    return Quantizer(toy(), frames(), QuantizeOptions(**options)).build(precision="fp8")  # type: ignore[arg-type]


def written(model: onnx.ModelProto, path: Path) -> Path:
    """As the exporter writes it: the file says that it is fp8."""
    embed_card(model, tiny_card(precision="fp8"))
    write_onnx(model, path)
    return path


def answers(
    runtime: str, path: Path, feeds: dict[str, np.ndarray], outputs: list[str]
) -> dict[str, np.ndarray]:
    """With the runtime's optimiser, as users run it."""
    backend = open_backend(runtime, path)
    found = {name: array.copy() for name, array in backend.infer(feeds, outputs).items()}
    backend.close()
    return found


def test_pairs_are_what_tensorrt_reads() -> None:
    quantizer = Quantizer(toy(), frames())
    model = quantizer.build(precision="fp8")
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    assert quantized_layers(model) == ["conv1", "conv2", "matmul", "scores", "sums"]
    pairs = [n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    for node in pairs:
        zero = tensors[node.input[2]]
        assert zero.data_type == TensorProto.FLOAT8E4M3FN
        assert not numpy_helper.to_array(zero).astype(np.float32).any()
        on_weights = node.input[0] in tensors
        assert bool(tensors[node.input[1]].dims) == on_weights
        if on_weights:
            assert tensors[node.input[0]].data_type == TensorProto.FLOAT8E4M3FN
    assert not any(tensor.data_type == TensorProto.INT8 for tensor in tensors.values())
    assert [opset.version for opset in model.opset_import] == [19]
    assert model.ir_version == 9
    assert [opset.version for opset in quantizer.build().opset_import] == [18]


def test_numbers_are_those_of_float8_arithmetic(tmp_path: Path) -> None:
    model = Quantizer(toy(), frames(), PLAIN).build(precision="fp8")
    x = frames(1)[0]["x"].astype(np.float64)
    scale = max(float(f["x"].max()) for f in frames()) / 448
    weight = WEIGHTS["w1"][:, :, 0, 0].astype(np.float64)
    scales = np.abs(weight).max(1, keepdims=True) / 448
    product = np.einsum("oi,nihw->nohw", e4m3(weight / scales) * scales, e4m3(x / scale) * scale)
    want = product + WEIGHTS["b1"][None, :, None, None]
    path = written(model, tmp_path / "toy.onnx")
    for got in (run(model, frames(1)[0]), answers("onnxruntime", path, frames(1)[0], ["c1"])):
        # A value on the edge between two numbers may go either way: few do.
        wrong = np.abs(got["c1"] - want) > 1e-4
        assert wrong.mean() < 0.02


def clamped(kind: str) -> onnx.ModelProto:
    """A clamp between two convolutions that change nothing."""
    bounds = {"Relu": [], "Clip": ["low", "high"], "low": ["low"], "high": ["", "high"]}[kind]
    nodes = [
        helper.make_node("Conv", ["x", "one"], ["c"], "first"),
        helper.make_node("Relu" if kind == "Relu" else "Clip", ["c", *bounds], ["r"], "clamp"),
        helper.make_node("Conv", ["r", "one"], ["y"], "second"),
    ]
    constants = {"one": np.ones((1, 1, 1, 1)), "low": np.array(-1.0), "high": np.array(2.0)}
    graph = helper.make_graph(
        nodes,
        "clamped",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 1, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 1, 8])],
        [
            numpy_helper.from_array(value.astype(np.float32), name)
            for name, value in constants.items()
            if name == "one" or name in bounds
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [("Relu", 0, 9), ("Clip", -1, 2), ("low", -1, 9), ("high", -9, 2)],
)
def test_a_clamp_before_a_pair_holds_in_every_runtime(
    kind: str, low: float, high: float, tmp_path: Path
) -> None:
    """ONNX Runtime's optimiser takes such a clamp for the quantiser's own and drops it."""
    x = np.array([-4, -3, -1, -0.5, 0.5, 1, 3, 4], np.float32).reshape(1, 1, 1, 8)
    model = Quantizer(clamped(kind), [{"x": x}], PLAIN).build(precision="fp8")
    path = written(model, tmp_path / "clamped.onnx")
    for name in RUNTIMES:
        got = answers(name, path, {"x": x}, ["y"])["y"]
        np.testing.assert_allclose(got, x.clip(low, high), rtol=0.07, err_msg=name)


def test_runtimes_agree_and_come_close_to_fp32(tmp_path: Path) -> None:
    path = written(float8(), tmp_path / "toy.onnx")
    want = run(toy(), frames()[0])["m"]
    for name in RUNTIMES:
        got = answers(name, path, frames()[0], ["m"])["m"]
        assert np.abs(got - want).mean() < 0.02 * np.ptp(want), name


def test_a_runtime_may_refuse_fp8_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(name: str, path: Path, feeds: object) -> dict[str, np.ndarray]:
        if name == "openvino":
            raise BackendError("no float8 here")
        return {"depth": np.ones((1, 2, 2), np.float32)}

    monkeypatch.setattr(compare, "runtime_outputs", answer)
    monkeypatch.setattr(compare, "installed_backends", lambda: ("onnxruntime", "openvino"))
    path, card = Path("any.onnx"), tiny_card()
    want = answer("onnxruntime", path, {})
    told: list[tuple[str, str]] = []
    found = compare.compare_runtimes(
        path, want, card, {}, on_refusal=lambda name, error: told.append((name, str(error)))
    )
    assert set(found) == {"onnxruntime"}
    assert told == [("openvino", "no float8 here")]
    with pytest.raises(BackendError, match="no float8"):
        compare.compare_runtimes(path, want, card, {})


def test_bias_correction_removes_the_mean_error() -> None:
    feeds = {"x": np.concatenate([f["x"] for f in frames()])}
    want = run(toy(), feeds)["c1"].mean((0, 2, 3))
    error = {
        correct: np.abs(run(float8(bias_correction=correct), feeds)["c1"].mean((0, 2, 3)) - want)
        for correct in (False, True)
    }
    assert error[False].max() > 3 * error[True].max()


def test_even_steps_are_int8s() -> None:
    quantizer = Quantizer(toy(), frames(), QuantizeOptions(method="mse"))
    with pytest.raises(InputError, match=r"'mse'.*'minmax' or 'percentile' for fp8"):
        quantizer.build(precision="fp8")


def test_builds_from_ada_on_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "toy.onnx"
    onnx.save(float8(), path)
    for capability in ("8.9", "12.0"):
        options = TensorRtOptions(compute_capability=capability)
        assert len(build_engine(path, options, precision="fp8")) > 1000
    with pytest.raises(BackendError, match=r"sm86.*fp8_e4m3"):
        build_engine(path, TensorRtOptions(compute_capability="8.6"), precision="fp8")


@pytest.mark.slow
def test_the_default_model_builds(tmp_path: Path) -> None:
    source = MODELS / "dpt_tiny_indoor_fp32.onnx"
    feeds = reference_feeds(ModelCard.from_onnx(source), 1)
    quantizer = Quantizer(onnx.load(source), [feeds])
    path = tmp_path / "tiny_fp8.onnx"
    onnx.save(quantizer.build(precision="fp8"), path)
    assert path.stat().st_size < 0.4 * source.stat().st_size
    for capability in ("8.9", "12.0"):
        options = TensorRtOptions(compute_capability=capability, max_batch=2)
        assert len(build_engine(path, options, precision="fp8")) > 1e6
