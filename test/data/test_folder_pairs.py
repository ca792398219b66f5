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
from dense_perception.data.folder_pairs import convert


def write_recording(folder: Path, frames: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """RGB (N, 12, 16, 3) and millimetres (N, 12, 16) that were written."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (frames, 12, 16, 3), dtype=np.uint8)
    depth = rng.integers(0, 9000, (frames, 12, 16), dtype=np.uint16)
    (folder / "color").mkdir(parents=True)
    (folder / "depth").mkdir()
    for k in range(frames):
        cv2.imwrite(str(folder / "color" / f"{k:04d}.png"), rgb[k, ..., ::-1])
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
        np.testing.assert_array_equal(corpus[k].rgb_hwc, rgb[k])
        np.testing.assert_allclose(corpus[k].depth_m, depth[k] / 1000, rtol=6e-4)
        assert corpus[k].intrinsics.fx == 20 + k
        assert (corpus[k].intrinsics.width, corpus[k].intrinsics.cy) == (16, 5.0)
    with pytest.raises(InputError, match="not empty"):
        convert(tmp_path / "walk", tmp_path / "c", "MIT")


def test_damage_is_named(tmp_path: Path) -> None:
    write_recording(tmp_path / "walk")
    cv2.imwrite(str(tmp_path / "walk" / "depth" / "0001.png"), np.zeros((6, 8), np.uint16))
    with pytest.raises(InputError, match=r"0001\.png is uint16 \(6, 8\)"):
        convert(tmp_path / "walk", tmp_path / "a", "MIT")
    (tmp_path / "walk" / "depth" / "0001.png").unlink()
    with pytest.raises(InputError, match=r"depth/0001\.png"):
        convert(tmp_path / "walk", tmp_path / "b", "MIT")
    (tmp_path / "walk" / "frames.json").write_text("{}")
    with pytest.raises(InputError, match="names no frame"):
        convert(tmp_path / "walk", tmp_path / "d", "MIT")
