"""A model that always gives the same answer and takes no time, so that all else can be measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from dense_perception.core.card import METADATA_KEY, ModelCard
from dense_perception.core.errors import InputError
from dense_perception.runtime.perceiver import Perceiver


def record_answer(model: str, path: Path, rgb_hwc: np.ndarray) -> ModelCard:
    """Write an ONNX file that gives ``model``'s answer to ``rgb_hwc`` whatever it is shown.

    Its card is the model's, so a node treats it alike. Returns the card.

    :raises InputError: if the model's answer cannot be had at the network's size.
    :raises DensePerceptionError: if the model does not load.
    """
    with Perceiver.load(model, backend="onnxruntime") as perceiver:
        card = perceiver.card
        height, width = card.input.height, card.input.width
        feeds = {"image": np.ascontiguousarray(rgb_hwc[None, :height, :width])}
        if feeds["image"].shape != (1, height, width, 3):
            raise InputError(
                f"the picture is {rgb_hwc.shape[1]}x{rgb_hwc.shape[0]}, expected at least the "
                f"network's {width}x{height}: raise --width and --height"
            )
        if card.input.focal:
            feeds["focal_px"] = np.array([width], np.float32)
        names = {*card.outputs, *(["confidence"] if card.segmentation else [])}
        answer = perceiver.backend.infer(feeds, names)
        _write(path, card, {name: np.array(array) for name, array in answer.items()})
    return card


def _write(path: Path, card: ModelCard, answer: dict[str, np.ndarray]) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    height, width = card.input.height, card.input.width
    inputs = [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, height, width, 3])]
    if card.input.focal:
        inputs.append(helper.make_tensor_value_info("focal_px", TensorProto.FLOAT, [1]))
    outputs, nodes, constants = [], [], []
    for name, array in answer.items():
        constants.append(numpy_helper.from_array(array, f"recorded_{name}"))
        nodes.append(helper.make_node("Identity", [f"recorded_{name}"], [name]))
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        outputs.append(helper.make_tensor_value_info(name, kind, array.shape))
    graph = helper.make_graph(nodes, "recorded", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    # Nothing of the original's parity or files holds for this graph.
    bare = replace(card, parity={}, files={})
    helper.set_model_props(model, {METADATA_KEY: bare.embedded_json()})
    onnx.save(model, str(path))
