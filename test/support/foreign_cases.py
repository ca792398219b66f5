"""Graphs of others by kind: how each is made and imported, and what its own pipeline answers.

The truth is the foreign file in ONNX Runtime with the preparation written out here and PyTorch's
resizing and softmax behind it; the package's part in it is nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import onnx
import onnxruntime
import torch
from torch.nn import functional as F

from dense_perception.cli import main
from test.support.foreign_graphs import IMAGENET, write_folder, write_network, write_plain

HALVES = [0.5] * 3, [0.5] * 3
NOTHING = [0.0] * 3, [1.0] * 3


class Case(NamedTuple):
    """How a file is made, imported and fed; ``kind`` is what its pipeline does in the end."""

    write: Callable[[Path], Any]
    options: str
    normalised: tuple[list[float], list[float]]
    kind: str
    low: float = 0.0


DA = {
    "image_processor_type": "DPTImageProcessor",
    "size": {"height": 56, "width": 70},
    "resample": 3,
    "image_mean": IMAGENET[0],
    "image_std": IMAGENET[1],
}
SEGFORMER = {
    "image_processor_type": "SegformerImageProcessor",
    "size": {"height": 64, "width": 96},
    "do_reduce_labels": True,
}


def network(family: str, **how: Any) -> Callable[[Path], Any]:
    return lambda folder: write_network(family, folder / "model.onnx", **how)


def folder_of(family: str, processor: dict[str, Any], **how: Any) -> Callable[[Path], Any]:
    return lambda folder: write_folder(family, folder / "tiny-model", processor, **how)


def plain(**how: Any) -> Callable[[Path], Any]:
    return lambda folder: write_plain(folder / "model.onnx", **how)


KINDS = {
    "dpt_opset_11": Case(network("dpt", opset=11), "--like dpt", HALVES, "depth"),
    "depth_anything_folder": Case(folder_of("depth_anything", DA, opset=14), "", IMAGENET, "depth"),
    "segformer_folder_opset_20_free": Case(
        folder_of("segformer", SEGFORMER, opset=20, free=True), "", IMAGENET, "logits"
    ),
    "segformer_fp16": Case(
        network("segformer", half=True, opset=15), "--like segformer", IMAGENET, "logits"
    ),
    "upernet": Case(network("upernet", opset=12), "", IMAGENET, "logits"),
    "mask2former": Case(network("mask2former", opset=16), "", IMAGENET, "queries"),
    "mmseg_argmax": Case(
        plain(ending="argmax", stride=1, opset=13), "--like mmseg", IMAGENET, "labels"
    ),
    "tflite_nhwc": Case(
        plain(layout="NHWC", ending="softmax", opset=18),
        "--pixels signed",
        NOTHING,
        "probabilities",
        -1.0,
    ),
    "quantised": Case(plain(quantised=True, opset=19), "--like mmseg", IMAGENET, "logits"),
    "free_sides": Case(
        plain(size=("h", "w"), classes=25),
        "--size 64x48 --labels generated_rooms",
        IMAGENET,
        "logits",
    ),
}
"""What others export, in operator sets 11 to 20."""
CASES = {
    **KINDS,
    "bytes_nhwc": Case(
        plain(layout="NHWC", pixels=onnx.TensorProto.UINT8, spread=0.01), "", NOTHING, "nhwc"
    ),
    "gray": Case(plain(colours=1), "", NOTHING, "logits"),
    "gray_bytes_nhwc": Case(
        plain(colours=1, layout="NHWC", pixels=onnx.TensorProto.UINT8, spread=0.01),
        "",
        NOTHING,
        "nhwc",
    ),
    "one_score": Case(plain(classes=1), "--task segmentation", IMAGENET, "one"),
    "metric_inverse": Case(
        plain(classes=1, ending="sigmoid", output="disparity", stride=1, spread=0.03),
        "--depth-kind metric --depth-inverse",
        IMAGENET,
        "inverse",
    ),
    "opset_9": Case(plain(ending="upsample", opset=9), "", IMAGENET, "logits"),
    "whole_numbers_no_batch": Case(
        plain(ending="squeeze", pixels=onnx.TensorProto.INT64, spread=0.01, unread=True),
        "",
        NOTHING,
        "logits",
    ),
    "labels_in_float": Case(
        plain(ending="argmax", stride=1, whole=False, output="void"), "", IMAGENET, "labels"
    ),
    "classes_that_tie": Case(plain(ending="steps"), "", IMAGENET, "logits"),
}
INT8 = ["--precision", "int8", "--max-drop", "0.5", "--calibrate"]


def import_case(name: str, folder: Path, *more: str) -> tuple[Path, Path]:
    """The foreign file and the card of the model that was made of it, called ``tiny``."""
    CASES[name].write(folder)
    what = folder / "tiny-model"
    path = what if what.is_dir() else folder / "model.onnx"
    words = ["import", str(path), "--output", str(folder / "models"), "--quiet", "--name", "tiny"]
    assert main([*words, *CASES[name].options.split(), *more]) == 0
    return imported_files(folder)


def imported_files(folder: Path) -> tuple[Path, Path]:
    (file,) = folder.rglob("model.onnx")
    return file, folder / "models" / "tiny.yaml"


def write_frames(folder: Path, count: int = 9) -> Path:
    """Pictures to calibrate on, as PPM files."""
    folder.mkdir()
    for index in range(count):
        rgb_hwc = picture(64, 96, seed=100 + index)
        (folder / f"{index}.ppm").write_bytes(b"P6 96 64 255\n" + rgb_hwc.tobytes())
    return folder


def picture(height: int, width: int, seed: int = 7) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def foreign_outputs(file: Path, case: Case, rgb_hwc: np.ndarray) -> dict[str, torch.Tensor]:
    """What the file itself gives for a picture of its size, float64."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    entry, *unread = session.get_inputs()
    values = rgb_hwc / 255.0 if case.low == 0 else rgb_hwc / 127.5 - 1
    values = (values - np.array(case.normalised[0])) / np.array(case.normalised[1])
    if entry.type in ("tensor(uint8)", "tensor(int64)"):
        values = rgb_hwc
    if 1 in (entry.shape[1], entry.shape[-1]):
        values = (values @ [0.299, 0.587, 0.114])[..., None]
        values = np.floor(values + 0.5005) if entry.type == "tensor(uint8)" else values
    if entry.shape[-1] not in (1, 3):
        values = values.transpose(2, 0, 1)
    kinds: dict[str, type] = {
        "tensor(float16)": np.float16,
        "tensor(uint8)": np.uint8,
        "tensor(int64)": np.int64,
    }
    dtype = kinds.get(entry.type, np.float32)
    names = [output.name for output in session.get_outputs()]
    feeds = {entry.name: values[None].astype(dtype)}
    feeds |= {other.name: np.zeros(other.shape, np.int64) for other in unread}
    found = session.run(names, feeds)
    return {name: torch.from_numpy(v.astype(np.float64)) for name, v in zip(names, found)}  # noqa: B905


