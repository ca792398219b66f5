"""A model whose graph never comes to an end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dense_perception.core.card import METADATA_KEY
from test.support.artefacts import red_card


def write_endless_artefact(path: Path) -> None:
    """Its ``Loop`` goes on while a value that depends on the image is not negative."""
    card = red_card()
    height, width = card.input.height, card.input.width
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Add", ["sum_in", "one"], ["more"]),
            helper.make_node("Cos", ["more"], ["sum_out"]),
            helper.make_node("Less", ["sum_out", "limit"], ["go_on"]),
        ],
        "body",
        [
            value("turn", TensorProto.INT64, []),
            value("go_on_in", TensorProto.BOOL, []),
            value("sum_in", TensorProto.FLOAT, []),
        ],
        [value("go_on", TensorProto.BOOL, []), value("sum_out", TensorProto.FLOAT, [])],
        [
            numpy_helper.from_array(np.array(1, np.float32), "one"),
            numpy_helper.from_array(np.array(9, np.float32), "limit"),
        ],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["float"], ["brightness"], keepdims=0),
            helper.make_node("ReduceMean", ["focal_px"], ["focal"], keepdims=0),
            helper.make_node("Add", ["brightness", "focal"], ["start"]),
            helper.make_node("Loop", ["", "true", "start"], ["never"], body=body),
            helper.make_node("ReduceMean", ["float", "channels"], ["gray"], keepdims=0),
            helper.make_node("Add", ["gray", "never"], ["depth"]),
        ],
        "endless",
        [
            value("image", TensorProto.UINT8, ["N", height, width, 3]),
            value("focal_px", TensorProto.FLOAT, ["N"]),
        ],
        [value("depth", TensorProto.FLOAT, ["N", height, width])],
        [
            numpy_helper.from_array(np.array(True), "true"),
            numpy_helper.from_array(np.array([3], np.int64), "channels"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {METADATA_KEY: card.embedded_json()})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
