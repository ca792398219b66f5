"""``dense-perception run`` on pictures and videos, with a model whose answers are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from dense_perception import cli
from dense_perception.core.card_specs import DepthSpec
from dense_perception.core.prediction import DepthKind
from dense_perception.media.sinks import millimetres
from dense_perception.runtime.perceiver import Perceiver
from test.support.artefacts import red_card, red_depth, write_red_artefact
from test.support.run_command import SIZE, picture, run, save


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "red_depth.onnx"
    write_red_artefact(path)
    return str(path)


def test_folder_of_pictures(tmp_path: Path, model: str) -> None:
    for index in (2, 10, 1):
        save(tmp_path / f"in/view{index}.png", picture(index))
    (tmp_path / "in/notes.txt").write_text("not a picture")
    output = tmp_path / "out"
    assert run(model, tmp_path / "in", output, "--ply", "--hfov", "53") == 0
    names = {f"view{index}" for index in (1, 2, 10)}
    focal = 32 / np.tan(np.radians(53 / 2))
    for name in names:
        expected = red_depth(picture(int(name[4:])), focal)
        depth = np.load(output / f"depth/{name}.npy", allow_pickle=False)
        assert depth.dtype == np.float32
        np.testing.assert_allclose(depth, expected, rtol=1e-5)
        stored = cv2.imread(str(output / f"depth/{name}.png"), cv2.IMREAD_UNCHANGED)
        assert stored.dtype == np.uint16
        assert np.abs(stored - expected * 1000).max() <= 0.51
        assert cv2.imread(str(output / f"color/{name}.png")).shape == (*SIZE, 3)
        assert cv2.imread(str(output / f"side_by_side/{name}.jpg")).shape[0] == SIZE[0]
        cloud = (output / f"points/{name}.ply").read_bytes()
        assert b"element vertex 3072\n" in cloud
    assert {path.stem for path in (output / "depth").iterdir()} == names
    report = json.loads((output / "run.json").read_text())
    assert (report["answered"], report["intrinsics_assumed"], report["problems"]) == (3, 3, [])


def test_one_bad_picture_does_not_stop_the_others(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(3):
        save(tmp_path / f"in/{index}.jpg", picture(index))
    half = tmp_path / "in/1.jpg"
    half.write_bytes(half.read_bytes()[:700])
    assert run(model, tmp_path / "in", tmp_path / "out", "--json") == 1
    captured = capsys.readouterr()
    assert "1.jpg: the JPEG picture is cut off" in captured.err
    # With nothing answered it could not be done.
    assert run(model, half, tmp_path / "none", "--json") == 2
    assert json.loads(capsys.readouterr().out)["answered"] == 0
    report = json.loads(captured.out)
    assert report["answered"] == 2
    assert sorted(path.name for path in (tmp_path / "out/depth").glob("*.npy")) == [
        "0.npy",
        "2.npy",
    ]


def test_huge_picture_is_answered_scaled_down(tmp_path: Path, model: str) -> None:
    image = np.zeros((6000, 8000, 3), np.uint8)
    image[..., 0] = 255
    save(tmp_path / "huge.jpg", image)
    assert run(model, tmp_path / "huge.jpg", tmp_path / "out", "--no-pictures") == 0
    depth = np.load(tmp_path / "out/depth/huge.npy")
    assert depth.shape == (960, 1280)
    assert not (tmp_path / "out/color").exists()


def test_names_that_would_collide_stay_apart(tmp_path: Path, model: str) -> None:
    save(tmp_path / "in/a.png", picture(0))
    save(tmp_path / "in/a.bmp", picture(1))
    assert run(model, tmp_path / "in", tmp_path / "out") == 0
    stems = {path.stem for path in (tmp_path / "out/depth").iterdir()}
    assert stems == {"a_png", "a_bmp"}


def test_output_is_never_overwritten_silently(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "a.png", picture(0))
    output = tmp_path / "out"
    output.mkdir()
    (output / "thesis.txt").write_text("precious")
    assert run(model, tmp_path / "a.png", output) == 2
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in output.iterdir()] == ["thesis.txt"]
    assert run(model, tmp_path / "a.png", output, "--overwrite") == 0
    assert (output / "thesis.txt").read_text() == "precious"
    assert run(model, tmp_path / "a.png", output / "thesis.txt") == 2


def test_video(tmp_path: Path, model: str) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    assert writer.isOpened(), "the OpenCV wheel that setup.py names writes MJPG"
    for index in range(8):
        writer.write(np.full((48, 64, 3), index * 20, np.uint8))
    writer.release()
    assert run(model, path, tmp_path / "out", "--every", "2", "--limit", "3") == 0
    stems = sorted(path.stem for path in (tmp_path / "out/depth").glob("*.npy"))
    assert stems == ["frame_000000", "frame_000002", "frame_000004"]


def test_calibration_file(tmp_path: Path, model: str) -> None:
    save(tmp_path / "a.png", picture(0, 96, 128))
    calibration = tmp_path / "camera.yaml"
    calibration.write_text(
        "image_width: 64\nimage_height: 48\n"
        "camera_matrix: {rows: 3, cols: 3, data: [64, 0, 31.5, 0, 64, 23.5, 0, 0, 1]}\n"
    )
    options = ("--camera-info", str(calibration), "--size", "network", "--json")
    assert run(model, tmp_path / "a.png", tmp_path / "out", *options) == 0
    report = json.loads((tmp_path / "out/run.json").read_text())
    assert report["intrinsics_assumed"] == 0
    depth = np.load(tmp_path / "out/depth/a.npy")
    assert 1 <= depth.min() <= depth.max() <= 10.001
    for broken in ("", "a: 1", "image_width: x", "[1"):
        calibration.write_text(broken)
        code = run(model, tmp_path / "a.png", tmp_path / "out2", "--camera-info", str(calibration))
        assert code == 2


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nothing_here", "there is no"),
        ("model", "cannot tell what"),
        ("empty_folder", "holds neither pictures"),
        ("fake.mp4", "cannot open"),
    ],
)
def test_wrong_inputs(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str], source: str, words: str
) -> None:
    (tmp_path / "empty_folder").mkdir()
    (tmp_path / "fake.mp4").write_text("no video")
    target = model if source == "model" else str(tmp_path / source)
    assert run(model, target, tmp_path / "out") == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_unknown_model_leaves_no_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "a.png", picture(0))
    assert run("no_such_model", tmp_path / "a.png", tmp_path / "out") == 2
    assert "no_such_model" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_millimetres_keep_what_fits() -> None:
    depth = np.array([[0.0004, 1.2345, 65.535, 65.6, np.nan, np.inf, -1]], np.float32)
    assert millimetres(depth).tolist() == [[0, 1234, 65535, 0, 0, 0, 0]]
    assert millimetres(depth).dtype == np.uint16


def test_relative_depth_is_not_shown_as_metres(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    relative = replace(red_card(), name="relative", depth=DepthSpec(DepthKind.RELATIVE_INVERSE))
    path = tmp_path / "relative.onnx"
    write_red_artefact(path, relative)
    save(tmp_path / "in/view.png", picture(1))
    assert run(str(path), tmp_path / "in", tmp_path / "clouds", "--ply") == 2
    assert "gives relative_inverse depth, which has no metres" in capsys.readouterr().err
    assert run(str(path), tmp_path / "in", tmp_path / "out", "--max-side", "32") == 0
    said = capsys.readouterr().out
    assert "depth/*.npy holds inverse depth up to scale and shift, not metres" in said
    assert "scaled down to 32 pixels on the longest side: 1 answer; --max-side allows more" in said
    report = json.loads((tmp_path / "out/run.json").read_text())
    assert report["depth"] == "inverse depth up to scale and shift, not metres"
    assert not (tmp_path / "out/depth/view.png").exists()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.pt", b"PK", "is a checkpoint, not an exported model: run `dense-perception export"),
        ("x.onnx", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("weights/model.safetensors", b"", "is a folder of weights (model.safetensors)"),
        ("empty/readme.txt", b"", "is a folder without a model card"),
        ("x.engine", b"ptrt", "is no model that can be loaded: name a model, a .yaml card or an"),
    ],
)
def test_what_is_no_model_is_named_with_the_way_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes, says: str
) -> None:
    save(tmp_path / "in/view.png", picture(1))
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    given = path if path.parent == tmp_path else path.parent
    assert run(str(given), tmp_path / "in", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1


def test_an_interruption_keeps_what_is_answered_and_says_130(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "b.png"):
        save(tmp_path / "in" / name, picture(0))
    answer, calls = Perceiver.__call__, []

    def interrupted(self: Perceiver, *arguments: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return answer(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Perceiver, "__call__", interrupted)
    words = ["run", model, "--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    assert cli.main(words) == 130
    assert json.loads((tmp_path / "out/run.json").read_text())["answered"] == 1
    assert "interrupted" in capsys.readouterr().err
