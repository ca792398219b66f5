"""Graphs that are not imported: one line each, with the cure."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dense_perception.cli import main
from dense_perception.export.foreign import convert
from dense_perception.export.foreign.hugging_face import folder_facts
from dense_perception.export.model_folder import FolderMaker
from dense_perception.runtime.perceiver import Perceiver
from test.support.foreign_graphs import write_plain

FLOAT = TensorProto.FLOAT


def graph_of(nodes: list[onnx.NodeProto], *inputs: onnx.ValueInfoProto) -> onnx.ModelProto:
    output = helper.make_tensor_value_info("output", FLOAT, None)
    graph = helper.make_graph(nodes, "odd", list(inputs), [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def picture(*shape: int, kind: int = FLOAT, name: str = "input") -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


def five(path: Path) -> None:
    onnx.save(
        graph_of([helper.make_node("Relu", ["input"], ["output"])], picture(1, 2, 3, 48, 64)), path
    )


def two_channels(path: Path) -> None:
    onnx.save(
        graph_of([helper.make_node("Relu", ["input"], ["output"])], picture(1, 2, 48, 64)), path
    )


def gray(path: Path) -> None:
    write_plain(path, colours=1)


def vast(path: Path) -> None:
    write_plain(path, size=(8192, 8192), stride=64)


def vast_free(path: Path) -> None:
    write_plain(path, size=("h", "w"), stride=64)


def two_inputs(path: Path) -> None:
    nodes = [helper.make_node("Add", ["input", "prompt"], ["output"])]
    one, other = picture(1, 3, 48, 64), picture(1, 3, 48, 64, name="prompt")
    onnx.save(graph_of(nodes, one, other), path)


def mask_of_another_size(path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["pixel_mask"], ["counts"], to=FLOAT),
        helper.make_node("ReduceMax", ["counts"], ["largest"]),
        helper.make_node("Mul", ["input", "largest"], ["output"]),
    ]
    mask = picture(1, 9, 9, kind=TensorProto.INT64, name="pixel_mask")
    onnx.save(graph_of(nodes, picture(1, 3, 48, 64), mask), path)


def prompt_mask(path: Path) -> None:
    """As of networks that are told what to cut out."""
    nodes = [helper.make_node("Mul", ["input", "mask_input"], ["output"])]
    mask = picture(1, 1, 48, 64, name="mask_input")
    onnx.save(graph_of(nodes, picture(1, 3, 48, 64), mask), path)


def four_pictures(path: Path) -> None:
    model = onnx.load(write_plain(path))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, path)


def signed_bytes(path: Path) -> None:
    write_plain(path, pixels=TensorProto.INT8)


def in_training(path: Path) -> None:
    node = helper.make_node("Dropout", ["input", "share", "yes"], ["output"])
    model = graph_of([node], picture(1, 3, 48, 64))
    for name, value in (("share", np.float32(0.5)), ("yes", np.array(True))):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    onnx.save(model, path)


def nothing_computed(path: Path) -> None:
    model = graph_of([helper.make_node("Relu", ["input"], ["other"])], picture(1, 3, 48, 64))
    model.graph.output[0].name = "input"
    onnx.save(model, path)


def odd_names(path: Path) -> None:
    write_plain(path, metadata={"names": "{0: 'road', 5: 'car'}"})


def score_with_names(path: Path) -> None:
    write_plain(path, classes=1, metadata={"names": "['wall', 'crack']"})


def small(path: Path) -> None:
    write_plain(path, size=(8, 8))


def own_operator(path: Path) -> None:
    node = helper.make_node("FusedConv", ["input"], ["output"], domain="com.microsoft")
    model = graph_of([node], picture(1, 3, 48, 64))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, path)


def boxes(path: Path) -> None:
    shape = numpy_helper.from_array(np.array([1, 12, -1], np.int64), "shape")
    model = graph_of(
        [helper.make_node("Reshape", ["input", "shape"], ["output"])], picture(1, 3, 48, 64)
    )
    model.graph.initializer.append(shape)
    onnx.save(model, path)


def outside(path: Path) -> None:
    weights = external(path, "../weights.bin")
    assert weights.exists()


def missing(path: Path) -> None:
    external(path, "weights.bin").unlink()


def external(path: Path, location: str) -> Path:
    """The plain graph with its weights in another file."""
    model = onnx.load(write_plain(path))
    file = path.parent / location
    for tensor in model.graph.initializer:
        if tensor.name == "weights":
            file.write_bytes(tensor.raw_data)
            onnx.external_data_helper.set_external_data(tensor, location)
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
    path.write_bytes(model.SerializeToString())
    return file


def yolo(path: Path) -> None:
    write_plain(path, metadata={"author": "Ultralytics", "task": "detect"})


def depth(path: Path) -> None:
    write_plain(path, classes=1, output="predicted_depth")


def score(path: Path) -> None:
    write_plain(path, classes=1)


def many(path: Path) -> None:
    write_plain(path, classes=300, stride=8, size=(96, 128))


def traced(path: Path) -> None:
    write_plain(path, size=("h", "w"), ending="traced")


def last(path: Path) -> None:
    write_plain(path, layout="NHWC")


def circle(path: Path) -> None:
    nodes = [
        helper.make_node("Identity", ["there"], ["output"]),
        helper.make_node("Identity", ["output"], ["there"]),
    ]
    onnx.save(graph_of(nodes, picture(1, 3, 48, 64)), path)


def broken_mean(path: Path) -> None:
    """A constant that is shorter than its shape says."""
    model = graph_of(
        [helper.make_node("Sub", ["input", "mean"], ["output"])], picture(1, 3, 48, 64)
    )
    mean = numpy_helper.from_array(np.zeros((1, 3, 1, 1), np.float32), "mean")
    mean.raw_data = b"abc"
    model.graph.initializer.append(mean)
    onnx.save(model, path)


def unknown_kind(path: Path) -> None:
    onnx.save(
        graph_of([helper.make_node("Relu", ["input"], ["output"])], picture(1, 3, 48, 64, kind=99)),
        path,
    )


def hidden_operator(path: Path) -> None:
    branches = {
        name: helper.make_graph(
            [helper.make_node("Gelu", ["input"], [name], domain="com.microsoft")],
            name,
            [],
            [helper.make_tensor_value_info(name, FLOAT, None)],
        )
        for name in ("then_branch", "else_branch")
    }
    model = graph_of(
        [helper.make_node("If", ["yes"], ["output"], **branches)], picture(1, 3, 48, 64)
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, path)


def function_of_itself(path: Path) -> None:
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    inner = helper.make_node("Again", ["a"], ["b"], domain="own")
    outer = helper.make_node("Again", ["input"], ["output"], domain="own")
    model = graph_of([outer], picture(1, 3, 48, 64))
    model.functions.append(helper.make_function("own", "Again", ["a"], ["b"], [inner], sets))
    model.opset_import.append(sets[1])
    onnx.save(model, path)


def weights_for_all(path: Path) -> None:
    """Many weights that each claim the same large file."""
    file = external(path, "weights.bin")
    with open(file, "r+b") as stream:
        stream.truncate(400 << 20)
    model = onnx.load(path, load_external_data=False)
    claimed = next(t for t in model.graph.initializer if t.name == "weights")
    for index in range(8):
        copy = model.graph.initializer.add()
        copy.CopyFrom(claimed)
        copy.name = f"copy_{index}"
    path.write_bytes(model.SerializeToString())


def no_numbers(path: Path) -> None:
    write_plain(path, spread=float("nan"))


def labels(path: Path) -> None:
    """Whole numbers that nothing counts: -2 to 2."""
    nodes = [
        helper.make_node("ReduceMax", ["input"], ["largest"], axes=[1]),
        helper.make_node("Cast", ["largest"], ["output"], to=TensorProto.INT64),
    ]
    model = graph_of(nodes, picture(1, 3, 48, 64))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("write", "options", "said"),
    [
        (write_plain, "--graph-output logit", "it gives output 1x5x12x16"),
        (five, "", "expected 4 dimensions"),
        (four_pictures, "", "4 pictures at once: export it for a batch of 1"),
        (signed_bytes, "", "takes input int8 1x3x48x64, expected a picture of float32"),
        (in_training, "", "has Dropout as in training"),
        (nothing_computed, "", "computes no tensor"),
        (odd_names, "", "names in the metadata of"),
        (small, "", "export the network for another size"),
        (two_channels, "", "only networks for colour or gray pictures"),
        (gray, "--channels BGR", "leave --channels out"),
        (gray, "--like segformer", "give one number three times"),
        (vast, "", "expected at most 34: export the network for a smaller picture"),
        (vast_free, "--size 8192x8192", "say a smaller one with --size WxH"),
        (two_inputs, "", "takes 2 inputs (input float32 1x3x48x64, prompt"),
        (mask_of_another_size, "", "pixel_mask int64 1x9x9), expected one picture"),
        (prompt_mask, "", "mask_input float32 1x1x48x64), expected one picture"),
        (own_operator, "", "com.microsoft.FusedConv"),
        (boxes, "", "boxes and instances are not imported"),
        (outside, "", "outside of its folder"),
        (missing, "", "download that file"),
        (yolo, "", "only semantic segmentation is imported"),
        (depth, "", "say --depth-kind metric (metres)"),
        (score, "", "say --task depth or --task segmentation"),
        (score_with_names, "", "say --task depth or --task segmentation"),
        (many, "", "expected at most 255"),
        (traced, "", "stays 1x5x12x16 whatever the picture's size"),
        (last, "", "say --pixels unit, bytes or signed"),
        (write_plain, "--labels 7", "the graph gives 5 classes"),
        (write_plain, "--labels nowhere.txt", "which is no file"),
        (write_plain, "--size 640x480", "takes 64x48 alone"),
        (write_plain, "--size big", "expected width and height"),
        (write_plain, "--layout NHWC", "leave --layout out"),
        (write_plain, "--like yolo", "expected one of depth_anything_v2"),
        (write_plain, "--task depth", "which is no depth"),
        (write_plain, "--pad 300", "--pad is 300, expected 0 to 255"),
        (write_plain, "--name My-Net", "expected lower_case_words"),
        (circle, "", "not acyclic"),
        (broken_mean, "", "ONNX Runtime"),
        (unknown_kind, "", "takes input unknown"),
        (hidden_operator, "", "com.microsoft.Gelu"),
        (function_of_itself, "", "without functions of its own"),
        (weights_for_all, "", "one ONNX file holds at most 2 GB"),
        (no_numbers, "", "NaN or infinite"),
        (labels, "--labels 1", "expected 0 to 0: name more"),
        (write_plain, "--labels \u00b2", "which is no file"),
        (write_plain, "--size \u00b2x\u00b2", "expected width and height"),
        (write_plain, "--scores probabilities", "say --scores logits"),
        (write_plain, "--void 300", "expected labels from 0 to 254"),
        (write_plain, "--void 7", "expected labels of 0 to 4"),
        (write_plain, "--depth-scale 2", "expected only with depth"),
        (write_plain, "--pad 9", "expected only with --resize letterbox"),
        (depth, "--depth-kind relative --depth-range 1 2", "expected only with metric depth"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_one_line_says_what_to_do(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    write: Callable[[Path], None],
    options: str,
    said: str,
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "net.onnx")
    out = tmp_path / "out"
    words = ["import", str(folder / "net.onnx"), "--output", str(out), "--quiet"]
    assert main([*words, *options.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not out.exists()


@pytest.mark.parametrize(
    ("processor", "options"),
    [
        ({"image_std": [0, 1, 1]}, "--std 1 1 1"),
        ({"image_mean": [1, 2, 3, 4]}, "--mean 0 0 0"),
        ({"rescale_factor": True}, "--pixels unit"),
        ({"size": "large"}, "--size 64x48"),
    ],
)
def test_an_odd_entry_is_refused_and_its_cure_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], processor: dict[str, object], options: str
) -> None:
    write_plain(tmp_path / "model.onnx", size=("height", "width"))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    words = ["import", str(tmp_path), "--dry-run", "--quiet"]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert next(iter(processor)) in line
    assert options.split()[0] in line
    assert main([*words, *options.split()]) == 0


def test_of_two_imports_of_one_name_the_first_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second, which ends in the middle of the first, is whole; the first says so."""
    first, second = (tmp_path / name / "net.onnx" for name in ("a", "b"))
    for number, path in enumerate((first, second)):
        path.parent.mkdir()
        write_plain(path, classes=3 + number)
    out = tmp_path / "m"
    words = ["--output", str(out), "--quiet", "--name", "net"]
    compare = FolderMaker.compare
    codes = []

    def meanwhile(maker: FolderMaker, *given: object, **named: object) -> object:
        if not codes:
            codes.append(None)
            codes[0] = main(["import", str(second), *words])
        return compare(maker, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(FolderMaker, "compare", meanwhile)
    assert main(["import", str(first), *words]) == 2
    assert codes == [0]
    assert "by now holds net_fp32.onnx, net.yaml" in capsys.readouterr().err
    with Perceiver.load(out / "net.yaml", backend="onnxruntime") as perceiver:
        assert len(perceiver.card.segmentation.names) == 4  # type: ignore[union-attr]
    assert sorted(path.name for path in out.iterdir()) == ["net.yaml", "net_fp32.onnx"]


@pytest.mark.parametrize(
    ("classes", "spread", "said"),
    [(5, 0.0, "at every pixel of 3 different pictures: its weights may be missing"), (5, 1.0, "")],
)
def test_one_answer_to_every_picture_is_warned_of(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    classes: int,
    spread: float,
    said: str,
) -> None:
    """And that the checks take long, where one picture does."""
    monkeypatch.setattr(convert, "_LONG_S", 0.0 if said else 1e9)
    write_plain(tmp_path / "net.onnx", classes=classes, spread=spread)
    words = ["import", str(tmp_path / "net.onnx"), "--output", str(tmp_path / "m"), "--quiet"]
    assert main(words) == 0
    told = capsys.readouterr().err
    assert said in told
    assert ("one picture of 64x48 takes" in told) == bool(said)
    assert ("weights may be missing" in told) == bool(said)


def test_weights_beside_the_file_come_inside(tmp_path: Path) -> None:
    external(tmp_path / "net.onnx", "weights.bin")
    out = tmp_path / "out"
    assert main(["import", str(tmp_path / "net.onnx"), "--output", str(out), "--quiet"]) == 0
    model = onnx.load(out / "net_fp32.onnx", load_external_data=False)
    assert all(t.data_location != TensorProto.EXTERNAL for t in model.graph.initializer)
    again = ["import", str(out / "net_fp32.onnx"), "--quiet"]
    assert main(again) == 2


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {
                "model_type": "depth_anything",
                "depth_estimation_type": "metric",
                "max_depth": 20,
                "backbone_config": {"hidden_size": 384},
            },
            "dense-perception export depth_anything_v2_small_hypersim --weights",
        ),
        (
            {"model_type": "dpt", "hidden_size": 1024, "architectures": ["DPTForDepthEstimation"]},
            "dense-perception export dpt_large_midas --weights",
        ),
        ({"model_type": "segformer"}, "optimum-cli export onnx"),
    ],
)
def test_a_folder_of_weights_says_which_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], config: dict[str, object], said: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert main(["import", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


def test_pytorch_is_not_needed(tmp_path: Path) -> None:
    """In a process in which it refuses to load; int8 included."""
    file = write_plain(tmp_path / "net.onnx")
    frames = tmp_path / "frames"
    frames.mkdir()
    for index in range(8):
        pixels = np.random.default_rng(index).integers(0, 256, (48, 64, 3), np.uint8)
        (frames / f"{index}.ppm").write_bytes(b"P6 64 48 255\n" + pixels.tobytes())
    program = f"""
import sys
for name in ("torch", "transformers", "onnxscript"):
    sys.modules[name] = None  # as if it were not installed
from dense_perception.cli import main
sys.exit(main(["import", {str(file)!r}, "--output", {str(tmp_path / "m")!r}, "--quiet",
    "--precision", "fp16", "int8", "--calibrate", {str(frames)!r}, "--max-drop", "0.5"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [
        *("net.yaml", "net_fp16.onnx", "net_fp32.onnx", "net_int8.onnx")
    ]
    rgb_hwc = np.random.default_rng(9).integers(0, 256, (48, 64, 3), np.uint8)
    answers = []
    for precision in ("fp32", "fp16", "int8"):
        model = tmp_path / "m" / "net.yaml"
        with Perceiver.load(model, precision=precision, backend="onnxruntime") as perceiver:
            labels = perceiver(rgb_hwc).labels
            assert labels is not None
            answers.append(labels.values_hw)
    assert (answers[0] == answers[1]).mean() > 0.99
    assert (answers[0] == answers[2]).mean() > 0.9


def test_steps_that_are_left_out_are_said(tmp_path: Path) -> None:
    write_plain(tmp_path / "model.onnx")
    processor = {"do_center_crop": True, "do_pad": True, "size": {"height": 48, "width": 64}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    (tmp_path / "config.json").write_text('{"architectures": ["SegformerForSemanticSegmentation"]}')
    facts = folder_facts(tmp_path / "model.onnx")
    assert "do_center_crop and do_pad left out" in facts.why("resize")
