"""Graphs of others, imported: answers of their own pipelines, in every runtime on a CPU.

The truth is the foreign file in ONNX Runtime with the preparation written out here and PyTorch's
resizing and softmax behind it; the package's part in it is nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from torch.nn import functional as F

from dense_perception.backends.nvidia.tensorrt8_rules import problems
from dense_perception.backends.opening import installed_backends
from dense_perception.cli import main
from dense_perception.core.card import ModelCard
from dense_perception.core.prediction import DepthKind
from dense_perception.core.reference_frames import reference_feeds
from dense_perception.core.registry import find_model
from dense_perception.export.compare import runtime_outputs
from dense_perception.runtime.perceiver import Perceiver
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


CASES = {
    "dpt_opset_11": Case(network("dpt", opset=11), "--like dpt", HALVES, "depth"),
    "depth_anything_folder": Case(folder_of("depth_anything", DA), "", IMAGENET, "depth"),
    "segformer_folder_opset_20_free": Case(
        folder_of("segformer", SEGFORMER, opset=20, free=True), "", IMAGENET, "logits"
    ),
    "segformer_fp16": Case(network("segformer", half=True), "--like segformer", IMAGENET, "logits"),
    "upernet": Case(network("upernet"), "", IMAGENET, "logits"),
    "mask2former": Case(network("mask2former"), "", IMAGENET, "queries"),
    "mmseg_argmax": Case(plain(ending="argmax", stride=1), "--like mmseg", IMAGENET, "labels"),
    "tflite_nhwc": Case(
        plain(layout="NHWC", ending="softmax"), "--pixels signed", NOTHING, "probabilities", -1.0
    ),
    "bytes_nhwc": Case(
        plain(layout="NHWC", pixels=onnx.TensorProto.UINT8, spread=0.01), "", NOTHING, "nhwc"
    ),
    "quantised": Case(plain(quantised=True), "--like mmseg", IMAGENET, "logits"),
    "free_sides": Case(
        plain(size=("h", "w")), "--size 64x48 --labels generated_rooms", IMAGENET, "logits"
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
}
CASES["free_sides"] = CASES["free_sides"]._replace(write=plain(size=("h", "w"), classes=25))


@pytest.fixture(scope="module")
def imported(made_once: Callable[..., Path]) -> Callable[[str], tuple[Path, Path]]:
    """The foreign file and the card of a case, both made once."""

    def case(name: str) -> tuple[Path, Path]:
        def write(folder: Path) -> None:
            CASES[name].write(folder)
            what = folder / "tiny-model"
            path = what if what.is_dir() else folder / "model.onnx"
            words = ["import", str(path), "--output", str(folder / "models"), "--quiet"]
            assert main([*words, "--name", "tiny", *CASES[name].options.split()]) == 0

        folder = made_once(f"foreign_{name}", write)
        (file,) = folder.rglob("model.onnx")
        return file, folder / "models" / "tiny.yaml"

    return case


def picture(height: int, width: int) -> np.ndarray:
    coarse = np.random.default_rng(7).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def foreign_outputs(file: Path, case: Case, rgb_hwc: np.ndarray) -> dict[str, torch.Tensor]:
    """What the file itself gives for a picture of its size, float64."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    values = rgb_hwc / 255.0 if case.low == 0 else rgb_hwc / 127.5 - 1
    values = (values - np.array(case.normalised[0])) / np.array(case.normalised[1])
    if entry.type == "tensor(uint8)":
        values = rgb_hwc
    if 1 in (entry.shape[1], entry.shape[-1]):
        values = (values @ [0.299, 0.587, 0.114])[..., None]
        values = np.floor(values + 0.5005) if entry.type == "tensor(uint8)" else values
    if entry.shape[-1] not in (1, 3):
        values = values.transpose(2, 0, 1)
    kinds = {"tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
    dtype = kinds.get(entry.type, np.float32)
    names = [output.name for output in session.get_outputs()]
    found = session.run(names, {entry.name: values[None].astype(dtype)})
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


@pytest.mark.parametrize("backend", installed_backends())
@pytest.mark.parametrize("name", CASES)
def test_the_answers_are_those_of_the_original_pipeline(
    imported: Callable[[str], tuple[Path, Path]], name: str, backend: str
) -> None:
    case, (file, card_path) = CASES[name], imported(name)
    assert len([word for word in case.options.split() if word.startswith("--")]) <= 2
    card = ModelCard.from_yaml(card_path)
    height, width = card.input.height, card.input.width
    rgb_hwc = picture(height, width)
    want = truth(case, foreign_outputs(file, case, rgb_hwc), (height, width)).numpy()
    with Perceiver.load(card_path, backend=backend) as perceiver:
        assert perceiver.selection.backend == backend
        answer = perceiver(rgb_hwc)
    # Rounding of 16 bits, or of a step of 8, is the graph's own.
    limit = {"fp32": 1e-4, "fp16": 2e-2, "int8": 2e-2}[card.precision]
    if want.ndim == 2:
        assert answer.depth is not None
        valid = np.isfinite(answer.depth.values_hw)
        assert valid.all()
        spread = np.ptp(want)
        assert np.abs(answer.depth.values_hw - want).max() <= limit * spread
        return
    assert answer.labels is not None
    labels_hw, best_hw = answer.labels.values_hw, want.max(axis=0)
    # Where two classes are as good, rounding decides.
    chosen_hw = np.take_along_axis(want, labels_hw[None].astype(np.int64), 0)[0]
    assert (best_hw - chosen_hw).max() <= limit
    certain_hw = answer.labels.confidence_hw / 255
    assert np.abs(certain_hw - np.clip(best_hw, 0, 1)).max() <= 0.5 / 255 + limit


def test_what_is_known_of_a_folder_goes_into_the_card(
    imported: Callable[[str], tuple[Path, Path]],
) -> None:
    depth = ModelCard.from_yaml(imported("depth_anything_folder")[1])
    assert depth.depth is not None
    assert depth.depth.kind is DepthKind.RELATIVE_INVERSE
    assert depth.licence["weights"] == "apache-2.0"
    assert (depth.input.interpolation, depth.input.restore) == ("cubic", "cubic")
    labels = ModelCard.from_yaml(imported("segformer_folder_opset_20_free")[1])
    assert labels.segmentation is not None
    names = labels.segmentation.label_set.labels
    assert names == ("wall", "floor", "chair", "robot", "wall_2")
    assert ModelCard.from_yaml(imported("upernet")[1]).licence["weights"].startswith("unknown")


@pytest.mark.parametrize(
    ("name", "precision"),
    [("dpt_opset_11", "fp32"), ("segformer_fp16", "fp16"), ("quantised", "int8")],
)
def test_the_precision_is_the_graphs(
    imported: Callable[[str], tuple[Path, Path]], name: str, precision: str
) -> None:
    _, card_path = imported(name)
    card = ModelCard.from_yaml(card_path)
    assert list(card.files) == [precision] == [card.precision]
    file = card_path.parent / card.files[precision].file
    assert file.name == f"tiny_{precision}.onnx"
    kinds = {node.op_type for node in onnx.load(file).graph.node}
    assert ("DequantizeLinear" in kinds) == (precision == "int8")


@pytest.mark.parametrize(
    ("name", "tensorrt"),
    [("dpt_opset_11", "8.5"), ("tflite_nhwc", ""), ("upernet", "8.6"), ("mmseg_argmax", "")],
)
def test_a_foreign_graph_becomes_int8(
    imported: Callable[[str], tuple[Path, Path]], name: str, tensorrt: str, tmp_path: Path
) -> None:
    """Close to its own fp32 file in every runtime; with --tensorrt in that version's words."""
    file, _ = imported(name)
    for index, rgb_hwc in enumerate(
        reference_feeds(ModelCard.from_yaml(imported(name)[1]), 9)["image"]
    ):
        cv2.imwrite(str(tmp_path / f"{index}.png"), rgb_hwc[..., ::-1])
    words = ["import", str(file), "--quiet", "--name", "tiny", "--output", str(tmp_path / "m")]
    words += ["--precision", "int8", "--calibrate", str(tmp_path), "--max-drop", "0.05"]
    words += ["--tensorrt", tensorrt] if tensorrt else []
    assert main([*words, *CASES[name].options.split()]) == 0
    model = find_model(tmp_path / "m" / "tiny.yaml")
    assert model.precisions == ("fp32", "int8")
    for precision in model.precisions:
        graph = onnx.load(model.artefact(precision)[0].path)
        if tensorrt:
            major, minor = map(int, tensorrt.split("."))
            assert problems(graph, (major, minor)) == []
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in graph.graph.node}
    feeds = reference_feeds(model.card, 2, seed=4)
    want = runtime_outputs("onnxruntime", model.artefact("fp32")[0].path, feeds)
    for backend in installed_backends():
        got = runtime_outputs(backend, model.artefact("int8")[0].path, feeds)
        if "depth" in want:
            assert np.abs(got["depth"] - want["depth"]).mean() <= 0.05 * np.ptp(want["depth"])
        else:
            assert (got["labels"] == want["labels"]).mean() > 0.9


