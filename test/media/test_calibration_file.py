"""Calibration files as tools write them, and what is refused with the reason."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from dense_perception.core.camera import Intrinsics, Lens, intrinsics_from_info
from dense_perception.core.errors import InputError
from dense_perception.media.calibration_file import read_calibration
from dense_perception.media.sources import PictureSource

K = np.array([[55.0, 0, 31.5], [0, 56.0, 23.5], [0, 0, 1.0]])
D = np.array([[-0.3, 0.1, 0.001, 0.0, 0.0]])
ROS = """image_width: 64
image_height: 48
camera_name: cam
camera_matrix:
  rows: 3
  cols: 3
  data: [55., 0., 31.5, 0., 56., 23.5, 0., 0., 1.]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [-0.3, 0.1, 0.001, 0., 0.]
projection_matrix:
  rows: 3
  cols: 4
  data: [50., 0., 30.5, 0., 0., 51., 22.5, 0., 0., 0., 1., 0.]
"""
ECHO = f"""header:
  stamp: {{sec: 1, nanosec: 2}}
  frame_id: cam
height: 48
width: 64
distortion_model: plumb_bob
d: {D.reshape(-1).tolist()}
k: {K.reshape(-1).tolist()}
r: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
p: [50.0, 0.0, 30.5, 0.0, 0.0, 51.0, 22.5, 0.0, 0.0, 0.0, 1.0, 0.0]
binning_x: 0
binning_y: 0
roi: {{x_offset: 0, y_offset: 0, height: 0, width: 0, do_rectify: false}}
---
"""
CAMERA = Intrinsics(64, 48, 55.0, 56.0, 31.5, 23.5, Lens(False, (-0.3, 0.1, 0.001, 0.0, 0.0)))


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "camera.yaml"
    path.write_bytes(text.encode())
    return path


def opencv_file(tmp_path: Path) -> Path:
    path = tmp_path / "opencv.yaml"
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    storage.write("image_width", 64)
    storage.write("image_height", 48)
    storage.write("camera_matrix", K)
    storage.write("distortion_coefficients", D)
    storage.release()
    return path


@pytest.mark.parametrize(
    "text",
    [
        ROS,
        ROS.replace("\n", "\r\n"),
        "\ufeff" + ROS,
        ROS.replace("image_width: 64", "image_width: 64.0"),
        ECHO,
        ECHO + ECHO,
        ECHO.replace("\nk:", "\nK:").replace("\nd:", "\nD:").replace("\np:", "\nP:"),
    ],
)
def test_what_the_tools_of_ros_write(tmp_path: Path, text: str) -> None:
    info = read_calibration(written(tmp_path, text))
    assert intrinsics_from_info(info, 64, 48) == CAMERA
    assert intrinsics_from_info(info, 64, 48, rectified=True) == Intrinsics(
        64, 48, 50.0, 51.0, 30.5, 22.5
    )


def test_what_opencv_writes(tmp_path: Path) -> None:
    assert intrinsics_from_info(read_calibration(opencv_file(tmp_path)), 64, 48) == CAMERA


def test_a_fisheye_is_no_pinhole(tmp_path: Path) -> None:
    text = ROS.replace("plumb_bob", "equidistant").replace(
        "[-0.3, 0.1, 0.001, 0., 0.]", "[0.1, 0, 0, 0]"
    )
    camera = intrinsics_from_info(read_calibration(written(tmp_path, text)), 64, 48)
    assert camera.lens == Lens(True, (0.1, 0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            ROS.replace("55.", "0.86").replace("56.", "0.86"),
            "in pixels of the full image, not norm",
        ),
        (ROS.replace("55.", "0."), "K of the file is not usable: fx is 0"),
        (ROS.replace("[55., 0.", "['fx', 0."), "could not convert"),
        (ROS.replace("image_width: 64\n", ""), "no image_width"),
        (ROS.replace("56., 23.5,", "56.,"), "camera_matrix has 8 numbers, expected 9"),
        (ROS.replace("image_width: 64", "image_width: 0"), "set width and height"),
        ("", "it holds nothing"),
        ("- 1", "it holds list"),
        ("[1", "cannot read the calibration"),
        ("[" * 3000, "cannot read the calibration"),
    ],
)
def test_what_is_no_calibration_is_refused_with_the_reason(
    tmp_path: Path, text: str, named: str
) -> None:
    with pytest.raises(InputError, match="camera") as caught:
        read_calibration(written(tmp_path, text))
    assert named in str(caught.value)


def test_a_picture_of_another_shape_is_not_answered_with_it(tmp_path: Path) -> None:
    calibration = read_calibration(written(tmp_path, ROS))
    cv2.imwrite(str(tmp_path / "wide.png"), np.zeros((36, 64, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "same.png"), np.zeros((96, 128, 3), np.uint8))
    source = PictureSource(tmp_path, calibration)
    (item,) = source
    assert (item.name, item.frame.intrinsics) == ("same", CAMERA.resized(128, 96))
    (problem,) = source.problems
    assert "wide.png: --camera-info is for an image of 64x48 pixels" in problem
