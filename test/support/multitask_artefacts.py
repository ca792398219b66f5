"""A hand-made multitask artefact: every map of every pixel is known in closed form.

With r, g, b the pixel's bytes at the network's size:

* depth_m = (1 + 9 r / 255) * focal_px / width
* labels = floor(g / 16), confidence = b
* normals = (x, 0, -1) / sqrt(x^2 + 1) with x = (r - 128) / 128
* edges = r, keypoints = g, reshading = b
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dense_perception.core.card import METADATA_KEY, ModelCard
from dense_perception.core.card_specs import FURTHER_MAPS, DepthSpec, InputSpec, SegmentationSpec
from dense_perception.core.prediction import DepthKind


def multitask_card(name: str = "bytes_multitask", height: int = 48, width: int = 64) -> ModelCard:
    return ModelCard(
        name=name,
        family="test",
        variant="bytes",
        task="multitask",
        summary="Every map is a function of the pixel's bytes.",
        input=InputSpec(height=height, width=width, focal=True),
        depth=DepthSpec(DepthKind.METRIC, 0.1, 1000.0),
        segmentation=SegmentationSpec("generated_rooms"),
        maps=FURTHER_MAPS,
    )


def multitask_answer(rgb_hwc: np.ndarray, focal_px: float) -> dict[str, np.ndarray]:
    """Every graph output for an image that already has the network's size, without N."""
    red, green, blue = (rgb_hwc[..., c] for c in range(3))
    x = (red.astype(np.float64) - 128) / 128
    length = np.sqrt(x * x + 1)
    return {
        "depth": (1 + 9 * red.astype(np.float64) / 255) * focal_px / rgb_hwc.shape[1],
        "labels": green // 16,
        "confidence": blue,
        "normals": np.stack([x / length, np.zeros_like(x), -1 / length], axis=-1),
        "edges": red,
        "keypoints": green,
        "reshading": blue,
    }


def write_multitask_artefact(path: Path, card: ModelCard | None = None) -> ModelCard:
    """Write the graph of ``card`` (any subset of the outputs) with the card inside."""
    card = card or multitask_card()
    height, width = card.input.height, card.input.width
    floats = {"gain": 9 / 255, "one": 1.0, "inverse_width": 1 / width, "half": 128.0}
    floats |= {"inverse_half": 1 / 128, "sixteenth": 1 / 16, "minus_one": -1.0, "zero": 0.0}
    constants: dict[str, np.ndarray] = {k: np.array(v, np.float32) for k, v in floats.items()}
    constants |= {"column": np.array([-1, 1, 1], np.int64), "last": np.array([-1], np.int64)}
    nodes = []
    for index, colour in enumerate(("red", "green", "blue")):
        constants[f"at_{colour}"] = np.array(index, np.int64)
        nodes.append(helper.make_node("Gather", ["image", f"at_{colour}"], [colour], axis=3))
        nodes.append(helper.make_node("Cast", [colour], [f"{colour}_f"], to=TensorProto.FLOAT))
    recipes = {
        "depth": [
            helper.make_node("Mul", ["red_f", "gain"], ["scaled"]),
            helper.make_node("Add", ["scaled", "one"], ["shifted"]),
            helper.make_node("Mul", ["focal_px", "inverse_width"], ["ratio"]),
            helper.make_node("Reshape", ["ratio", "column"], ["ratio_n11"]),
            helper.make_node("Mul", ["shifted", "ratio_n11"], ["depth"]),
        ],
        "labels": [
            helper.make_node("Mul", ["green_f", "sixteenth"], ["sixteenths"]),
            helper.make_node("Floor", ["sixteenths"], ["floor"]),
            helper.make_node("Cast", ["floor"], ["labels"], to=TensorProto.UINT8),
        ],
        "confidence": [helper.make_node("Identity", ["blue"], ["confidence"])],
        "normals": [
            helper.make_node("Sub", ["red_f", "half"], ["from_half"]),
            helper.make_node("Mul", ["from_half", "inverse_half"], ["x"]),
            helper.make_node("Mul", ["x", "x"], ["x_squared"]),
            helper.make_node("Add", ["x_squared", "one"], ["length_squared"]),
            helper.make_node("Sqrt", ["length_squared"], ["length"]),
            helper.make_node("Div", ["x", "length"], ["nx"]),
            helper.make_node("Div", ["minus_one", "length"], ["nz"]),
            helper.make_node("Mul", ["x", "zero"], ["ny"]),
            *(helper.make_node("Unsqueeze", [n, "last"], [f"{n}_1"]) for n in ("nx", "ny", "nz")),
            helper.make_node("Concat", ["nx_1", "ny_1", "nz_1"], ["normals"], axis=-1),
        ],
        "edges": [helper.make_node("Identity", ["red"], ["edges"])],
        "keypoints": [helper.make_node("Identity", ["green"], ["keypoints"])],
        "reshading": [helper.make_node("Identity", ["blue"], ["reshading"])],
    }
    names = [n for name in card.outputs for n in _with_confidence(name)]
    outputs = []
    for name in names:
        nodes += recipes[name]
        real = name in ("depth", "normals")
        sides = ["N", height, width, 3] if name == "normals" else ["N", height, width]
        kind = TensorProto.FLOAT if real else TensorProto.UINT8
        outputs.append(helper.make_tensor_value_info(name, kind, sides))
    inputs = [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", height, width, 3])]
    if card.input.focal:
        inputs.append(helper.make_tensor_value_info("focal_px", TensorProto.FLOAT, ["N"]))
    used = {name for node in nodes for name in node.input}
    weights = [numpy_helper.from_array(v, k) for k, v in constants.items() if k in used]
    graph = helper.make_graph(nodes, "bytes_multitask", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {METADATA_KEY: card.embedded_json()})
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    return card


def _with_confidence(name: str) -> list[str]:
    return ["labels", "confidence"] if name == "labels" else [name]


def without_depth(card: ModelCard) -> ModelCard:
    """The card's model without its depth, and so without a focal length."""
    return replace(card, depth=None, input=replace(card.input, focal=False))
