"""Answers as a rosbag2 recording with the topics that ``depth_node`` publishes."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from dense_perception.core.camera import calibration_for_output
from dense_perception.core.errors import DensePerceptionError, InputError
from dense_perception.core.prediction import DepthKind, Prediction
from dense_perception.core.storage import prepare_output_folder, scratch_folder
from dense_perception.imaging.colorize import DepthColorizer
from dense_perception.imaging.messages import stamp_fields
from dense_perception.imaging.points import organised_xyzrgb
from dense_perception.media.bag_reader import BagReader
from dense_perception.media.sources import SourceItem

NAMESPACE = "/depth_node"
_FLOAT32 = 7


class BagSink:
    """Writes ``FOLDER/bag``, an MCAP recording with the input's headers.

    It has another name until it is closed, and an earlier result stays until then.

    Topics under ``/depth_node``: ``depth/image`` (32FC1 metres), ``depth/camera_info``,
    ``depth/color`` and, with ``points``, the organised XYZRGB cloud.

    :raises InputError: if the folder is not empty and ``overwrite`` is false, or the model's depth
        is not metric.
    """

    uses_camera = True

    def __init__(
        self,
        folder: Path,
        *,
        points: bool = False,
        kind: DepthKind = DepthKind.METRIC,
        overwrite: bool = False,
    ) -> None:
        if kind is not DepthKind.METRIC:
            raise InputError(
                f"this model's depth is {kind.value}, a depth image in a bag is in metres: choose "
                "a metric model or write files instead"
            )
        prepare_output_folder(folder, overwrite=overwrite)
        self.path = folder / "bag"
        if self.path.exists():
            _check_is_ours(self.path)
        from rosbags.rosbag2 import StoragePlugin, Writer
        from rosbags.typesys import Stores, get_typestore

        self._typestore: Any = get_typestore(Stores.ROS2_HUMBLE)
        self._stack = ExitStack()
        # The writer names the file after its folder, and the final name is for whole bags.
        self._scratch = self._stack.enter_context(scratch_folder(folder, ".bag-"))
        path = self._scratch / self.path.name
        self._writer: Any = Writer(path, version=8, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        self._colorizer = DepthColorizer()
        self._connections: dict[str, Any] = {}
        self._points = points
        self.written = 0

    def write(self, item: SourceItem, prediction: Prediction) -> None:
        """Append the messages of one answer, stamped with the time its input was recorded.

        :raises DensePerceptionError: if the disk does not take it.
        """
        assert prediction.depth is not None
        depth_m = prediction.depth.metres()
        header = self._header(prediction)
        try:
            self._send(
                item, "depth/image", self._image(header, "32FC1", depth_m.astype("<f4", copy=False))
            )
            self._send(item, "depth/camera_info", self._info(header, item, prediction))
            self._send(item, "depth/color", self._image(header, "rgb8", self._colorizer(depth_m)))
            if self._points:
                cloud = organised_xyzrgb(depth_m, prediction.intrinsics, item.frame.rgb_hwc)
                self._send(item, "points", self._cloud(header, cloud))
        except OSError as error:
            raise DensePerceptionError(
                f"cannot write to {self.path}: {error.strerror or error}"
            ) from error
        self.written += 1

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

    def _send(self, item: SourceItem, topic: str, message: Any) -> None:
        msgtype = message.__msgtype__
        connection = self._connections.get(topic)
        if connection is None:
            connection = self._writer.add_connection(
                f"{NAMESPACE}/{topic}", msgtype, typestore=self._typestore
            )
            self._connections[topic] = connection
        data = self._typestore.serialize_cdr(message, msgtype)
        self._writer.write(connection, item.time_ns, data)

    def _type(self, name: str) -> Any:
        return self._typestore.types[name]

    def _header(self, prediction: Prediction) -> Any:
        seconds, nanoseconds = stamp_fields(prediction.stamp_ns)
        stamp = self._type("builtin_interfaces/msg/Time")(sec=seconds, nanosec=nanoseconds)
        return self._type("std_msgs/msg/Header")(stamp=stamp, frame_id=prediction.frame_id)

    def _image(self, header: Any, encoding: str, array: np.ndarray) -> Any:
        array = np.ascontiguousarray(array)
        return self._type("sensor_msgs/msg/Image")(
            header=header,
            height=array.shape[0],
            width=array.shape[1],
            encoding=encoding,
            is_bigendian=0,
            step=array.strides[0],
            data=array.view(np.uint8).reshape(-1),
        )

    def _info(self, header: Any, item: SourceItem, prediction: Prediction) -> Any:
        fields = calibration_for_output(item.camera_info, prediction.intrinsics)
        roi = self._type("sensor_msgs/msg/RegionOfInterest")(
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        return self._type("sensor_msgs/msg/CameraInfo")(
            header=header,
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

    def _cloud(self, header: Any, cloud: np.ndarray) -> Any:
        field_type = self._type("sensor_msgs/msg/PointField")
        fields = [
            field_type(name=name, offset=offset, datatype=_FLOAT32, count=1)
            for name, offset in (("x", 0), ("y", 4), ("z", 8), ("rgb", 12))
        ]
        height, width = cloud.shape
        return self._type("sensor_msgs/msg/PointCloud2")(
            header=header,
            height=height,
            width=width,
            fields=fields,
            is_bigendian=False,
            point_step=16,
            row_step=16 * width,
            data=cloud.view(np.uint8).reshape(-1),
            is_dense=False,
        )


def _check_is_ours(path: Path) -> None:
    """An earlier result of this sink may be replaced, and nothing else.

    :raises InputError: if it holds anything that is not an earlier result.
    """
    names = {entry.name for entry in path.iterdir()}
    is_ours = names <= {"metadata.yaml", f"{path.name}.mcap"}
    if is_ours and names:
        try:
            with BagReader(path) as bag:
                is_ours = all(topic.name.startswith(f"{NAMESPACE}/") for topic in bag.topics)
        except InputError:
            # Cut before the first message, as older versions left it when they were killed: only a
            # run leaves its summary beside such a thing.
            is_ours = (path.parent / "run.json").is_file() and "metadata.yaml" not in names
    if not is_ours:
        raise InputError(
            f"{path} is not an earlier answer of this command and is not replaced: move it away "
            "or choose another --output"
        )
