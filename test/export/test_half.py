"""The fp16 graph: its types, its islands, its order and its numbers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dense_perception.core.card import ModelCard
from dense_perception.core.card_specs import DepthSpec, InputSpec
from dense_perception.core.errors import ArtefactError
from dense_perception.core.prediction import DepthKind
from dense_perception.export.half import Rounder, half_candidates, to_half
from dense_perception.export.sensitivity import Judge, search
from test.export.test_quantize import run
from test.support.onnx_graphs import fp16_nodes

RNG = np.random.RandomState(0)
CONSTANTS = {
    "gain": np.array(1 / 255, np.float32),
    "w": RNG.randn(4, 3, 3, 3).astype(np.float32),
    "large": np.array(400.0, np.float32),
    "small": np.array(1 / 400, np.float32),
    "scales": np.array([1, 1, 2, 2], np.float32),
    "w_last": np.abs(RNG.randn(1, 4, 1, 1)).astype(np.float32),
    "axis": np.array([1], np.int64),
}


def bright_model() -> onnx.ModelProto:
    """Bytes to depth, with a square in the middle that no fp16 number can hold."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "gain"], ["unit"], "normalise"),
        helper.make_node("Transpose", ["unit"], ["nchw"], "transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["nchw", "w"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Mul", ["c", "large"], ["loud"], "amplify"),
        helper.make_node("Mul", ["loud", "loud"], ["square"], "square"),
        helper.make_node("Sqrt", ["square"], ["root"], "root"),
        helper.make_node("Mul", ["root", "small"], ["quiet"], "attenuate"),
        helper.make_node("Resize", ["quiet", "", "scales"], ["big"], "resize", mode="linear"),
        helper.make_node("Conv", ["big", "w_last"], ["d"], "last"),
        helper.make_node("Squeeze", ["d", "axis"], ["depth"], "squeeze"),
    ]
    graph = helper.make_graph(
        nodes,
        "bright",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 16, 16, 3])],
        [helper.make_tensor_value_info("depth", TensorProto.FLOAT, ["N", 32, 32])],
        [numpy_helper.from_array(value, name) for name, value in CONSTANTS.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


CARD = ModelCard(
    "bright", "test", "test", "depth", "x", InputSpec(16, 16), DepthSpec(DepthKind.METRIC)
)
FRAMES = [{"image": RNG.randint(0, 256, (1, 16, 16, 3)).astype(np.uint8)} for _ in range(3)]
TAIL = {"amplify", "square", "root", "attenuate"}


def types(model: onnx.ModelProto) -> dict[str, int]:
    shaped = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    return {v.name: v.type.tensor_type.elem_type for v in shaped.graph.value_info}


def test_an_island_is_fp32_and_the_rest_fp16() -> None:
    model = to_half(bright_model(), TAIL)
    found = types(model)
    assert set(fp16_nodes(model)) == {"conv", "resize", "last", "squeeze"}
    assert {found[name] for name in ("loud", "square", "root", "quiet")} == {TensorProto.FLOAT}
    assert {found[name] for name in ("c", "big", "d")} == {TensorProto.FLOAT16}
    # Pixels are normalised in fp32, the graph's own types stay, weights are halved.
    assert found["unit"] == TensorProto.FLOAT
    assert model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    assert stored["w_fp16"].dtype == np.float16
    assert "w" not in stored
    assert stored["scales"].dtype == np.float32
    want, got = run(bright_model(), FRAMES[0])["depth"], run(model, FRAMES[0])["depth"]
    np.testing.assert_allclose(got, want, rtol=5e-3, atol=5e-3 * want.max())


def test_the_search_finds_the_island_that_overflows() -> None:
    judge = Judge(bright_model(), CARD, FRAMES)
    candidates = half_candidates(bright_model())
    found = search(candidates, Rounder(bright_model()), judge, 0.01)
    assert found.full_drop == float("inf")
    assert found.drop <= 0.01
    assert {"square", "root"} <= set(found.kept)
    assert "conv" not in found.kept
    assert set(fp16_nodes(to_half(bright_model(), found.kept))) >= {"conv", "resize", "last"}


def test_a_graph_that_onnx_runtime_does_not_read_is_one_line() -> None:
    """As its versions for Python 3.10 do not read fp8 in every operator."""
    judge = Judge(bright_model(), CARD, FRAMES)
    strange = bright_model()
    strange.graph.node[3].op_type = "Nowhere"
    with pytest.raises(ArtefactError, match=r"^ONNX Runtime [\d.]+ does not read .*Nowhere.*\Z"):
        judge.drop(strange)


def test_a_budget_that_cannot_be_met_is_refused() -> None:
    judge = Judge(bright_model(), CARD, FRAMES)
    with pytest.raises(ArtefactError, match=r"nothing but fp32 stays within a drop of 1e-12"):
        search(
            half_candidates(bright_model()),
            Rounder(bright_model()),
            judge,
            1e-12,
        )


def test_nothing_changes_when_everything_is_kept() -> None:
    model = to_half(bright_model(), half_candidates(bright_model()))
    assert fp16_nodes(model) == []
    want, got = run(bright_model(), FRAMES[0])["depth"], run(model, FRAMES[0])["depth"]
    np.testing.assert_array_equal(got, want)
