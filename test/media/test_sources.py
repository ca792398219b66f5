"""Pictures and videos as sources of frames."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from dense_perception.core.storage import atomic_write
from dense_perception.media.sources import open_source


def test_each_video_frame_has_its_own_stamp(tmp_path: Path) -> None:
    path = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for value in range(5):
        writer.write(np.full((48, 64, 3), 40 * value, np.uint8))
    writer.release()
    items = list(open_source(str(path)))
    assert [item.time_ns // 1_000_000 for item in items] == [0, 100, 200, 300, 400]
    assert [round(item.frame.rgb_hwc.mean() / 40) for item in items] == [0, 1, 2, 3, 4]


def test_pictures_of_10_bits_are_doubted_until_told(tmp_path: Path) -> None:
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    cv2.imwrite(str(tmp_path / "a.png"), gray.astype(np.uint16) << 2)
    source = open_source(str(tmp_path))
    (item,) = source
    assert item.frame.rgb_hwc.max() < 4
    assert "only use 10 bits" in source.problems[0]
    assert "--bits 10" in source.problems[0]
    source = open_source(str(tmp_path), bits=10)
    (item,) = source
    assert np.array_equal(item.frame.rgb_hwc[..., 0], gray)
    assert source.problems == []


def test_no_two_pictures_share_a_name(tmp_path: Path) -> None:
    long, other = "x" * 249, "x" * 248 + "y"
    files = ["a.png", "a.jpg", "a_png.png", "b.JPG", "B.png", f"{long}.png", f"{other}.png"]
    for name in files:
        cv2.imwrite(str(tmp_path / name.replace("JPG", "jpg")), np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "b.jpg").rename(tmp_path / "b.JPG")
    names = [item.name for item in open_source(str(tmp_path))]
    assert len({name.casefold() for name in names}) == len(files)
    assert {"a_jpg", "a_png", "a_png_2"} <= set(names)
    for name in names:
        with atomic_write(tmp_path / f"{name}.png") as stream:
            stream.write(b"answer")


def test_pictures_that_are_left_out_are_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4, 3), np.uint8))
    for name in ("._a.png", "IMG_1.HEIC", "b.tif", ".DS_Store"):
        (tmp_path / name).write_bytes(b"Mac OS X")
    source = open_source(str(tmp_path))
    assert [item.name for item in source] == ["a"]
    (problem,) = source.problems
    assert "2 pictures of" in problem
    assert problem.endswith("convert IMG_1.HEIC, b.tif")
