"""Writes a rosbag2 recording (MCAP) without ROS: images, calibrations, clouds and transforms."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from dense_perception.core.camera import CalibrationFields
from dense_perception.core.errors import InputError
from dense_perception.core.storage import scratch_folder
from dense_perception.imaging.messages import stamp_fields
from dense_perception.imaging.transforms import Transform

Stamp = tuple[int, str]
"""Nanoseconds, and the name of the frame: what a header says."""
EPOCH_NS = 1_700_000_000_000_000_000
"""When recordings of what never was begin: a plausible time of day for tools that print it."""
_FLOAT32 = 7


class BagWriter:
    """Writes the recording ``path``, a folder; close it, or use it as a context manager.

    It has another name until it is closed, and an earlier one of its name stays until then. A
    block that ends in an error leaves no recording. Messages are made by the methods of their kind
    and written by :meth:`send`.

    :param replace: whether there may be an earlier one.
    :param compress: with Zstandard.
    :raises InputError: if ``path`` is there and may not be replaced.
    """

    def __init__(self, path: Path, *, replace: bool = True, compress: bool = False) -> None:
        from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
        from rosbags.typesys import Stores, get_typestore

        if path.exists() and not replace:
            raise InputError(f"{path} exists: move it away or choose another folder")
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._typestore: Any = get_typestore(Stores.ROS2_HUMBLE)
        self._stack = ExitStack()
        # The writer names the file after its folder, and the final name is for whole bags.
        self._scratch = self._stack.enter_context(scratch_folder(path.parent, ".bag-"))
        self._writer: Any = Writer(
            self._scratch / path.name, version=8, storage_plugin=StoragePlugin.MCAP
        )
        if compress:
            self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._writer.open()
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
            return
        with self._stack:
            writer, self._writer = self._writer, None
            if writer is not None:
                writer.close()

    def send(self, topic: str, time_ns: int, message: Any) -> None:
        """Append a message as recorded at ``time_ns``.

        :raises OSError: if the disk does not take it.
        """
        msgtype = message.__msgtype__
        connection = self._connections.get(topic)
        if connection is None:
            connection = self._writer.add_connection(topic, msgtype, typestore=self._typestore)
            self._connections[topic] = connection
        data = self._typestore.serialize_cdr(message, msgtype)
        self._writer.write(connection, time_ns, data)

    def close(self) -> None:
        """Write the index and metadata.yaml, and give the bag its name; safe to repeat.

        :raises OSError: if the disk does not take it.
        """
        with self._stack:
            writer, self._writer = self._writer, None
            if writer is None:
                return
            writer.close()
            if self.path.exists():
                os.replace(self.path, self._scratch / "earlier")
            os.replace(self._scratch / self.path.name, self.path)

    def depth(self, stamp: Stamp, depth_m: np.ndarray) -> Any:
        """A ``32FC1`` image of (H, W) metres."""
        return self._image(stamp, "32FC1", depth_m.astype("<f4", copy=False))

    def depth_mm(self, stamp: Stamp, depth_mm: np.ndarray) -> Any:
        """A ``16UC1`` image of (H, W) ``uint16`` millimetres, 0 for none."""
        return self._image(stamp, "16UC1", depth_mm.astype("<u2", copy=False))

    def picture(self, stamp: Stamp, rgb_hwc: np.ndarray) -> Any:
        """An ``rgb8`` image of HxWx3 ``uint8``."""
        return self._image(stamp, "rgb8", rgb_hwc)

    def jpeg(self, stamp: Stamp, data: bytes) -> Any:
        """A ``CompressedImage`` of a JPEG file in colour, as ``image_transport`` names it."""
        return self._type("sensor_msgs/msg/CompressedImage")(
            header=self._header(stamp),
            format="rgb8; jpeg compressed bgr8",
            data=np.frombuffer(data, np.uint8),
        )

    def info(self, stamp: Stamp, fields: CalibrationFields) -> Any:
        """A ``CameraInfo``."""
        roi = self._type("sensor_msgs/msg/RegionOfInterest")(
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        return self._type("sensor_msgs/msg/CameraInfo")(
            header=self._header(stamp),
            height=fields.height,
            width=fields.width,
            distortion_model=fields.distortion_model,
            d=fields.d,
            k=fields.k,
            r=fields.r,
            p=fields.p,
            binning_x=0,
            binning_y=0,
            roi=roi,
        )

    def cloud(self, stamp: Stamp, cloud: np.ndarray) -> Any:
        """A ``PointCloud2`` of (H, W) records of x, y, z and rgb, 16 bytes each."""
        field_type = self._type("sensor_msgs/msg/PointField")
        fields = [
            field_type(name=name, offset=offset, datatype=_FLOAT32, count=1)
            for name, offset in (("x", 0), ("y", 4), ("z", 8), ("rgb", 12))
        ]
        height, width = cloud.shape
        return self._type("sensor_msgs/msg/PointCloud2")(
            header=self._header(stamp),
            height=height,
            width=width,
            fields=fields,
            is_bigendian=False,
            point_step=16,
            row_step=16 * width,
            data=cloud.view(np.uint8).reshape(-1),
            is_dense=False,
        )

    def transforms(self, time_ns: int, parent: str, children: Mapping[str, Transform]) -> Any:
        """A ``TFMessage``: where frames are in ``parent``."""
        vector = self._type("geometry_msgs/msg/Vector3")
        quaternion = self._type("geometry_msgs/msg/Quaternion")
        transform = self._type("geometry_msgs/msg/Transform")
        stamped = self._type("geometry_msgs/msg/TransformStamped")
        return self._type("tf2_msgs/msg/TFMessage")(
            transforms=[
                stamped(
                    header=self._header((time_ns, parent)),
                    child_frame_id=child,
                    transform=transform(
                        translation=vector(*map(float, motion.translation)),
                        rotation=quaternion(*map(float, motion.quaternion())),
                    ),
                )
                for child, motion in children.items()
            ]
        )

    def _type(self, name: str) -> Any:
        return self._typestore.types[name]

    def _header(self, stamp: Stamp) -> Any:
        seconds, nanoseconds = stamp_fields(stamp[0])
        time = self._type("builtin_interfaces/msg/Time")(sec=seconds, nanosec=nanoseconds)
        return self._type("std_msgs/msg/Header")(stamp=time, frame_id=stamp[1])

    def _image(self, stamp: Stamp, encoding: str, array: np.ndarray) -> Any:
        array = np.ascontiguousarray(array)
        return self._type("sensor_msgs/msg/Image")(
            header=self._header(stamp),
            height=array.shape[0],
            width=array.shape[1],
            encoding=encoding,
            is_bigendian=0,
            step=array.strides[0],
            data=array.view(np.uint8).reshape(-1),
        )