def test_free_sides_and_a_rule_take_every_aspect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --size the sizes stay free; the picture keeps its aspect, and so does the answer."""
    file = write_plain(
        tmp_path / "free.onnx", classes=1, ending="relu", size=("h", "w"), output="depth"
    )
    out = tmp_path / "models"
    options = ["--like", "depth_anything_v2", "--quiet", "--output", str(out)]
    assert main(["import", str(file), *options, "--size", "56x56", "--name", "one"]) == 0
    assert ModelCard.from_yaml(out / "one.yaml").input.resize == "stretch"
    # Its maps are a quarter of 56, but no whole part of 518: then one size is all that is right.
    assert main(["import", str(file), *options, "--dry-run"]) == 0
    assert "free.onnx" in (told := capsys.readouterr().out)
    assert "518x518 alone, stretched" in told
    every = write_plain(
        tmp_path / "every.onnx", classes=1, stride=7, size=("h", "w"), output="depth"
    )
    assert main(["import", str(every), *options]) == 0
    assert ModelCard.from_yaml(out / "every.yaml").input.free
    rgb_hwc = picture(280, 420)
    with Perceiver.load(out / "every.yaml", backend="onnxruntime", output_size="network") as p:
        answer = p(rgb_hwc)
        assert (answer.width, answer.height) == (784, 518)


def test_two_outputs_become_two_tasks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = onnx.load(write_plain(tmp_path / "a.onnx", classes=1, ending="relu", output="depth"))
    other = onnx.load(write_plain(tmp_path / "b.onnx", classes=4, output="classes"))
    other = onnx.compose.add_prefix(other, "b/", rename_inputs=False, rename_outputs=False)
    first.graph.node.extend(other.graph.node)
    first.graph.initializer.extend(other.graph.initializer)
    first.graph.output.extend(other.graph.output)
    onnx.save(first, tmp_path / "both.onnx")
    words = ["import", str(tmp_path / "both.onnx"), "--output", str(tmp_path / "m"), "--quiet"]
    assert main(words) == 2
    assert "--graph-output NAME" in capsys.readouterr().err
    words += ["--graph-output", "depth", "classes", "--depth-kind", "relative"]
    assert main(words) == 0
    with Perceiver.load(tmp_path / "m" / "both.yaml", backend="onnxruntime") as perceiver:
        answer = perceiver(picture(48, 64))
    assert perceiver.card.task == "multitask"
    assert answer.depth is not None
    assert answer.labels is not None


def test_void_threshold_and_colours_in_bgr(tmp_path: Path) -> None:
    file = write_plain(tmp_path / "net.onnx", classes=3, stride=1, ending="softmax")
    names = tmp_path / "names.txt"
    names.write_text("floor\nwall\nnothing\n")
    out = tmp_path / "m"
    words = ["import", str(file), "--output", str(out), "--quiet", "--channels", "BGR"]
    words += ["--labels", str(names), "--void", "2", "--threshold", "0.6"]
    assert main(words) == 0
    rgb_hwc = picture(48, 64)
    case = Case(plain(), "", IMAGENET, "x")
    outputs = foreign_outputs(file, case, rgb_hwc[..., ::-1])
    shares = outputs["output"][0].numpy()
    want = shares.argmax(axis=0)
    want[(want == 2) | (shares.max(axis=0) < 0.6)] = 255
    with Perceiver.load(out / "net.yaml", backend="onnxruntime") as perceiver:
        labels = perceiver(rgb_hwc).labels
    assert labels is not None
    assert (labels.values_hw == want).mean() > 0.999
    assert labels.labels.labels == ("floor", "wall", "nothing")


def test_ultralytics_metadata_says_everything(tmp_path: Path) -> None:
    metadata = {
        "author": "Ultralytics",
        "task": "semantic",
        "names": "{0: 'road', 1: 'car'}",
        "imgsz": "[48, 64]",
        "license": "AGPL-3.0",
    }
    file = write_plain(tmp_path / "yolo.onnx", classes=2, metadata=metadata)
    assert main(["import", str(file), "--output", str(tmp_path / "m"), "--quiet"]) == 0
    card = ModelCard.from_yaml(tmp_path / "m" / "yolo.yaml")
    assert (card.input.resize, card.input.pad) == ("letterbox", (114, 114, 114))
    assert card.segmentation is not None
    assert card.segmentation.names == ("road", "car")
    assert card.licence["weights"] == "AGPL-3.0"
    # A picture of another aspect: its answer is that of the letterbox, cut out.
    rgb_hwc = picture(48, 32)
    boxed = np.full((48, 64, 3), 114, np.uint8)
    boxed[:, 16:48] = rgb_hwc
    case = Case(plain(), "", NOTHING, "logits")
    want = truth(case, foreign_outputs(file, case, boxed), (48, 64)).numpy().argmax(axis=0)
    with Perceiver.load(tmp_path / "m" / "yolo.yaml", backend="onnxruntime") as perceiver:
        labels = perceiver(rgb_hwc).labels
    assert labels is not None
    assert (labels.values_hw == want[:, 16:48]).mean() > 0.999


@pytest.mark.parametrize(
    ("operator", "number", "pixels"),
    [("Div", 255.0, "bytes"), ("Mul", 1 / 127.5, "bytes"), ("Sub", 0.485, "unit"),
     ("Mul", 4.4, "unit")],
)  # fmt: skip
def test_a_graph_that_normalises_itself_is_fed_plain_pixels(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    operator: str,
    number: float,
    pixels: str,
) -> None:
    model = onnx.load(write_plain(tmp_path / "net.onnx"))
    (conv,) = [node for node in model.graph.node if node.op_type == "Conv"]
    conv.input[0] = "normalised"
    node = onnx.helper.make_node(operator, ["input", "number"], ["normalised"])
    model.graph.node.insert(0, node)
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.array(number, np.float32), "number")
    )
    onnx.save(model, tmp_path / "net.onnx")
    assert main(["import", str(tmp_path / "net.onnx"), "--dry-run", "--json", "--quiet"]) == 0
    told = json.loads(capsys.readouterr().out)["settled"]
    settled = {each["what"]: each["value"] for each in told}
    assert (settled["pixels"], settled["mean"], settled["std"]) == (pixels, "0 0 0", "1 1 1")


def test_every_choice_is_shown_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_plain(tmp_path / "net.onnx", classes=19)
    ontology = tmp_path / "ontology.yaml"
    classes = [{"name": f"thing {index}"} for index in range(18)]
    ontology.write_text(yaml.safe_dump({"ontology": {"classes": classes}}))
    assert main(["import", str(file), "--dry-run", "--json"]) == 0
    settled = {each["what"]: each for each in json.loads(capsys.readouterr().out)["settled"]}
    assert settled["layout"] == {
        "what": "layout",
        "value": "NCHW",
        "why": "input input is 1x3x48x64: the second side is 3",
    }
    assert "--labels cityscapes" in settled["classes"]["why"]
    words = ["import", str(file), "--dry-run", "--like", "nav2", "--labels", str(ontology)]
    assert main(words) == 0
    assert "19: background, thing 0" in capsys.readouterr().out
    assert not list(tmp_path.glob("**/*_fp32.onnx"))