def truth(case: Case, outputs: dict[str, torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
    """Depth (H, W), or scores of the classes (C, H, W) that add up to 1."""
    values = list(outputs.values())

    def resized(scores: torch.Tensor) -> torch.Tensor:
        return F.interpolate(scores, size, mode="bilinear", align_corners=False)

    if case.kind == "queries":
        classes, masks = values
        shares = classes.softmax(-1)[..., :-1]
        return torch.einsum("bqc,bqhw->bchw", shares, resized(masks).sigmoid())[0]
    (value,) = values
    value = value[None] if len(value) > 1 else value
    if case.kind in ("depth", "inverse"):
        depth = resized(value.reshape(1, 1, *value.shape[-2:]))[0, 0]
        return depth if case.kind == "depth" else 1 / depth.clamp(1e-8)
    if case.kind == "labels":
        return F.one_hot(value[0, 0].long(), 5).permute(2, 0, 1).double()
    if case.kind == "probabilities":
        return resized(value.permute(0, 3, 1, 2))[0]
    if case.kind == "nhwc":
        value = value.permute(0, 3, 1, 2)
    if case.kind == "one":
        share = resized(value)[0, 0].sigmoid()
        return torch.stack([1 - share, share])
    return resized(value)[0].softmax(0)


def error_hw(want: np.ndarray, got_hw: np.ndarray) -> np.ndarray:
    """By pixel, of depth over the range of ``want``; of labels how much less likely they are than
    the best, 1 for those that the pipeline does not know: where two are as good, rounding decides.
    """
    if want.ndim == 2:
        return np.abs(got_hw - want) / np.ptp(want)
    known_hw = got_hw < len(want)
    labels_1hw = np.where(known_hw, got_hw, 0)[None].astype(np.int64)
    chosen_hw = np.take_along_axis(want, labels_1hw, 0)[0]
    return np.where(known_hw, want.max(axis=0) - chosen_hw, 1.0)
