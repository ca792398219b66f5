"""Folders of colour and depth images: what is read is what was written, damage is named."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from dense_perception.cli import main
from dense_perception.core.errors import InputError
from dense_perception.data.corpus import Corpus
from dense_perception.data.sources import convert_source, open_frames
from test.support.corpora import write_corpus


def write_recording(folder: Path, frames: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """RGB (N, 12, 16, 3) and millimetres (N, 12, 16) that were written."""
    rng = np.random.default_rng(0)
    rgb = np.repeat(rng.integers(0, 256, (frames, 1, 1, 3), dtype=np.uint8), 16, 2)
    rgb = np.repeat(rgb, 12, 1)
    depth = rng.integers(0, 9000, (frames, 12, 16), dtype=np.uint16)
    (folder / "color").mkdir(parents=True)
    (folder / "depth").mkdir()
    for k in range(frames):
        suffix = "jpg" if k % 2 else "png"
        cv2.imwrite(str(folder / "color" / f"{k:04d}.{suffix}"), rgb[k, ..., ::-1])
        cv2.imwrite(str(folder / "depth" / f"{k:04d}.png"), depth[k])
    cameras = {
        f"{k:04d}": {"fx": 20.0 + k, "fy": 21.0, "cx": 7.5, "cy": 5.0} for k in range(frames)
    }
    (folder / "frames.json").write_text(json.dumps(cameras))
    return rgb, depth


def test_a_recording_becomes_a_corpus(tmp_path: Path) -> None:
    rgb, depth = write_recording(tmp_path / "walk", 70)
    code = main(
        [
            "data",
            "convert",
            str(tmp_path / "walk"),
            "--out",
            str(tmp_path / "c"),
            "--licence",
            "MIT",
        ]
    )
    assert code == 0
    corpus = Corpus(tmp_path / "c")
    assert len(corpus) == 70
    assert corpus.description["licence"] == "MIT"
    for k in (0, 63, 64, 69):
        assert np.abs(corpus[k].rgb_hwc.astype(int) - rgb[k]).max() <= 3
        np.testing.assert_allclose(corpus[k].depth_m, depth[k] / 1000, rtol=1e-6)
        assert corpus[k].intrinsics.fx == 20 + k
        assert (corpus[k].intrinsics.width, corpus[k].intrinsics.cy) == (16, 5.0)
    given = cv2.imread(str(tmp_path / "walk" / "color" / "0001.jpg"))
    assert given is not None
    np.testing.assert_array_equal(corpus[1].rgb_hwc, given[..., ::-1], "the file, not a copy")
    with pytest.raises(InputError, match="not empty"):
        convert_source(str(tmp_path / "walk"), tmp_path / "c", licence="MIT")


def test_a_conversion_goes_on_where_it_ended(tmp_path: Path) -> None:
    write_recording(tmp_path / "walk", 130)
    missing = tmp_path / "walk" / "depth" / "0129.png"
    kept = missing.read_bytes()
    missing.unlink()
    with pytest.raises(InputError, match=r"0129\.png"):
        convert_source(str(tmp_path / "walk"), tmp_path / "c")
    first = (tmp_path / "c" / "shard-00000.tar").stat()
    with pytest.raises(InputError, match="other options"):
        convert_source(str(tmp_path / "walk"), tmp_path / "c", unit_m=0.01)
    missing.write_bytes(kept)
    assert convert_source(str(tmp_path / "walk"), tmp_path / "c") == 130
    assert (tmp_path / "c" / "shard-00000.tar").stat().st_mtime_ns == first.st_mtime_ns
    assert len(Corpus(tmp_path / "c")) == 130


def test_an_earlier_corpus_becomes_shards(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "old", frames=5, labels=True)
    earlier = Corpus(root)
    assert convert_source(str(root), tmp_path / "new") == 5
    corpus = Corpus(tmp_path / "new")
    assert corpus.description["generator"] == "closed-form"
    for k in range(5):
        want, got = earlier[k], corpus[k]
        assert got.key == want.key
        assert got.intrinsics == want.intrinsics
        np.testing.assert_allclose(got.depth_m, want.depth_m, atol=0.00051, rtol=0.0006)
        np.testing.assert_array_equal(got.labels_hw, want.labels_hw)
        assert np.abs(got.rgb_hwc.astype(int) - want.rgb_hwc).mean() < 4


def test_poses_and_labels_of_a_folder(tmp_path: Path) -> None:
    write_recording(tmp_path / "walk", 2)
    (tmp_path / "walk" / "labels").mkdir()
    labels = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16) % 3
    for k in range(2):
        cv2.imwrite(str(tmp_path / "walk" / "labels" / f"{k:04d}.png"), labels)
    (tmp_path / "walk" / "classes.txt").write_text("shelf\nrobot\n")
    path = tmp_path / "walk" / "frames.json"
    frames = json.loads(path.read_text())
    # A quarter turn about z: x to y.
    frames["0001"]["pose"] = [0, -1, 0, 1, 1, 0, 0, 2, 0, 0, 1, 3, 0, 0, 0, 1]
    frames["0001"]["stamp_ns"] = 5
    path.write_text(json.dumps(frames))
    convert_source(str(tmp_path / "walk"), tmp_path / "c")
    corpus = Corpus(tmp_path / "c")
    assert corpus.classes == ("shelf", "robot")
    sample = corpus[1]
    np.testing.assert_array_equal(sample.labels_hw, labels)
    half = np.sqrt(0.5)
    np.testing.assert_allclose(sample.camera_7, [1, 2, 3, 0, 0, half, half], atol=1e-6)
    assert (sample.stamp_ns, sample.recording) == (5, "walk")
    assert corpus[0].camera_7 is None


def test_damage_is_named(tmp_path: Path) -> None:
    write_recording(tmp_path / "walk")
    cv2.imwrite(str(tmp_path / "walk" / "depth" / "0001.png"), np.zeros((6, 8), np.uint16))
    with pytest.raises(InputError, match=r"0001\.jpg is uint16 \(6, 8\)"):
        convert_source(str(tmp_path / "walk"), tmp_path / "a")
    (tmp_path / "walk" / "depth" / "0001.png").unlink()
    with pytest.raises(InputError, match=r"depth/0001\.png"):
        convert_source(str(tmp_path / "walk"), tmp_path / "b")
    (tmp_path / "walk" / "frames.json").write_text("{}")
    with pytest.raises(InputError, match="names no frame"):
        convert_source(str(tmp_path / "walk"), tmp_path / "d")


@pytest.mark.parametrize(
    ("place", "advice"),
    [
        ("no", "there is no .*/no: check the path"),
        ("all/raw", 'write frames.json beside it, .*"fx"'),
        ("all", "name the sources in it: .*/all/deep/walk .*/all/tape$"),
        ("all/empty", "check the path, or name a data set"),
    ],
)
def test_what_is_no_source_says_what_is(place: str, advice: str, tmp_path: Path) -> None:
    write_recording(tmp_path / "all" / "deep" / "walk", 1)
    for name in ("raw/color", "empty", "tape"):
        (tmp_path / "all" / name).mkdir(parents=True)
    (tmp_path / "all" / "tape" / "metadata.yaml").touch()
    with pytest.raises(InputError, match=advice):
        open_frames(str(tmp_path / place))


def test_the_unit_of_a_folder_s_depth_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, depth = write_recording(tmp_path / "walk", 1)
    sample = open_frames(str(tmp_path / "walk"), unit_m=0.0002)[0]
    np.testing.assert_allclose(sample.depth_m, depth[0] * 0.0002, rtol=1e-6)
    for wrong in ("0", "-1", "nan"):
        assert main(["evaluate", "m", "--data", str(tmp_path), "--unit", wrong]) == 2
        assert "argument --unit" in capsys.readouterr().err
