"""Small rosbag2 recordings written with the rosbags library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

TYPES = get_typestore(Stores.ROS2_HUMBLE)
IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"


def make(name: str, **fields: Any) -> Any:
    return TYPES.types[name](**fields)


def header(stamp_ns: int, frame_id: str = "camera_optical") -> Any:
    seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
    stamp = make("builtin_interfaces/msg/Time", sec=seconds, nanosec=nanoseconds)
    return make("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)


def image(array: np.ndarray, encoding: str, stamp_ns: int, **changes: Any) -> Any:
    array = np.ascontiguousarray(array)
    fields: dict[str, Any] = {
        "header": header(stamp_ns),
        "height": array.shape[0],
        "width": array.shape[1],
        "encoding": encoding,
        "is_bigendian": 0,
        "step": array.strides[0],
        "data": array.view(np.uint8).reshape(-1),
    }
    return make(IMAGE, **{**fields, **changes})


def compressed(rgb_hwc: np.ndarray, stamp_ns: int, kept: float = 1.0) -> Any:
    data = cv2.imencode(".jpg", np.ascontiguousarray(rgb_hwc[..., ::-1]))[1].reshape(-1)
    data = data[: int(len(data) * kept)]
    return make(COMPRESSED, header=header(stamp_ns), format="jpeg", data=data)


def camera_info(width: int, height: int, focal: float, stamp_ns: int, **changes: Any) -> Any:
    cx, cy = (width - 1) / 2, (height - 1) / 2
    roi = make(
        "sensor_msgs/msg/RegionOfInterest",
        x_offset=0,
        y_offset=0,
        height=0,
        width=0,
        do_rectify=False,
    )
    fields: dict[str, Any] = {
        "header": header(stamp_ns),
        "height": height,
        "width": width,
        "distortion_model": "plumb_bob",
        "d": np.array([-0.2, 0.05, 0.001, -0.002, 0.01]),
        "k": np.array([focal, 0, cx, 0, focal, cy, 0, 0, 1.0]),
        "r": np.eye(3).reshape(-1),
        "p": np.array([focal, 0, cx, 0, 0, focal, cy, 0, 0, 0, 1.0, 0]),
        "binning_x": 0,
        "binning_y": 0,
        "roi": roi,
    }
    return make(CAMERA_INFO, **{**fields, **changes})


def write_bag(
    folder: Path,
    messages: list[tuple[str, int, Any]],
    *,
    storage: str = "mcap",
    compression: str = "none",
) -> Path:
    """``messages``: topic, time of recording in nanoseconds, message; in order of time."""
    plugin = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}[storage]
    writer = Writer(folder, version=8, storage_plugin=plugin)
    if compression != "none":
        writer.set_compression(CompressionMode[compression.upper()], CompressionFormat.ZSTD)
    connections: dict[str, Any] = {}
    with writer:
        for topic, time_ns, message in messages:
            msgtype = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, msgtype, typestore=TYPES)
            writer.write(connections[topic], time_ns, TYPES.serialize_cdr(message, msgtype))
    return folder


def storage_file(bag: Path) -> Path:
    """The one data file of a bag folder."""
    (file,) = [path for path in bag.iterdir() if path.name != "metadata.yaml"]
    return file
