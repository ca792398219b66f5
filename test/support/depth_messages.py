"""What the depth node's messages hold, read by the offsets and encodings they give themselves."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import Image, PointCloud2

from dense_perception.core.camera import Intrinsics


def depth_of(image: Image) -> np.ndarray:
    dtype = {"32FC1": np.float32, "16UC1": np.uint16}[image.encoding]
    return np.frombuffer(image.data, dtype).reshape(image.height, image.width)


def point_field(cloud: PointCloud2, name: str) -> np.ndarray:
    """HxW of one field, by the offsets the message itself gives."""
    offset = next(field.offset for field in cloud.fields if field.name == name)
    bytes_hwb = np.frombuffer(cloud.data, np.uint8).reshape(cloud.height, cloud.width, -1)
    assert bytes_hwb.shape[2] == cloud.point_step
    assert cloud.row_step == cloud.width * cloud.point_step
    return np.ascontiguousarray(bytes_hwb[..., offset : offset + 4]).view("<u4")[..., 0]


def xyz_of(cloud: PointCloud2) -> np.ndarray:
    return np.stack([point_field(cloud, axis).view("<f4") for axis in "xyz"], axis=2)


def expected_xyz(depth_m: np.ndarray, camera: Intrinsics) -> np.ndarray:
    v, u = np.mgrid[: depth_m.shape[0], : depth_m.shape[1]]
    x = (u - camera.cx) / camera.fx * depth_m
    y = (v - camera.cy) / camera.fy * depth_m
    return np.stack([x, y, depth_m], axis=2)
