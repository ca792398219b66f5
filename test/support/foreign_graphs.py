"""ONNX files as others write them: `transformers` through torch.onnx, and plain graphs by hand."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from test.support.transformers_zoo import depth_anything, randomise

IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class _Loss(nn.Module):
    """In place of Mask2Former's, which wants SciPy even where nothing is trained."""

    def __init__(self, **_: object) -> None:
        super().__init__()
        self.num_labels, self.eos_coef = 4, 0.1
        self.register_buffer("empty_weight", torch.ones(5))


def _sampled(value: torch.Tensor, grid: torch.Tensor, **how: Any) -> torch.Tensor:
    """The tracer makes doubles of Mask2Former's positions, which ONNX Runtime does not sample."""
    return _GRID_SAMPLE(value, grid.to(value.dtype), **how)


_GRID_SAMPLE = nn.functional.grid_sample


class _Outputs(nn.Module):
    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        answer = self.model(pixel_values)
        return tuple(getattr(answer, name) for name in self.names)


def network(family: str) -> tuple[nn.Module, list[str], tuple[int, int]]:
    """A small random network of `transformers`, its outputs, its input's height and width."""
    import transformers as tf
    from transformers.models.mask2former import modeling_mask2former

    torch.manual_seed(0)
    stages = [f"stage{index}" for index in range(1, 5)]
    if family == "depth_anything":
        return depth_anything(), ["predicted_depth"], (56, 70)
    if family == "dpt":
        config = tf.DPTConfig(
            hidden_size=24,
            num_hidden_layers=4,
            num_attention_heads=2,
            intermediate_size=48,
            image_size=64,
            backbone_out_indices=[0, 1, 2, 3],
            neck_hidden_sizes=[8, 12, 16, 20],
            fusion_hidden_size=8,
            attn_implementation="eager",  # the other one cannot be written in opset 11
        )
        model: nn.Module = tf.DPTForDepthEstimation(config)
        outputs, size = ["predicted_depth"], (64, 64)
    elif family == "segformer":
        config = tf.SegformerConfig(
            depths=[1, 1, 1, 1],
            hidden_sizes=[8, 16, 24, 32],
            num_attention_heads=[1, 2, 3, 4],
            decoder_hidden_size=16,
            id2label={0: "wall", 1: "floor", 2: "chair", 3: "robot", 4: "wall"},
        )
        model = tf.SegformerForSemanticSegmentation(config)
        outputs, size = ["logits"], (64, 96)
    elif family == "upernet":
        backbone = tf.ConvNextConfig(
            hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], out_features=stages
        )
        config = tf.UperNetConfig(
            backbone_config=backbone, hidden_size=8, num_labels=6, use_auxiliary_head=False
        )
        model = tf.UperNetForSemanticSegmentation(config)
        outputs, size = ["logits"], (192, 192)
    else:
        modeling_mask2former.Mask2FormerLoss = _Loss
        backbone = tf.SwinConfig(
            embed_dim=8, depths=[1] * 4, num_heads=[1, 2, 2, 2], window_size=4, out_features=stages
        )
        config = tf.Mask2FormerConfig(
            backbone_config=backbone,
            feature_size=32,
            mask_feature_size=32,
            hidden_dim=32,
            encoder_feedforward_dim=16,
            num_attention_heads=2,
            encoder_layers=1,
            decoder_layers=2,
            dim_feedforward=16,
            num_queries=7,
            num_labels=4,
        )
        model = tf.Mask2FormerForUniversalSegmentation(config)
        outputs, size = ["class_queries_logits", "masks_queries_logits"], (64, 64)
    randomise(model)
    if family == "mask2former":
        # Random queries all prefer one class: take what they share away, so that masks decide.
        with torch.no_grad():
            classes_bqc = model.eval()(torch.randn(1, 3, *size)).class_queries_logits
            model.class_predictor.bias -= classes_bqc.mean((0, 1))
    return model.eval(), outputs, size


def write_network(
    family: str, path: Path, *, opset: int = 17, free: bool = False, half: bool = False
) -> nn.Module:
    """Export as users do, with the exporter that most published files were made with."""
    model, outputs, (height, width) = network(family)
    pixels = torch.rand(1, 3, height, width)
    if half:
        model, pixels = model.half(), pixels.half()
    axes = {"pixel_values": {0: "batch", 2: "height", 3: "width"}} if free else None
    with (
        warnings.catch_warnings(),
        torch.no_grad(),
        mock.patch.object(nn.functional, "grid_sample", _sampled),
    ):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Outputs(model, outputs),
            (pixels,),
            str(path),
            dynamo=False,
            opset_version=opset,
            input_names=["pixel_values"],
            output_names=outputs,
            dynamic_axes=axes,
        )
    return model


