"""Point messages to arrays, from a subscription or a bag.

Messages are recognised by their fields, so this module needs neither ROS nor rosbags.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.imaging.encodings import Bytes

# sensor_msgs/PointField: FLOAT32 and FLOAT64.
_FLOATS = {7: "f4", 8: "f8"}


class Field(Protocol):
    """``sensor_msgs/PointField``."""

    name: str
    offset: int
    datatype: int


class CloudMessage(Protocol):
    """``sensor_msgs/PointCloud2``, as far as its points are concerned."""

    width: int
    height: int
    point_step: int
    row_step: int
    is_bigendian: bool

    @property
    def fields(self) -> Sequence[Field]: ...
    @property
    def data(self) -> Bytes: ...


class ScanMessage(Protocol):
    """``sensor_msgs/LaserScan``, as far as its returns are concerned."""

    angle_min: float
    angle_increment: float
    range_min: float
    range_max: float

    @property
    def ranges(self) -> Sequence[float] | np.ndarray: ...


def cloud_points(message: CloudMessage) -> np.ndarray:
    """(N, 3) float64 metres of the fields x, y and z, in the message's frame.

    :raises InputError: if they are missing, of another type, or the sizes contradict each other.
    """
    fields = {field.name: field for field in message.fields}
    if not {"x", "y", "z"} <= fields.keys():
        raise InputError(f"the cloud has the fields {sorted(fields)}, expected x, y and z")
    step, count = message.point_step, message.width * message.height
    order = ">" if message.is_bigendian else "<"
    formats = [_FLOATS.get(fields[name].datatype) for name in "xyz"]
    offsets = [fields[name].offset for name in "xyz"]
    if None in formats:
        raise InputError("x, y and z of the cloud are expected to be FLOAT32 or FLOAT64")
    row_bytes = message.width * step
    fits = all(
        offset + int(str(kind)[1]) <= step for offset, kind in zip(offsets, formats, strict=True)
    )
    if not fits or message.row_step < row_bytes:
        raise InputError(
            f"point_step is {step} and row_step {message.row_step}, expected them to hold the "
            f"fields of {message.width} points in a row"
        )
    data = np.frombuffer(message.data, np.uint8)
    if len(data) < message.row_step * message.height:
        raise InputError(
            f"the cloud has {len(data)} bytes, expected {message.row_step * message.height}"
        )
    if count == 0:
        return np.empty((0, 3))
    rows = data[: message.row_step * message.height].reshape(message.height, message.row_step)
    packed = np.ascontiguousarray(rows[:, :row_bytes]).reshape(-1)
    kind = np.dtype(
        {
            "names": ["x", "y", "z"],
            "formats": [f"{order}{each}" for each in formats],
            "offsets": offsets,
            "itemsize": step,
        }
    )
    points = packed.view(kind)
    return np.stack([points[name].astype(np.float64) for name in "xyz"], axis=1)


def scan_points(message: ScanMessage) -> np.ndarray:
    """(N, 3) float64 metres of the returns within the scan's range, in its own frame (z = 0)."""
    ranges = np.asarray(message.ranges, np.float64)
    with np.errstate(invalid="ignore"):  # an infinite increment gives NaN, which is left out below
        angles = message.angle_min + np.arange(len(ranges)) * message.angle_increment
    valid = (ranges >= message.range_min) & (ranges <= message.range_max)
    valid &= np.isfinite(ranges) & np.isfinite(angles)
    ranges, angles = ranges[valid], angles[valid]
    return np.stack([ranges * np.cos(angles), ranges * np.sin(angles), np.zeros_like(ranges)], 1)
