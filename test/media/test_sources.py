"""Pictures and videos as sources of frames."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from dense_perception.core.errors import InputError
from dense_perception.core.storage import atomic_write
from dense_perception.imaging.messages import ImageReader
from dense_perception.media.problems import Problems
from dense_perception.media.sources import PictureSource, open_source


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
    source = open_source(str(tmp_path), reader=ImageReader(10))
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
    for name in ("._a.png", "IMG_1.HEIC", "b.jp2", ".DS_Store"):
        (tmp_path / name).write_bytes(b"Mac OS X")
    source = open_source(str(tmp_path))
    assert [item.name for item in source] == ["a"]
    (problem,) = source.problems
    assert "2 pictures of" in problem
    assert problem.endswith("convert IMG_1.HEIC, b.jp2")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "photo.HEIC",
            b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
            "HEIC, which is not read: ",
        ),
        ("._photo.png", b"\0\x05\x16\x07\0\2\0\0Mac OS X", "macOS leaves beside a file"),
        ("photo.jp2", b"\0\0\0\x0cjP  \r\n", "JPEG 2000, which is not read"),
        ("photo.tif", b"II*\0\x08\0\0\0", "TIFF picture is cut off"),
        ("photo.avif", b"\0\0\0\x14ftypavif\0\0\0\0mif1\0\0\4\0meta", "AVIF picture is cut off"),
        ("photo.gif.png", b"GIF89a\4\0\4\0\0\0\0;", "GIF picture of 4x4 is damaged"),
    ],
)
def test_a_single_picture_that_is_not_read_is_one_line(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    (tmp_path / name).write_bytes(content)
    source = PictureSource(tmp_path / name)
    assert list(source) == []
    (problem,) = source.problems
    assert says in problem


def test_content_tells_what_a_file_is_and_not_its_name(tmp_path: Path) -> None:
    rgb = np.full((6, 8, 3), 90, np.uint8)
    picture = tmp_path / "picture.dat"
    picture.write_bytes(cv2.imencode(".png", rgb)[1].tobytes())
    assert [item.frame.rgb_hwc.shape for item in open_source(str(picture))] == [(6, 8, 3)]
    film = tmp_path / "film"
    writer = cv2.VideoWriter(f"{film}.avi", cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    Path(f"{film}.avi").rename(film)
    assert len(list(open_source(str(film)))) == 1
    with pytest.raises(InputError, match="video is 64x48, expected at most"):
        open_source(str(film), reader=ImageReader(max_pixels=3000))


@pytest.mark.parametrize(
    "content", [b"#EXTM3U\nhttp://127.0.0.1/x\n", b"ffconcat version 1.0\n", b""]
)
def test_a_playlist_is_no_video(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(InputError, match=r"cannot open a\.mp4 as a video: it starts with"):
        open_source(str(tmp_path / "a.mp4"))


def test_what_never_ends_or_answers_is_refused_by_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    source = PictureSource(tmp_path)
    assert list(source) == []
    loop, pipe, zero = source.problems
    assert "Too many levels of symbolic links" in loop
    assert "pipe.png is a pipe, expected a regular file" in pipe
    assert "zero.png is a device" in zero
    for name in ("pipe.png", "loop.png", "zero.png"):
        with pytest.raises(InputError, match=r"regular file|symbolic links"):
            open_source(str(tmp_path / name))


def test_a_thousand_frames_of_one_problem_are_one_line() -> None:
    problems = Problems()
    for index in range(1000):
        problems.at(f"/image at {index} ns", f"data has {index} bytes, expected 9")
        problems.note("the bag is cut off")
    assert problems.lines == [
        "/image at 0 ns: data has 0 bytes, expected 9 (999 more like this)",
        "the bag is cut off",
    ]


def test_names_of_others_reach_no_terminal(tmp_path: Path) -> None:
    """Of a picture here; topics and frames go the same way."""
    (tmp_path / "a\x1b[2J.png").write_bytes(b"")
    source = open_source(str(tmp_path))
    assert list(source) == []
    assert source.problems[0].startswith(r"a\x1b[2J.png: the picture starts with nothing")