def write_folder(family: str, folder: Path, processor: dict[str, Any], **how: Any) -> Path:
    """As on the hub: config.json, preprocessor_config.json, onnx/model.onnx, a page."""
    (folder / "onnx").mkdir(parents=True)
    model = write_network(family, folder / "onnx" / "model.onnx", **how)
    config = {**model.config.to_dict(), "architectures": [type(model).__name__]}
    (folder / "config.json").write_text(json.dumps(config, default=str))
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    return folder


def write_plain(
    path: Path,
    *,
    classes: int = 5,
    ending: str = "",
    layout: str = "NCHW",
    size: tuple[int | str, int | str] = (48, 64),
    stride: int = 4,
    quantised: bool = False,
    pixels: int = TensorProto.FLOAT,
    spread: float = 1.0,
    output: str = "output",
    opset: int = 17,
    metadata: dict[str, str] | None = None,
    colours: int = 3,
    whole: bool = True,
    unread: bool = False,
) -> Path:
    """One convolution, then ``ending``: ``argmax``, ``softmax``, ``sigmoid``, ``relu``, ``traced``,
    a map of one size whatever the input's, ``upsample``, four times as large as before opset 11,
    ``squeeze``, without the batch, or ``steps``, tenths, of which two classes often have as many.

    ``whole`` labels are integers, others floats; ``unread`` adds an input that nothing reads.
    """
    random = np.random.default_rng(0)
    weights = random.normal(scale=spread, size=(classes, colours, 5, 5)).astype(np.float32)
    constants = {"bias": random.normal(size=classes).astype(np.float32)}
    nodes = []

    def add(kind: str, inputs: list[str], name: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    name, kernel = "input", "weights"
    if pixels != TensorProto.FLOAT:
        name = add("Cast", [name], "float", to=TensorProto.FLOAT)
    if layout == "NHWC":
        name = add("Transpose", [name], "planes", perm=[0, 3, 1, 2])
    if quantised:
        scales = np.abs(weights).max(axis=(1, 2, 3)) / 127
        constants |= {
            "weight_bytes": np.rint(weights / scales[:, None, None, None]).astype(np.int8),
            "weight_scales": scales.astype(np.float32),
            "weight_zeros": np.zeros(classes, np.int8),
            "step": np.array(0.02, np.float32),
            "zero": np.array(0, np.int8),
        }
        kernel = add(
            "DequantizeLinear", ["weight_bytes", "weight_scales", "weight_zeros"], "whole", axis=0
        )
        name = add("QuantizeLinear", [name, "step", "zero"], "bytes")
        name = add("DequantizeLinear", [name, "step", "zero"], "stepped")
    else:
        constants["weights"] = weights
    name = add("Conv", [name, kernel, "bias"], "scores", pads=[2] * 4, strides=[stride] * 2)
    if layout == "NHWC":
        name = add("Transpose", [name], "last", perm=[0, 2, 3, 1])
    axis = 1 if layout == "NCHW" else 3
    kind = TensorProto.FLOAT
    if ending == "argmax":
        name, kind = add("ArgMax", [name], "chosen", axis=axis, keepdims=1), TensorProto.INT64
        if not whole:
            name, kind = add("Cast", [name], "numbers", to=TensorProto.FLOAT), TensorProto.FLOAT
    elif ending == "softmax":
        name = add("Softmax", [name], "shares", axis=axis)
    elif ending == "sigmoid":
        name = add("Sigmoid", [name], "share")
    elif ending == "traced":
        constants["sides"] = np.array([1, classes, 12, 16], np.int64)
        name = add("Resize", [name, "", "", "sides"], "sized", mode="linear")
    elif ending == "upsample":
        constants["scales"] = np.array([1, 1, 4, 4], np.float32)
        name = add("Upsample", [name, "scales"], "enlarged", mode="linear")
    elif ending == "squeeze":
        constants["first"] = np.array([0], np.int64)
        name = add("Squeeze", [name, "first"], "single")
    elif ending == "steps":
        constants["tenth"] = np.array(0.1, np.float32)
        name = add("Mul", [add("Round", [name], "rounded"), "tenth"], "tenths")
    elif ending == "relu":
        name = add("Relu", [name], "positive")
    add("Identity", [name], output)
    sides = [*size, colours] if layout == "NHWC" else [colours, *size]
    batch = 1 if all(isinstance(side, int) for side in size) else "batch"
    inputs = [helper.make_tensor_value_info("input", pixels, [batch, *sides])]
    if unread:
        inputs.append(helper.make_tensor_value_info("pixel_mask", TensorProto.INT64, [1, 9, 9]))
    graph = helper.make_graph(
        nodes,
        "plain",
        inputs,
        [helper.make_tensor_value_info(output, kind, None)],
        [numpy_helper.from_array(array, key) for key, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path
