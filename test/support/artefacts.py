"""Hand-made artefacts whose answers are known in closed form.

``write_red_artefact`` writes a real ONNX file with a card inside. Its metric depth is

    depth_m = (1 + 9 * red / 255) * focal_px / width

so a test can compute what every pixel of the output must be.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dense_perception.core.card import METADATA_KEY, ModelCard
from dense_perception.core.card_specs import DepthSpec, InputSpec
from dense_perception.core.prediction import DepthKind


def red_card(name: str = "red_depth", height: int = 48, width: int = 64) -> ModelCard:
    return ModelCard(
        name=name,
        family="test",
        variant="red",
        task="depth",
        summary="Depth is linear in the red channel.",
        input=InputSpec(height=height, width=width, focal=True),
        depth=DepthSpec(DepthKind.METRIC, 0.1, 1000.0),
    )


def red_depth(rgb_hwc: np.ndarray, focal_px: float) -> np.ndarray:
    """The expected depth of an image that already has the network's size, float64 metres."""
    return (1 + 9 * rgb_hwc[..., 0].astype(np.float64) / 255) * focal_px / rgb_hwc.shape[1]


def write_red_artefact(path: Path, card: ModelCard | None = None, **changes: object) -> ModelCard:
    """Write the graph to ``path``; ``changes`` replace entries of the card only, not the graph."""
    graph_card = card or red_card()
    height, width = graph_card.input.height, graph_card.input.width
    constants = {
        "red": np.array([0], np.int64),
        "gain": np.array(9 / 255, np.float32),
        "one": np.array(1, np.float32),
        "inverse_width": np.array(1 / width, np.float32),
        "column": np.array([-1, 1, 1], np.int64),
        "last": np.array([3], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["float", "red"], ["red_nhw1"], axis=3),
        helper.make_node("Squeeze", ["red_nhw1", "last"], ["red_nhw"]),
        helper.make_node("Mul", ["red_nhw", "gain"], ["scaled"]),
        helper.make_node("Add", ["scaled", "one"], ["shifted"]),
        helper.make_node("Mul", ["focal_px", "inverse_width"], ["ratio"]),
        helper.make_node("Reshape", ["ratio", "column"], ["ratio_n11"]),
        helper.make_node("Mul", ["shifted", "ratio_n11"], ["depth"]),
    ]
    graph = helper.make_graph(
        nodes,
        "red_depth",
        [
            helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", height, width, 3]),
            helper.make_tensor_value_info("focal_px", TensorProto.FLOAT, ["N"]),
        ],
        [helper.make_tensor_value_info("depth", TensorProto.FLOAT, ["N", height, width])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    card = replace(graph_card, **changes)  # type: ignore[arg-type]
    helper.set_model_props(model, {METADATA_KEY: card.embedded_json()})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return card
