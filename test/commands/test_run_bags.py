"""``dense-perception run`` on bags: headers kept, calibrations scaled, damage named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dense_perception.imaging.encodings import decode_depth
from dense_perception.media.bag_reader import BagReader
from test.support import recordings as bags
from test.support.artefacts import red_depth, write_red_artefact
from test.support.run_command import SIZE, picture, run

COUNT = 6


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "red_depth.onnx"
    write_red_artefact(path)
    return str(path)


def colour_bag(folder: Path, *, count: int = COUNT, **changes: Any) -> Path:
    messages: list[tuple[str, int, Any]] = []
    for index in range(count):
        time_ns = 1_000_000_000 + index * 100_000_000
        stamp_ns = time_ns - 7_654_321
        messages.append(("/cam/image_raw", time_ns, bags.image(picture(index), "rgb8", stamp_ns)))
        info = bags.camera_info(SIZE[1], SIZE[0], 80.0, stamp_ns)
        messages.append(("/cam/camera_info", time_ns + 1, info))
    return bags.write_bag(folder, messages, **changes)


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
        np.testing.assert_allclose(info.d, [-0.2, 0.05, 0.001, -0.002, 0.01])
        cloud = answers["/depth_node/points"][index][1]
        assert (cloud.width, cloud.height, cloud.point_step) == (64, 48, 16)
        points = cloud.data.reshape(48, 64, 16)[..., :12].copy().view("<f4")
        np.testing.assert_allclose(points[..., 2], expected, rtol=1e-5)
        # Each point lands on its pixel, through the lens.
        points, none, k = points.reshape(-1, 3).astype(np.float64), np.zeros(3), info.k
        pixels = cv2.projectPoints(points, none, none, k.reshape(3, 3), info.d)[0][:, 0]
        rows, columns = np.divmod(np.arange(48 * 64), 64)
        np.testing.assert_allclose(pixels, np.stack([columns, rows], 1), atol=0.01)


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


@pytest.mark.parametrize("output", [".", "bag", "bag/answers"])
def test_the_input_is_never_written_over(
    tmp_path: Path, model: str, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = colour_bag(tmp_path / "rec" / "bag")
    before = {file.name: file.read_bytes() for file in source.iterdir()}
    assert run(model, source, tmp_path / "rec" / output, "--bag", "--overwrite") != 0
    assert "would write over --input" in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in source.iterdir()} == before


def test_only_own_answers_are_replaced(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = colour_bag(tmp_path / "source")
    out = tmp_path / "out"
    assert run(model, source, out, "--bag") == 0
    assert run(model, source, out, "--bag", "--overwrite") == 0
    settings, recording = tmp_path / "settings", tmp_path / "other"
    (settings / "bag").mkdir(parents=True)
    (settings / "bag" / "metadata.yaml").write_text("mine: 1")
    colour_bag(recording / "bag")
    for folder in (settings, recording):
        before = {file: file.read_bytes() for file in (folder / "bag").iterdir()}
        assert run(model, source, folder, "--bag", "--overwrite") != 0
        assert "is not an earlier answer" in capsys.readouterr().err
        assert {file: file.read_bytes() for file in (folder / "bag").iterdir()} == before
