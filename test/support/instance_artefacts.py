"""Hand-made artefacts whose things are known in closed form: a colour is a thing.

Of a picture of the network's size, ``write_colour_artefact`` finds up to three things, one in each
channel: all pixels of which that channel is above 127 and no other one is. The box encloses them;
the class is the channel (red ``chair``, green ``table``, blue ``person``); the score is the
brightest value of the channel among them, as a share of 255. Of the four rows, sorted by score,
those without a pixel are unused. ``masks`` are 255 where the thing is, ``instance_ids`` name its
row.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dense_perception.backends.base import promised
from dense_perception.core.card import METADATA_KEY, ModelCard
from dense_perception.core.card_specs import (
    DepthSpec,
    InputSpec,
    InstancesSpec,
    SegmentationSpec,
)
from dense_perception.core.prediction import DepthKind

CLASSES = ("chair", "table", "person")
ROWS = 4


def colour_card(
    name: str = "colour_things",
    height: int = 48,
    width: int = 64,
    *,
    masks: bool = True,
    panoptic: bool = False,
    depth: bool = False,
    resize: str = "stretch",
) -> ModelCard:
    """``panoptic`` adds the labels none, chair, table and person; ``depth`` 2 m everywhere."""
    return ModelCard(
        name=name,
        family="test",
        variant="colour",
        task="multitask" if panoptic or depth else "instances",
        summary="A red blob is a chair, a green one a table, a blue one a person.",
        input=InputSpec(height=height, width=width, resize=resize),
        depth=DepthSpec(DepthKind.METRIC, 0.1, 1000.0) if depth else None,
        segmentation=SegmentationSpec("own", names=("none", *CLASSES)) if panoptic else None,
        instances=InstancesSpec("own", ROWS, masks, panoptic, CLASSES),
    )


def colour_answer(rgb_hwc: np.ndarray) -> dict[str, np.ndarray]:
    """Every graph output for a picture of the network's size, without N; plain loops."""
    height, width = rgb_hwc.shape[:2]
    found = []
    for channel in range(3):
        bright = rgb_hwc > 127
        mask_hw = bright[..., channel] & (bright.sum(-1) == 1)
        if mask_hw.any():
            rows, columns = np.nonzero(mask_hw)
            box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            found.append((int(rgb_hwc[..., channel][mask_hw].max()), -channel, box, mask_hw))
    found.sort(key=lambda each: each[:2], reverse=True)
    answer: dict[str, np.ndarray] = {
        "boxes": np.zeros((ROWS, 4), np.float32),
        "box_scores": np.zeros(ROWS, np.float32),
        "box_classes": np.zeros(ROWS, np.uint8),
        "instance_ids": np.zeros((height, width), np.uint8),
        "masks": np.zeros((ROWS, height, width), np.uint8),
        "labels": np.zeros((height, width), np.uint8),
        "confidence": np.full((height, width), 255, np.uint8),
        "depth": np.full((height, width), 2, np.float32),
    }
    for row, (score, negative, box, mask_hw) in enumerate(found):
        answer["boxes"][row] = box
        answer["box_scores"][row] = np.float32(score) / np.float32(255)
        answer["box_classes"][row] = -negative
        answer["instance_ids"][mask_hw] = row + 1
        answer["labels"][mask_hw] = 1 - negative
        answer["masks"][row][mask_hw] = 255
    return answer


def write_colour_artefact(path: Path, card: ModelCard | None = None) -> ModelCard:
    """Write the graph of ``card`` with the card inside."""
    card = card or colour_card()
    assert card.instances is not None
    model = helper.make_model(
        _graph(card), opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    )
    helper.set_model_props(model, {METADATA_KEY: card.embedded_json()})
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    return card


