"""Graphs of others, imported: answers of their own pipelines, in every runtime on a CPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional as F

from dense_perception.backends.nvidia.tensorrt8_rules import problems
from dense_perception.backends.opening import installed_backends
from dense_perception.cli import main
from dense_perception.core.card import ModelCard
from dense_perception.core.prediction import DepthKind
from dense_perception.runtime.perceiver import Perceiver
from test.support.foreign_cases import (
    CASES,
    INT8,
    KINDS,
    NOTHING,
    Case,
    error_hw,
    foreign_outputs,
    import_case,
    imported_files,
    picture,
    plain,
    truth,
    write_frames,
)
from test.support.foreign_graphs import IMAGENET, write_plain

# Written as these versions of TensorRT read them; every runtime does.
TENSORRT = {"dpt_opset_11": "8.5", "upernet": "8.6"}
Imported = Callable[[str], tuple[Path, Path]]


@pytest.fixture(scope="module")
def imported(made_once: Callable[..., Path]) -> Imported:
    """The foreign file and the card of a case, both made once; of each kind in int8, too."""

    def case(name: str) -> tuple[Path, Path]:
        def write(folder: Path) -> None:
            more: list[str] = []
            if name in KINDS and name != "quantised":
                more = [*INT8, str(write_frames(folder / "frames"))]
                more += ["--tensorrt", TENSORRT[name]] if name in TENSORRT else []
            import_case(name, folder, *more)

        return imported_files(made_once(f"foreign_{name}", write))

    return case


def answered(
    name: str, files: tuple[Path, Path], backend: str, precision: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """What the original pipeline says to a picture, what the model says, and how certain it is."""
    file, card_path = files
    card = ModelCard.from_yaml(card_path)
    height, width = card.input.height, card.input.width
    rgb_hwc = picture(height, width)
    case = CASES[name]
    want = truth(case, foreign_outputs(file, case, rgb_hwc), (height, width)).numpy()
    with Perceiver.load(card_path, backend=backend, precision=precision) as perceiver:
        assert perceiver.selection.backend == backend
        answer = perceiver(rgb_hwc)
    if answer.depth is not None:
        return want, answer.depth.values_hw, None
    assert answer.labels is not None
    return want, answer.labels.values_hw, answer.labels.confidence_hw


@pytest.mark.parametrize("backend", installed_backends())
@pytest.mark.parametrize("name", CASES)
def test_the_answers_are_those_of_the_original_pipeline(
    imported: Imported, name: str, backend: str
) -> None:
    options = CASES[name].options.split()
    assert len([word for word in options if word.startswith("--")]) <= 2
    precision = ModelCard.from_yaml(imported(name)[1]).precision
    want, got_hw, confidence_hw = answered(name, imported(name), backend, precision)
    # Rounding of 16 bits, or of a step of 8, is the graph's own.
    limit = {"fp32": 1e-4, "fp16": 2e-2, "int8": 2e-2}[precision]
    assert error_hw(want, got_hw).max() <= limit
    if confidence_hw is not None:
        certain_hw = np.clip(want.max(axis=0), 0, 1)
        assert np.abs(confidence_hw / 255 - certain_hw).max() <= 0.5 / 255 + limit


@pytest.mark.parametrize("backend", installed_backends())
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_runs_in_int8(imported: Imported, name: str, backend: str) -> None:
    """Near the original pipeline, and nearer than one answer everywhere would be."""
    files = imported(name)
    want, got_hw, _ = answered(name, files, backend, "int8")
    error = error_hw(want, got_hw).mean()
    assert error <= 0.05
    if want.ndim == 2:
        constant_hw = np.full_like(want, np.median(want))
    else:
        constant_hw = np.full(got_hw.shape, want.mean(axis=(1, 2)).argmax())
    assert error < 0.7 * error_hw(want, constant_hw).mean()
    graph = onnx.load(files[1].with_name("tiny_int8.onnx"))
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in graph.graph.node}


@pytest.mark.parametrize("name", TENSORRT)
def test_kinds_are_written_for_old_versions_of_tensorrt(imported: Imported, name: str) -> None:
    major, minor = map(int, TENSORRT[name].split("."))
    for precision in ("fp32", "int8"):
        graph = onnx.load(imported(name)[1].with_name(f"tiny_{precision}.onnx"))
        assert problems(graph, (major, minor)) == []


@pytest.mark.parametrize("backend", installed_backends())
def test_an_fp16_graph_has_its_weights_in_fp32_where_int8_is_made_of_it(
    imported: Imported, backend: str
) -> None:
    files = imported("segformer_fp16")
    want, got_hw, _ = answered("segformer_fp16", files, backend, "fp32")
    assert error_hw(want, got_hw).max() <= 2e-2
    graph = onnx.load(files[1].with_name("tiny_fp32.onnx")).graph
    kinds = {tensor.data_type for tensor in graph.initializer}
    assert onnx.TensorProto.FLOAT16 not in kinds
    assert not any(node.op_type == "Cast" and node.attribute[0].i == 10 for node in graph.node)


def test_a_quantised_graph_is_taken_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And that is said, as whoever asks for int8 may expect frames to be looked at."""
    import_case("quantised", tmp_path, "--precision", "int8", "--calibrate", "/nowhere")
    assert "the graph is int8 already: it is taken as it is" in capsys.readouterr().err
    words = ["import", str(tmp_path / "model.onnx"), "--output", str(tmp_path / "m"), "--quiet"]
    assert main([*words, "--precision", "int8", "fp16"]) == 2
    notice, refusal = capsys.readouterr().err.splitlines()
    assert "the graph is int8 already: it is taken as it is" in notice  # before anything is done
    assert "take the model's fp32 file" in refusal


