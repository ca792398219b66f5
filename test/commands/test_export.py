"""From a checkpoint to a model folder that the rest of the package takes as it is."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from dense_perception import cli
from dense_perception.backends.onnxruntime import PAIRS_AS_THEY_ARE
from dense_perception.backends.opening import open_backend
from dense_perception.backends.self_check import self_check
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import BackendError
from dense_perception.core.onnx_file import OnnxFile
from dense_perception.core.reference_frames import reference_feeds
from dense_perception.core.registry import find_model
from dense_perception.export import compare, package
from dense_perception.export.compare import Arrays, Difference, runtime_outputs
from dense_perception.export.graph_file import embed_card
from test.export.conftest import VIT, random_network, vit_card
from test.support.onnx_graphs import fp16_nodes, quantized_layers

CARD = vit_card(VIT)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "model.pt"
    torch.save({"model": random_network(CARD).state_dict(), "card": CARD.to_dict()}, path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for index, rgb_hwc in enumerate(reference_feeds(CARD, 6, seed=5)["image"]):
        cv2.imwrite(str(folder / f"{index}.png"), rgb_hwc[..., ::-1])
    return folder


@pytest.fixture(scope="module")
def folder(checkpoint: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("models")
    words = ["export", str(checkpoint), "--output", str(output), "--calibration", str(pictures)]
    precisions = ["--precision", "fp32", "fp16", "int8", "fp8", "--max-drop", "0.05"]
    assert cli.main([*words, *precisions, "--quiet", "--json"]) == 0
    return output


def test_folder_is_a_model(folder: Path) -> None:
    assert sorted(p.name for p in folder.iterdir()) == [
        "vit.yaml",
        "vit_fp16.onnx",
        "vit_fp32.onnx",
        "vit_fp8.onnx",
        "vit_int8.onnx",
    ]
    model = find_model(folder / "vit.yaml")
    assert model.precisions == ("fp32", "fp16", "int8", "fp8")
    for precision in model.precisions:
        file, inside = model.artefact(precision)
        assert inside.precision == precision
        assert inside.network == CARD.network
        assert 0 < inside.parity["mean_of_range"] < inside.parity["max_of_range"]
        onnx.checker.check_model(str(file.path), full_check=True)


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_bytes_are_smaller_and_close(folder: Path, precision: str) -> None:
    fp32, coarse = folder / "vit_fp32.onnx", folder / f"vit_{precision}.onnx"
    assert coarse.stat().st_size < 0.7 * fp32.stat().st_size
    assert len(quantized_layers(onnx.load(coarse))) > 20
    feeds = reference_feeds(CARD, 2, seed=9)
    want = runtime_outputs("onnxruntime", fp32, feeds)["depth"]
    got = runtime_outputs("onnxruntime", coarse, feeds)["depth"]
    assert Difference.between(got, want).mean_of_range < 0.05


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "fp8"])
def test_a_fresh_export_passes_its_own_self_check(
    folder: Path, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = OnnxFile.read(folder / f"vit_{precision}.onnx")
    card = ModelCard.from_onnx(file)
    frames = reference_feeds(card, 3)["image"]
    options = onnxruntime.SessionOptions()
    if precision == "fp8":
        options.add_session_config_entry(*PAIRS_AS_THEY_ARE)
    session = onnxruntime.InferenceSession(file.path, options)
    for name in ("onnxruntime", "openvino"):
        backend = open_backend(name, file)
        found = self_check(card, file, backend, f"{name}_{precision}")
        worst = 0.0
        for image in frames:  # the same by hand
            want = session.run(["depth"], {"image": image[None]})[0]
            got = backend.infer({"image": image[None]})["depth"]
            worst = max(worst, float(np.abs(got - want).max() / np.ptp(want)))
        assert found.max_of_range == pytest.approx(worst, rel=1e-3, abs=1e-9)
        # Room for a runtime on another machine.
        assert 1.9 * worst <= card.parity["max_of_range"]
        backend.close()


def test_the_card_says_what_was_done(folder: Path) -> None:
    card = find_model(folder / "vit.yaml").card
    made = card.provenance["precision"]
    assert set(made) == {"fp16", "int8", "fp8"}
    for precision, limit in (("fp16", 0.002), ("int8", 0.05), ("fp8", 0.05)):
        assert 0 < made[precision]["drop"] <= made[precision]["max_drop"] == limit
        inside = ModelCard.from_onnx(folder / f"vit_{precision}.onnx").provenance["precision"]
        assert inside == {precision: made[precision]}
    assert made["int8"]["calibration"].startswith("pictures")


def test_fp16_is_half_the_size(folder: Path) -> None:
    path = folder / "vit_fp16.onnx"
    assert path.stat().st_size < 0.6 * (folder / "vit_fp32.onnx").stat().st_size
    model = onnx.load(path)
    assert len(fp16_nodes(model)) > 100
    assert {value.type.tensor_type.elem_type for value in model.graph.output} == {1}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--precision", "int8"], "int8 needs frames"),
        (["--precision", "fp8"], "fp8 needs frames"),
        (["--max-drop", "0"], "argument --max-drop: 0 is not above 0"),
        (["--size", "64x64"], "--size goes with NAME"),
    ],
)
def test_wrong_options_are_named(
    words: list[str],
    complaint: str,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["export", str(checkpoint), "--output", str(tmp_path), *words]) == 2
    assert complaint in capsys.readouterr().err


def test_nothing_is_replaced_unasked(
    folder: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert cli.main(["export", str(checkpoint), "--output", str(folder), "--quiet"]) == 2
    assert "already holds vit_fp32.onnx, vit.yaml" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def quick_export(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter takes seconds: use the graph it made for ``folder`` again."""

    def again(network: object, card: ModelCard, *rest: object) -> onnx.ModelProto:
        model = onnx.load(folder / "vit_fp32.onnx")
        embed_card(model, card)
        return model

    monkeypatch.setattr(package, "to_onnx", again)


