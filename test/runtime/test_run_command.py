"""``dense-perception run`` from end to end, with a model whose answers are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dense_perception import cli
from dense_perception.imaging.encodings import decode_depth
from dense_perception.runtime.bag_reader import BagReader
from dense_perception.runtime.sinks import millimetres
from test.support import recordings as bags
from test.support.artefacts import red_depth, write_red_artefact

SIZE = (48, 64)
COUNT = 6


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "red_depth.onnx"
    write_red_artefact(path)
    return str(path)


def picture(seed: int, height: int = SIZE[0], width: int = SIZE[1]) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def save(path: Path, rgb_hwc: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.ascontiguousarray(rgb_hwc[..., ::-1]))


def run(model: str, source: Path | str, output: Path, *options: str) -> int:
    words = ["run", model, "--input", str(source), "--output", str(output), "--quiet"]
    return cli.main([*words, "--backend", "onnxruntime", "--threads", "1", *options])


def colour_bag(folder: Path, *, count: int = COUNT, **changes: Any) -> Path:
    messages: list[tuple[str, int, Any]] = []
    for index in range(count):
        time_ns = 1_000_000_000 + index * 100_000_000
        stamp_ns = time_ns - 7_654_321
        messages.append(("/cam/image_raw", time_ns, bags.image(picture(index), "rgb8", stamp_ns)))
        info = bags.camera_info(SIZE[1], SIZE[0], 80.0, stamp_ns)
        messages.append(("/cam/camera_info", time_ns + 1, info))
    return bags.write_bag(folder, messages, **changes)


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


@pytest.mark.parametrize(
    ("storage", "compression"), [("mcap", "none"), ("mcap", "storage"), ("sqlite3", "file")]
)
def test_bag_to_bag_keeps_headers_and_scales_the_calibration(
    tmp_path: Path, model: str, storage: str, compression: str
) -> None:
    source = colour_bag(tmp_path / "bag", storage=storage, compression=compression)
    assert run(model, source, tmp_path / "out", "--bag", "--ply", "--size", "network") == 0
    with BagReader(tmp_path / "out/bag") as bag:
        assert {topic.name: topic.count for topic in bag.topics} == {
            f"/depth_node/{name}": COUNT
            for name in ("depth/image", "depth/camera_info", "depth/color", "points")
        }
        answers: dict[str, list[Any]] = {topic.name: [] for topic in bag.topics}
        for message in bag.messages():
            answers[message.topic].append((message.time_ns, bag.deserialize(message)))
    for index in range(COUNT):
        time_ns = 1_000_000_000 + index * 100_000_000
        expected = red_depth(picture(index), 80.0)
        for values in answers.values():
            recorded_ns, content = values[index]
            stamp = content.header.stamp
            assert recorded_ns == time_ns
            assert stamp.sec * 1_000_000_000 + stamp.nanosec == time_ns - 7_654_321
            assert content.header.frame_id == "camera_optical"
        image = answers["/depth_node/depth/image"][index][1]
        depth = decode_depth(image.encoding, image.width, image.height, image.step, image.data)
        np.testing.assert_allclose(depth, expected, rtol=1e-5)
        info = answers["/depth_node/depth/camera_info"][index][1]
        np.testing.assert_allclose(info.k, [80, 0, 31.5, 0, 80, 23.5, 0, 0, 1])
        np.testing.assert_allclose(info.d, [0.1, 0.2, 0.3, 0.4, 0.5])
        cloud = answers["/depth_node/points"][index][1]
        assert (cloud.width, cloud.height, cloud.point_step) == (64, 48, 16)
        points = cloud.data.reshape(48, 64, 16)[..., :12].copy().view("<f4")
        np.testing.assert_allclose(points[..., 2], expected, rtol=1e-5)
        np.testing.assert_allclose(
            points[..., 0], expected * (np.arange(64) - 31.5) / 80, rtol=1e-4, atol=1e-5
        )


def test_compressed_images_and_other_size(tmp_path: Path, model: str) -> None:
    flat = np.zeros((96, 128, 3), np.uint8)
    flat[..., 0] = 200
    messages = [
        ("/cam/image_raw/compressed", index + 1, bags.compressed(flat, index + 1))
        for index in range(3)
    ]
    messages.append(("/cam/camera_info", 9, bags.camera_info(128, 96, 128.0, 9)))
    source = bags.write_bag(tmp_path / "bag", messages)
    assert run(model, source, tmp_path / "out") == 0
    depth = np.load(tmp_path / "out/depth/frame_000000.npy")
    # The calibration was recorded after the frames and is used all the same.
    np.testing.assert_allclose(depth, 1 + 9 * 200 / 255, rtol=0.02)


def test_bag_cut_in_half(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = colour_bag(tmp_path / "bag", count=20)
    file = bags.storage_file(source)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert run(model, source, tmp_path / "out", "--no-pictures", "--json") == 1
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert 8 <= report["answered"] <= 10
    assert report["intrinsics_assumed"] == 0
    assert len(list((tmp_path / "out/depth").glob("*.npy"))) == report["answered"]
    assert "cut off or damaged" in captured.err


def test_bad_messages_in_a_bag_are_named_and_the_rest_answered(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    good = picture(0)
    messages = [
        ("/cam/image", 1, bags.image(good, "rgb8", 1)),
        ("/cam/image", 2, bags.image(good, "rgb8", 2, step=3)),
        ("/cam/image", 3, bags.image(good, "rgb8", 3, data=good.reshape(-1)[:100])),
        ("/cam/image", 4, bags.image(good, "pink8", 4)),
        ("/cam/image", 5, bags.image(good, "rgb8", 5, width=0)),
        ("/cam/image", 6, bags.image(good, "rgb8", 6)),
    ]
    source = bags.write_bag(tmp_path / "bag", messages)
    assert run(model, source, tmp_path / "out", "--json") == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["answered"] == 2
    for words in ("step is 3", "100 bytes", "'pink8'", "0x48"):
        assert words in captured.err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"k": np.zeros(9)}, "fx is 0.0"),
        ({"k": np.full(9, np.nan)}, "fx is nan"),
        ({"width": 1000, "height": 48}, "1000x48"),
    ],
)
def test_useless_calibration_is_said_and_a_field_of_view_assumed(
    tmp_path: Path,
    model: str,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    words: str,
) -> None:
    calibration = bags.camera_info(64, 48, 80.0, 0)
    for name, value in changes.items():
        object.__setattr__(calibration, name, value)
    messages: list[tuple[str, int, Any]] = [
        ("/cam/camera_info", 0, calibration),
        ("/cam/image", 1, bags.image(picture(0), "rgb8", 1)),
        ("/cam/image", 2, bags.image(picture(1), "rgb8", 2)),
    ]
    source = bags.write_bag(tmp_path / "bag", messages)
    assert run(model, source, tmp_path / "out", "--json") == 1
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert (report["answered"], report["intrinsics_assumed"]) == (2, 2)
    assert captured.err.count(words) == 1


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
