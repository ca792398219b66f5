"""Folders of colour images with depth, labels or both beside them.

A recording is a folder with ``color/KEY.jpg`` (or png), and of the same size ``depth/KEY.png`` (16
bit, 0 for none, seen from the colour camera), ``labels/KEY.png`` (8 bit, 0 for void) or both, and
``frames.json``: by key ``fx``, ``fy``, ``cx`` and ``cy`` in pixels, centres on integers; where
known ``stamp_ns``, and ``pose``: the camera in the world as a 4x4 matrix, row by row.
``classes.txt`` names the labels from 1 on, a line each.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import InputError
from dense_perception.core.storage import read_file
from dense_perception.core.strict import json_value
from dense_perception.data.files import read_image, read_jpeg, read_labels
from dense_perception.data.sample import Sample
from dense_perception.imaging.transforms import quaternion_of

FRAMES_FILE = "frames.json"


class FolderPairs:
    """The frames of such a folder, in the order of their keys.

    :param unit_m: metres of one step of the depth images.
    :raises InputError: if ``frames.json`` is missing or damaged, or neither depth nor labels are
        there.
    """

    def __init__(self, root: Path, unit_m: float = 0.001) -> None:
        self.root = root
        self.name = root.name
        self._unit_m = unit_m
        path = root / FRAMES_FILE
        try:
            frames = json_value(read_file(path).decode(), str(path), InputError)
        except UnicodeDecodeError as error:
            raise InputError(f"cannot read {path}: {error}") from error
        if not isinstance(frames, dict):
            raise InputError(f"{path} is a {type(frames).__name__}, expected frames by key")
        if not frames:
            raise InputError(f"{path} names no frame")
        self._frames = frames
        self.keys = tuple(sorted(self._frames))
        self._has_depth = (root / "depth").is_dir()
        self._has_labels = (root / "labels").is_dir()
        if not (self._has_depth or self._has_labels):
            raise InputError(f"{root} has neither a folder depth nor labels beside color")
        names = root / "classes.txt"
        lines = read_file(names).decode().splitlines() if names.is_file() else []
        self.classes = tuple(line.strip() for line in lines if line.strip())

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Sample:
        return self.frame(self.keys[index])

    def frame(self, key: str) -> Sample:
        """The frame of that key.

        :raises InputError: if a file is missing, cannot be decoded, or sizes differ; it is named.
        """
        record = self._frames[key]
        colours = [self.root / "color" / f"{key}{suffix}" for suffix in (".jpg", ".png")]
        colour = next((path for path in colours if path.exists()), colours[0])
        bgr_hwc = read_image(colour, cv2.IMREAD_COLOR)
        height, width = bgr_hwc.shape[:2]
        depth_m, labels_hw = np.zeros((height, width), np.float32), None
        if self._has_depth:
            depth = read_image(self.root / "depth" / f"{key}.png")
            if depth.shape != (height, width) or depth.dtype != np.uint16:
                raise InputError(
                    f"the depth of {colour} is {depth.dtype} {depth.shape}, expected uint16 "
                    f"{(height, width)}: depth has to be registered to colour"
                )
            depth_m = depth.astype(np.float32) * np.float32(self._unit_m)
        if self._has_labels:
            labels_hw = read_labels(self.root / "labels" / f"{key}.png")
            if labels_hw.shape != (height, width) or labels_hw.dtype != np.uint8:
                raise InputError(
                    f"the labels of {colour} are {labels_hw.dtype} {labels_hw.shape}, expected "
                    f"uint8 {(height, width)}"
                )
        try:
            fx, fy, cx, cy = (float(record[name]) for name in ("fx", "fy", "cx", "cy"))
            stamp, pose = record.get("stamp_ns"), record.get("pose")
            camera_7 = None if pose is None else position_and_quaternion(np.array(pose, np.float64))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            path = self.root / FRAMES_FILE
            raise InputError(f"{path}: frame {key} lacks fx, fy, cx or cy: {error!r}") from error
        return Sample(
            np.ascontiguousarray(bgr_hwc[..., ::-1]),
            depth_m,
            Intrinsics(width, height, fx, fy, cx, cy),
            labels_hw,
            camera_7=camera_7,
            key=key,
            recording=self.name,
            stamp_ns=None if stamp is None else int(stamp),
            jpeg=read_jpeg(colour),
        )


def position_and_quaternion(matrix: np.ndarray) -> np.ndarray:
    """x, y, z and qx, qy, qz, qw, float32, of a 4x4 (or flat) matrix of a rigid motion."""
    matrix = matrix.reshape(4, 4)
    return np.array([*matrix[:3, 3], *quaternion_of(matrix[:3, :3])], np.float32)