@pytest.mark.usefixtures("quick_export")
def test_the_bar_says_what_takes_its_time(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At full size each frame of each runtime is a matter of minutes."""
    assert cli.main(["export", str(checkpoint), "--output", str(tmp_path / "models")]) == 0
    said = capsys.readouterr().err
    steps = ["fp32 graph", "PyTorch: frame 1 of 3", "PyTorch: frame 3 of 3", "in onnxruntime"]
    places = [said.index(step) for step in steps]
    assert places == sorted(places)


@pytest.mark.usefixtures("quick_export")
def test_disagreement_leaves_nothing_behind(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = package.to_onnx

    def wrong(network: object, card: ModelCard, *rest: object) -> onnx.ModelProto:
        model = made(network, card, *rest)  # type: ignore[arg-type]
        for tensor in model.graph.initializer:
            values = onnx.numpy_helper.to_array(tensor)
            if values.dtype == np.float32 and values.ndim == 4:
                tensor.CopyFrom(onnx.numpy_helper.from_array(values * 1.01, tensor.name))
        return model

    monkeypatch.setattr(package, "to_onnx", wrong)
    output = tmp_path / "models"
    assert cli.main(["export", str(checkpoint), "--output", str(output), "--quiet"]) == 2
    assert "differs from the network in fp64 by" in capsys.readouterr().err
    assert list(output.iterdir()) == []


@pytest.mark.usefixtures("quick_export")
def test_rounding_is_judged_by_fp64(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Beyond the limit against fp32 PyTorch, a graph as good as PyTorch itself is accepted."""
    monkeypatch.setattr(package, "FP32_LIMIT", Difference(0.0, 0.0))
    monkeypatch.setattr(package, "FP64_TIMES", Difference(10.0, 10.0))
    assert cli.main(["export", str(checkpoint), "--output", str(tmp_path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["files"]
    against = {row["runtime"]: row["max_of_range"] for row in rows if row["against"] == "fp64"}
    assert set(against) == {"PyTorch", "onnxruntime", "openvino"}
    assert 0 < max(against.values()) < 1e-4


@pytest.mark.usefixtures("quick_export")
def test_a_runtime_that_does_not_read_fp8_is_named(
    checkpoint: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def as_openvino_2026_0(name: str, path: Path, feeds: Arrays) -> dict[str, np.ndarray]:
        if name == "openvino" and ModelCard.from_onnx(path).precision == "fp8":
            raise BackendError(f"openvino 2026.0.0 refuses {path}, which is fp8: update openvino")
        return runtime_outputs(name, path, feeds)

    monkeypatch.setattr(compare, "runtime_outputs", as_openvino_2026_0)
    words = ["export", str(checkpoint), "--output", str(tmp_path), "--calibrate", str(pictures)]
    precision = ["--precision", "fp8", "--max-drop", "0.05"]
    assert cli.main([*words, *precision, "--quiet", "--json"]) == 0
    warning = (
        "vit_fp8.onnx was not compared in openvino: openvino 2026.0.0 refuses vit_fp8.onnx, which "
        "is fp8: update openvino"
    )
    said = capsys.readouterr()
    assert said.err.count(warning) == 1
    report = json.loads(said.out)
    assert report["warnings"] == [warning]
    fp8 = [row["runtime"] for row in report["files"] if row["file"] == "vit_fp8.onnx"]
    assert fp8 == ["onnxruntime", "unoptimised", "onnxruntime"]


@pytest.mark.usefixtures("quick_export")
def test_without_calibration_only_fp32(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export", str(checkpoint), "--output", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {row["file"] for row in report["files"]} == {"vit_fp32.onnx"}
    assert {row["runtime"] for row in report["files"]} == {"onnxruntime", "openvino"}
    assert list(ModelCard.from_yaml(Path(report["card"])).files) == ["fp32"]


def test_difference_by_hand() -> None:
    want = np.array([1.0, 2.0, 5.0])
    found = Difference.between(np.array([1.0, 2.4, 5.2]), want)
    assert found.max_of_range == pytest.approx(0.1)
    assert found.mean_of_range == pytest.approx(0.05)
    assert Difference.between(np.array([1.0, np.nan, 5.0]), want).max_of_range == float("inf")
    assert Difference.between(np.ones(3), np.ones(3)) == Difference(0.0, 0.0)
    assert Difference.between(np.ones(3), np.zeros(3)).mean_of_range == float("inf")
    dark = np.array([0, 1, 2], np.uint8)
    assert Difference.between(dark + np.uint8(1), dark) == Difference(0.0, 0.0)
    assert Difference.between(dark + np.uint8(4), dark).max_of_range == pytest.approx(3 / 255)
