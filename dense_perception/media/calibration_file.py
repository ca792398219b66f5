"""Calibration files, as ``camera_calibration``, OpenCV and ``ros2 topic echo`` write them."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dense_perception.core.camera import RegionOfInterest, intrinsics_from_info
from dense_perception.core.errors import InputError
from dense_perception.core.storage import read_file
from dense_perception.core.strict import check_nesting

_MOST_BYTES = 1_000_000
# Each entry's names: camera_calibration and OpenCV's sample, then messages of ROS 2 and ROS 1.
_WIDTH, _HEIGHT = ("image_width", "width"), ("image_height", "height")
_K = ("camera_matrix", "k", "K")
_D = ("distortion_coefficients", "d", "D")
_R = ("rectification_matrix", "r", "R")
_P = ("projection_matrix", "p", "P")


@dataclass
class _Window:
    x_offset: int = 0
    y_offset: int = 0
    height: int = 0
    width: int = 0


@dataclass
class FileCalibration:
    """A calibration file with the fields of ``sensor_msgs/CameraInfo``."""

    width: int
    height: int
    distortion_model: str
    d: Sequence[float]
    k: Sequence[float]
    r: Sequence[float]
    p: Sequence[float]
    binning_x: int = 0
    binning_y: int = 0
    roi: RegionOfInterest = field(default_factory=_Window)


def read_calibration(path: Path) -> FileCalibration:
    """
    :raises InputError: if the file cannot be read, lacks its size or K, or K is no camera's.
    """
    try:
        # A name in a comment may be in any encoding.
        text = read_file(path, _MOST_BYTES).decode("utf-8-sig", "replace")
        check_nesting(text, path.name, InputError)
        # OpenCV's first line is not the directive that YAML knows.
        data = next(iter(yaml.load_all(re.sub(r"^%YAML:.*", "", text), _Loader)), None)
    except (InputError, ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"cannot read the calibration {path}: {reason}") from error
    try:
        if not isinstance(data, Mapping):
            raise ValueError(f"it holds {'nothing' if data is None else type(data).__name__}")
        calibration = _calibration(data)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise InputError(
            f"{path} is not a camera calibration ({error}), expected YAML with image_width, "
            "image_height and camera_matrix of 9 numbers, as camera_calibration and OpenCV write "
            "it, or a CameraInfo message of ros2 topic echo"
        ) from error
    whole = replace(calibration, roi=_Window(), binning_x=0, binning_y=0)
    try:
        intrinsics_from_info(whole, whole.width, whole.height)
    except InputError as error:
        message = str(error).replace("camera_info", "the file")
        raise InputError(f"the calibration {path} is not usable: {message}") from error
    return calibration


def _calibration(data: Mapping[str, Any]) -> FileCalibration:
    k, d = _numbers(data, _K), _numbers(data, _D, [])
    if len(k) != 9:
        raise ValueError(f"camera_matrix has {len(k)} numbers, expected 9")
    p = _numbers(data, _P, [*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0])
    if len(p) != 12:
        raise ValueError(f"projection_matrix has {len(p)} numbers, expected 12")
    # OpenCV names no model; its fisheye calibration says so in another way.
    usual = "equidistant" if data.get("fisheye_model") else "rational_polynomial"
    roi = data.get("roi") or {}
    return FileCalibration(
        int(_entry(data, _WIDTH)),
        int(_entry(data, _HEIGHT)),
        str(data.get("distortion_model") or usual),
        d,
        k,
        _numbers(data, _R, [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]),
        p,
        int(data.get("binning_x", 0)),
        int(data.get("binning_y", 0)),
        _Window(*(int(roi.get(name, 0)) for name in ("x_offset", "y_offset", "height", "width"))),
    )


def _entry(data: Mapping[str, Any], names: Sequence[str]) -> Any:
    for name in names:
        if name in data:
            return data[name]
    raise KeyError(f"no {names[0]}")


def _numbers(
    data: Mapping[str, Any], names: Sequence[str], default: list[float] | None = None
) -> list[float]:
    if default is not None and not any(name in data for name in names):
        return default
    value = _entry(data, names)
    if isinstance(value, Mapping):
        value = value["data"]
    return [float(number) for number in np.asarray(value, np.float64).reshape(-1)]


class _Loader(yaml.SafeLoader):
    """Also takes OpenCV's matrices."""


def _matrix(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Hashable, object]:
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:opencv-matrix", _matrix)
