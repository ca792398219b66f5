"""Answers as a rosbag2 recording with the topics that ``depth_node`` publishes."""

from __future__ import annotations

from pathlib import Path

from dense_perception.core.camera import calibration_for_output
from dense_perception.core.errors import DensePerceptionError, InputError
from dense_perception.core.prediction import DepthKind, Prediction
from dense_perception.core.storage import prepare_output_folder
from dense_perception.imaging.colorize import DepthColorizer
from dense_perception.imaging.points import organised_xyzrgb
from dense_perception.media.bag_reader import BagReader
from dense_perception.media.bag_writer import BagWriter
from dense_perception.media.sources import SourceItem

NAMESPACE = "/depth_node"


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
        self._writer = BagWriter(self.path)
        self._colorizer = DepthColorizer()
        self._points = points
        self.written = 0

    def write(self, item: SourceItem, prediction: Prediction) -> None:
        """Append the messages of one answer, stamped with the time its input was recorded.

        :raises DensePerceptionError: if the disk does not take it.
        """
        assert prediction.depth is not None
        depth_m = prediction.depth.metres()
        write, stamp = self._writer, (prediction.stamp_ns, prediction.frame_id)
        calibration = calibration_for_output(item.camera_info, prediction.intrinsics)
        messages = {
            "depth/image": write.depth(stamp, depth_m),
            "depth/camera_info": write.info(stamp, calibration),
            "depth/color": write.picture(stamp, self._colorizer(depth_m)),
        }
        if self._points:
            cloud = organised_xyzrgb(depth_m, prediction.intrinsics, item.frame.rgb_hwc)
            messages["points"] = write.cloud(stamp, cloud)
        try:
            for topic, message in messages.items():
                write.send(f"{NAMESPACE}/{topic}", item.time_ns, message)
        except OSError as error:
            raise DensePerceptionError(
                f"cannot write to {self.path}: {error.strerror or error}"
            ) from error
        self.written += 1

    def close(self) -> None:
        """Write the index and metadata.yaml, and give the bag its name; safe to repeat.

        :raises OSError: if the disk does not take it.
        """
        self._writer.close()


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
