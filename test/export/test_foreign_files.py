"""Files given to ``import`` that are none of its: told by their bytes, one line with the cure."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from dense_perception.cli import main
from dense_perception.core.card import ModelCard
from dense_perception.export.foreign.labels import read_labels
from test.support.foreign_graphs import write_plain


def bytes_of(start: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(start + bytes(300))


def zip_of(name: str) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, b"")

    return write


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (Path.touch, "is empty, not an ONNX model: download it again"),
    "no model": (bytes_of(b"\x13\x37 not a model"), "is not an ONNX model ("),
    "pointer": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\n"),
        "git lfs pull",
    ),
    "half a ZIP archive": (bytes_of(b"PK\x03\x04"), "a PyTorch checkpoint or an archive"),
    "checkpoint": (zip_of("net/data.pkl"), "a PyTorch checkpoint, not an ONNX model: export"),
    "archive": (zip_of("deep/net.onnx"), "an archive that holds deep/net.onnx, not an ONNX model"),
    "other archive": (zip_of("a.txt"), "an archive without an ONNX file in it"),
    "Keras": (zip_of("model.weights.h5"), "a Keras model, not an ONNX model: convert it"),
    "gzip": (bytes_of(b"\x1f\x8b"), "a compressed file (gzip), not an ONNX model: unpack it"),
    "tar": (bytes_of(bytes(257) + b"ustar"), "an archive (tar), not an ONNX model: unpack it"),
    "TFLite": (bytes_of(b"\x1c\0\0\0TFL3"), "a TensorFlow Lite model, not an ONNX model: convert"),
    "ORT": (bytes_of(b"\x1c\0\0\0ORTM"), "ONNX Runtime's own format, not an ONNX model: take"),
    "safetensors": (bytes_of(b'\x09\0\0\0\0\0\0\0{"a": 1}'), "weights without a network"),
    "OpenVINO": (bytes_of(b'<?xml version="1.0"?>\n<net name="a">'), "an OpenVINO model, not an"),
    "web page": (
        bytes_of(b"\n<!DOCTYPE html>"),
        "a web page, not an ONNX model: download",
    ),
    "JSON": (lambda path: path.write_text('{"a": 1}'), "give the folder that it is in"),
}


@pytest.mark.parametrize("what", FILES)
def test_another_file_is_named_with_the_cure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    write, said = FILES[what]
    write(tmp_path / "net.onnx")
    out = tmp_path / "out"
    assert main(["import", str(tmp_path / "net.onnx"), "--output", str(out), "--quiet"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "start", "said"),
    [
        ("net.tflite", b"\x1c\0\0\0TFL3", "but net.tflite, which is a TensorFlow Lite model"),
        ("saved_model.pb", b"\x08\x01", "but saved_model.pb, which is a TensorFlow model"),
        ("notes.txt", b"hello", "holds no ONNX file: give one"),
    ],
)
def test_a_folder_of_another_framework_says_what_it_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, start: bytes, said: str
) -> None:
    bytes_of(start)(tmp_path / name)
    assert main(["import", str(tmp_path), "--quiet"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_weights_beside_a_model_are_no_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bytes_of(b"\x08\x08")(tmp_path / "net.onnx.data")
    assert main(["import", str(tmp_path / "net.onnx.data")]) == 2
    assert "give the model's own file" in capsys.readouterr().err


def test_labels_in_every_form(tmp_path: Path) -> None:
    forms = {
        "a.txt": "road\n\ncar\n",
        "windows.txt": "\ufeffroad\r\ncar\r\n",
        "numbered.txt": "0 road\n1: car\n",
        "b.json": '["road", "car"]',
        "c.json": '{"id2label": {"1": "car", "0": "road"}}',
        "d.yaml": "names:\n  0: road\n  1: car\n",
        "e.yaml": "ontology:\n  classes:\n  - {name: road}\n  - {name: car}\n",
    }
    for name, text in forms.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert read_labels(str(tmp_path / name)) == ("road", "car")
    assert len(read_labels("cityscapes")) == 19
    assert read_labels("2") == ("class_0", "class_1")


def test_names_in_the_metadata_are_taken_whoever_wrote_them(tmp_path: Path) -> None:
    """And left alone, however odd, where others are given."""
    for name, metadata, options, want in (
        ("a", "['road', 'car']", [], ("road", "car")),
        ("b", "{0: 'x', 9: 'y'}", ["--labels", "2"], ("class_0", "class_1")),
    ):
        file = write_plain(tmp_path / f"{name}.onnx", classes=2, metadata={"names": metadata})
        assert main(["import", str(file), "--output", str(tmp_path), "--quiet", *options]) == 0
        card = ModelCard.from_yaml(tmp_path / f"{name}.yaml")
        assert card.segmentation is not None
        assert card.segmentation.names == want


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ("{1: 'road', 2: 'car'}", "numbered [1, 2]"),
        ("[['road']]", "label 0 is named"),
        ("{[]: 1}", ""),
        ("{1e999: 'road'}", ""),
    ],
)
def test_odd_names_of_classes_do_not_keep_depth_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], odd: str, said: str
) -> None:
    file = write_plain(
        tmp_path / "net.onnx", classes=1, ending="relu", output="depth", metadata={"names": odd}
    )
    words = ["import", str(file), "--depth-kind", "relative", "--dry-run", "--json"]
    assert main(words) == 0
    settled = {each["what"]: each for each in json.loads(capsys.readouterr().out)["settled"]}
    assert settled["task"]["value"] == "depth"
    assert said in settled.get("names of classes", {"why": ""})["why"]
    assert ("names of classes" in settled) == bool(said)


def test_names_beside_the_graph_are_stronger_than_those_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {
        "architectures": ["SegformerForSemanticSegmentation"],
        "id2label": {"0": "road", "1": "car"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    for names in ("['x', 'y']", "{0: 'x', 9: 'y'}"):
        write_plain(tmp_path / "model.onnx", classes=2, metadata={"names": names})
        assert main(["import", str(tmp_path), "--dry-run"]) == 0
        assert "2: road, car" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("ending", "options", "answer"),
    [("relu", "--depth-kind relative --task depth", "depth"), ("argmax", "--labels 3", "labels")],
)
def test_one_channel_behind_its_sides_needs_no_batch(
    tmp_path: Path, ending: str, options: str, answer: str
) -> None:
    """(H, W, 1) is what (1, H, W, 1) is."""
    answers = []
    for kind in ("Identity", "Squeeze"):
        file = tmp_path / f"{kind.lower()}.onnx"
        classes = 3 if answer == "labels" else 1
        write_plain(file, classes=classes, ending=ending, layout="NHWC")
        model = onnx.load(file)
        if kind == "Squeeze":
            model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "batch"))
            model.graph.node[-1].op_type = kind
            model.graph.node[-1].input.append("batch")
            onnx.save(model, file)
        words = ["import", str(file), "--output", str(tmp_path / "m"), "--quiet"]
        assert main([*words, "--pixels", "unit", *options.split()]) == 0
        session = onnxruntime.InferenceSession(tmp_path / "m" / f"{kind.lower()}_fp32.onnx")
        image_nhwc = np.random.default_rng(0).integers(0, 256, (1, 48, 64, 3)).astype(np.uint8)
        answers.append(session.run([answer], {"image": image_nhwc})[0])
    np.testing.assert_allclose(answers[0], answers[1], rtol=0, atol=1e-5)
    assert np.ptp(answers[0]) > 0


def test_a_model_of_the_package_is_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = str(write_plain(tmp_path / "model.onnx"))
    assert main(["import", file, "--task", "segmentation", "--name", "dpt_tiny_indoor"]) == 2
    assert "would hide: give another --name" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").rglob("*.onnx"))