def _graph(card: ModelCard) -> onnx.GraphProto:
    height, width = card.input.height, card.input.width
    columns, rows = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    constants: dict[str, np.ndarray] = {
        "dark": np.array(127, np.uint8),
        "one": np.array(1, np.float32),
        "zero": np.array(0, np.float32),
        "none": np.array(0, np.int64),
        "inverse": np.array(255, np.float32),
        "first": np.array([1], np.int64),
        "last": np.array([-1], np.int64),
        "sides": np.array([2, 3], np.int64),
        "three": np.array([3], np.int64),
        "pad_rows": np.array([0, 0, 0, 1], np.int64),
        "pad_boxes": np.array([0, 0, 0, 0, 1, 0], np.int64),
        "pad_masks": np.array([0, 0, 0, 0, 0, 1, 0, 0], np.int64),
        "columns": columns.reshape(1, 1, 1, width),
        "rows": rows.reshape(1, 1, height, 1),
        "after_columns": columns.reshape(1, 1, 1, width) + 1,
        "after_rows": rows.reshape(1, 1, height, 1) + 1,
        "far": np.array(1e6, np.float32),
        "numbers": np.arange(1, 4, dtype=np.float32).reshape(1, 3, 1, 1),
        "like_a_picture": np.array([0, 1, 1], np.int64),
    }

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(kind, inputs, [output], **attributes)

    nodes = [
        node("Transpose", ["image"], "pixels", perm=[0, 3, 1, 2]),
        node("Greater", ["pixels", "dark"], "bright"),
        node("Cast", ["bright"], "bright_f", to=TensorProto.FLOAT),
        node("ReduceSum", ["bright_f", "first"], "how_many", keepdims=1),
        node("Equal", ["how_many", "one"], "single"),
        node("And", ["bright", "single"], "mask"),
        node("Cast", ["mask"], "mask_f", to=TensorProto.FLOAT),
        node("Cast", ["pixels"], "pixels_f", to=TensorProto.FLOAT),
        node("Mul", ["pixels_f", "mask_f"], "shining"),
        node("ReduceMax", ["shining", "sides"], "brightest", keepdims=0),
        node("Div", ["brightest", "inverse"], "share"),
        node("Where", ["mask", "columns", "far"], "x_low"),
        node("Where", ["mask", "rows", "far"], "y_low"),
        node("Where", ["mask", "after_columns", "zero"], "x_high"),
        node("Where", ["mask", "after_rows", "zero"], "y_high"),
        *(node("ReduceMin", [n, "sides"], f"{n}_n3", keepdims=0) for n in ("x_low", "y_low")),
        *(node("ReduceMax", [n, "sides"], f"{n}_n3", keepdims=0) for n in ("x_high", "y_high")),
        *(
            node("Unsqueeze", [f"{n}_n3", "last"], f"{n}_n31")
            for n in ("x_low", "y_low", "x_high", "y_high")
        ),
        node("Concat", ["x_low_n31", "y_low_n31", "x_high_n31", "y_high_n31"], "raw", axis=2),
        helper.make_node("TopK", ["share", "three"], ["sorted", "order"], axis=1),
        node("Unsqueeze", ["order", "last"], "order_n31"),
        node("Greater", ["sorted", "zero"], "is_used"),
        node("Unsqueeze", ["is_used", "last"], "is_used_n31"),
        node("Expand", ["order_n31", "box_shape"], "order_n34"),
        node("GatherElements", ["raw", "order_n34"], "found_boxes", axis=1),
        node("Where", ["is_used_n31", "found_boxes", "zero"], "used_boxes"),
        node("Where", ["is_used", "order", "none"], "used_classes"),
        node("Cast", ["used_classes"], "classes_f", to=TensorProto.FLOAT),
        node("Pad", ["used_boxes", "pad_boxes"], "boxes"),
        node("Pad", ["sorted", "pad_rows"], "box_scores"),
        node("Pad", ["classes_f", "pad_rows"], "padded_classes"),
        node("Cast", ["padded_classes"], "box_classes", to=TensorProto.UINT8),
        node("Unsqueeze", ["order_n31", "last"], "order_n311"),
        node("Expand", ["order_n311", "mask_shape"], "order_n3hw"),
        node("GatherElements", ["mask_f", "order_n3hw"], "sorted_masks", axis=1),
        node("Mul", ["sorted_masks", "numbers"], "numbered"),
        node("ReduceMax", ["numbered", "first"], "ids", keepdims=0),
        node("Cast", ["ids"], "instance_ids", to=TensorProto.UINT8),
        node("Mul", ["sorted_masks", "inverse"], "in_bytes"),
        node("Pad", ["in_bytes", "pad_masks"], "padded_masks"),
        node("Cast", ["padded_masks"], "masks", to=TensorProto.UINT8),
        node("Mul", ["mask_f", "numbers"], "labelled"),
        node("ReduceMax", ["labelled", "first"], "label", keepdims=0),
        node("Cast", ["label"], "labels", to=TensorProto.UINT8),
        node("Mul", ["label", "zero"], "nothing"),
        node("Add", ["nothing", "inverse"], "certain"),
        node("Cast", ["certain"], "confidence", to=TensorProto.UINT8),
        node("Add", ["nothing", "two"], "depth"),
    ]
    constants |= {
        "box_shape": np.array([1, 3, 4], np.int64),
        "mask_shape": np.array([1, 3, height, width], np.int64),
        "two": np.array(2, np.float32),
    }
    outputs = [
        helper.make_tensor_value_info(
            spec.name, helper.np_dtype_to_tensor_dtype(spec.dtype), ["N", *spec.shape[1:]]
        )
        for spec in promised(card)[1]
    ]
    nodes = _needed(nodes, [output.name for output in outputs])
    used = {name for each in nodes for name in each.input}
    return helper.make_graph(
        nodes,
        "colour_things",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", height, width, 3])],
        outputs,
        [numpy_helper.from_array(v, k) for k, v in constants.items() if k in used],
    )


def _needed(nodes: list[onnx.NodeProto], outputs: list[str]) -> list[onnx.NodeProto]:
    """The nodes on the way to ``outputs``."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]