def test_what_is_known_of_a_folder_goes_into_the_card(
    imported: Imported,
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
    ("name", "precisions"),
    [
        ("dpt_opset_11", ["fp32", "int8"]),
        ("segformer_fp16", ["fp16", "fp32", "int8"]),
        ("quantised", ["int8"]),
    ],
)
def test_the_precision_is_the_graphs(imported: Imported, name: str, precisions: list[str]) -> None:
    _, card_path = imported(name)
    card = ModelCard.from_yaml(card_path)
    assert list(card.files) == precisions
    assert card.precision == precisions[0]
    assert [entry.file for entry in card.files.values()] == [
        f"tiny_{precision}.onnx" for precision in precisions
    ]


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


@pytest.mark.parametrize("stored", ["float64", "bfloat16"])
def test_weights_of_another_type_are_said_and_computed_as_the_graph_says(
    stored: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As files are made small, or come from NumPy: the graph itself casts its weights to fp32."""
    path = write_plain(tmp_path / "net.onnx")
    model = onnx.load(path)
    code = {"float64": TensorProto.DOUBLE, "bfloat16": TensorProto.BFLOAT16}[stored]
    for index, tensor in enumerate(model.graph.initializer):
        name, values = tensor.name, numpy_helper.to_array(tensor)
        kind = helper.tensor_dtype_to_np_dtype(code)
        tensor.CopyFrom(numpy_helper.from_array(values.astype(kind), f"stored_{index}"))
        cast = helper.make_node("Cast", [f"stored_{index}"], [name], to=TensorProto.FLOAT)
        model.graph.node.insert(0, cast)
    onnx.save(model, path)
    words = ["import", str(path), "--output", str(tmp_path / "m"), "--mean", "0", "0", "0"]
    assert main([*words, "--std", "1", "1", "1", "--quiet"]) == 0
    assert f"most of its weights are stored as {stored}" in capsys.readouterr().out
    case = Case(plain(), "", NOTHING, "logits")
    rgb_hwc = picture(48, 64)
    want = truth(case, foreign_outputs(path, case, rgb_hwc), (48, 64)).numpy().argmax(axis=0)
    with Perceiver.load(tmp_path / "m" / "net.yaml", backend="onnxruntime") as perceiver:
        labels = perceiver(rgb_hwc).labels
    assert labels is not None
    assert (labels.values_hw == want).mean() > 0.999


@pytest.mark.parametrize(
    ("kind", "free"),
    [(TensorProto.INT64, False), (TensorProto.BOOL, True), (TensorProto.FLOAT16, False)],
)
def test_a_mask_of_padding_is_filled_with_ones(
    kind: int, free: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The original is told by a mask of ones that every pixel counts."""
    path = write_plain(tmp_path / "net.onnx", size=("h", "w") if free else (48, 64))
    model = onnx.load(path)
    graph, sides = model.graph, ["batch", "h", "w"] if free else [1, 48, 64]
    if free:  # as Optimum writes it: not even the channels are said
        graph.input[0].type.tensor_type.shape.dim[1].dim_param = "num_channels"
    graph.input.append(helper.make_tensor_value_info("pixel_mask", kind, sides))
    graph.initializer.append(numpy_helper.from_array(np.array([1]), "second"))
    added = [
        helper.make_node("Cast", ["pixel_mask"], ["counts"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["counts", "second"], ["planes_mask"]),
        helper.make_node("Mul", ["input", "planes_mask"], ["seen"]),
    ]
    graph.node[0].input[0] = "seen"
    nodes = [*added, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, path)
    words = ["import", str(path), "--output", str(tmp_path / "out"), "--mean", "0", "0", "0"]
    words += ["--std", "1", "1", "1", "--json", "--quiet", *(["--size", "64x48"] if free else [])]
    assert main(words) == 0
    assert '"pixel_mask"' in capsys.readouterr().out
    rgb_hwc = picture(48, 64)
    feeds = {
        "input": rgb_hwc.transpose(2, 0, 1)[None].astype(np.float32) / 255,
        "pixel_mask": np.ones((1, 48, 64), helper.tensor_dtype_to_np_dtype(kind)),
    }
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, feeds)
    want = F.interpolate(torch.from_numpy(scores), (48, 64), mode="bilinear")[0].numpy().argmax(0)
    with Perceiver.load(tmp_path / "out" / "net.yaml", backend="onnxruntime") as perceiver:
        labels = perceiver(rgb_hwc).labels
    assert labels is not None
    assert (labels.values_hw == want).mean() > 0.999


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
