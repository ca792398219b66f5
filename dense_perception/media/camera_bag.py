"""Writes what a robot's cameras saw as a rosbag2 recording: colour, depth, calibration, /tf."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import InputError
from dense_perception.core.storage import scratch_folder
from dense_perception.imaging.messages import stamp_fields
from dense_perception.imaging.transforms import Transform

EPOCH_NS = 1_700_000_000_000_000_000
"""Arbitrary, but a plausible time of day for tools that print it."""
_KINDS = {
    "image": "sensor_msgs/msg/Image",
    "compressed": "sensor_msgs/msg/CompressedImage",
    "info": "sensor_msgs/msg/CameraInfo",
    "transforms": "tf2_msgs/msg/TFMessage",
}


class CameraBag:
    """An MCAP recording of cameras, compressed with Zstandard; use it as a context manager.

    Times are nanoseconds since the epoch. The recording has another name until the block ends
    without an error, so a folder of the final name is always whole.

    :raises InputError: if ``path`` is there.
    """

    def __init__(self, path: Path) -> None:
        from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
        from rosbags.typesys import Stores, get_typestore

        if path.exists():
            raise InputError(f"{path} exists: move it away or choose another folder")
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stack = ExitStack()
        # The folder names the file in it, so the unfinished one has the final name elsewhere.
        scratch = self._stack.enter_context(scratch_folder(path.parent, f".{path.name}-"))
        self._unfinished = scratch / path.name
        self._store: Any = get_typestore(Stores.ROS2_HUMBLE)
        self._writer: Any = Writer(self._unfinished, version=8, storage_plugin=StoragePlugin.MCAP)
        self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._writer.open()
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> CameraBag:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            self._writer.close()
            if kind is None:
                os.replace(self._unfinished, self.path)

    def picture(self, topic: str, time_ns: int, frame_id: str, jpeg: bytes) -> None:
        """A JPEG of RGB colours."""
        self._send(
            topic,
            "compressed",
            time_ns,
            header=self._header(time_ns, frame_id),
            format="rgb8; jpeg compressed bgr8",
            data=np.frombuffer(jpeg, np.uint8),
        )

    def depth(self, topic: str, time_ns: int, frame_id: str, depth_mm: np.ndarray) -> None:
        """(H, W) uint16 millimetres, 0 for none."""
        depth_mm = np.ascontiguousarray(depth_mm, "<u2")
        height, width = depth_mm.shape
        self._send(
            topic,
            "image",
            time_ns,
            header=self._header(time_ns, frame_id),
            height=height,
            width=width,
            encoding="16UC1",
            is_bigendian=0,
            step=2 * width,
            data=depth_mm.view(np.uint8).ravel(),
        )

    def calibration(self, topic: str, time_ns: int, frame_id: str, camera: Intrinsics) -> None:
        """A pinhole's."""
        k = camera.matrix()
        roi = self._type("sensor_msgs/msg/RegionOfInterest")(
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        self._send(
            topic,
            "info",
            time_ns,
            header=self._header(time_ns, frame_id),
            height=camera.height,
            width=camera.width,
            distortion_model="plumb_bob",
            d=np.zeros(5),
            k=k.ravel(),
            r=np.eye(3).ravel(),
            p=np.hstack([k, np.zeros((3, 1))]).ravel(),
            binning_x=0,
            binning_y=0,
            roi=roi,
        )

    def transforms(
        self, time_ns: int, parent: str, children: Mapping[str, Transform], *, static: bool = False
    ) -> None:
        """Where frames are in ``parent``: on ``/tf``, or ``/tf_static`` for good."""
        vector = self._type("geometry_msgs/msg/Vector3")
        quaternion = self._type("geometry_msgs/msg/Quaternion")
        transform = self._type("geometry_msgs/msg/Transform")
        stamped = self._type("geometry_msgs/msg/TransformStamped")
        self._send(
            "/tf_static" if static else "/tf",
            "transforms",
            time_ns,
            transforms=[
                stamped(
                    header=self._header(time_ns, parent),
                    child_frame_id=child,
                    transform=transform(
                        translation=vector(*map(float, motion.translation)),
                        rotation=quaternion(*map(float, motion.quaternion())),
                    ),
                )
                for child, motion in children.items()
            ],
        )

    def _header(self, time_ns: int, frame_id: str) -> Any:
        seconds, nanoseconds = stamp_fields(time_ns)
        stamp = self._type("builtin_interfaces/msg/Time")(sec=seconds, nanosec=nanoseconds)
        return self._type("std_msgs/msg/Header")(stamp=stamp, frame_id=frame_id)

    def _type(self, name: str) -> Any:
        return self._store.types[name]

    def _send(self, topic: str, kind: str, time_ns: int, **fields: Any) -> None:
        connection = self._connections.get(topic)
        if connection is None:
            connection = self._writer.add_connection(topic, _KINDS[kind], typestore=self._store)
            self._connections[topic] = connection
        message = self._type(connection.msgtype)(**fields)
        data = self._store.serialize_cdr(message, connection.msgtype)
        self._writer.write(connection, time_ns, data)


def jpeg_of(rgb_hwc: np.ndarray, quality: int) -> bytes:
    """A picture as cameras' drivers send it."""
    bgr_hwc = cv2.cvtColor(np.ascontiguousarray(rgb_hwc), cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(".jpg", bgr_hwc, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])
