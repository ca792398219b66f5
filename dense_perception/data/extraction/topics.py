"""Which topics of a recording are extracted, and what they say about cameras and classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dense_perception.core.camera import CameraInfoMessage, calibration_doubt
from dense_perception.core.errors import InputError
from dense_perception.core.storage import read_file
from dense_perception.imaging.messages import takes_projection
from dense_perception.media.bag_images import calibration_topic, choose_topic, image_topics
from dense_perception.media.bag_reader import BagReader

POINTS = "sensor_msgs/msg/PointCloud2"
SCAN = "sensor_msgs/msg/LaserScan"
_MOST_BYTES = 1 << 20
_LABEL_INFO = "vision_msgs/msg/LabelInfo"
_TRANSFORMS = ("/tf", "/tf_static")


@dataclass(frozen=True)
class TopicNames:
    """Topics as the user names them; None lets the recording decide.

    ``depth`` may be ``none``. ``points`` are of clouds or scans. Depth and points are optional: a
    recording without any gives frames to distil on. Labels are only taken where they are named.
    """

    colour: str | None = None
    depth: str | None = None
    points: tuple[str, ...] = ()
    labels: str | None = None


@dataclass(frozen=True)
class Topics:
    """The topics of one recording by their use; empty where there is none.

    ``colour_info`` and ``depth_info`` are the first calibrations beside the images,
    ``colour_is_rectified`` says that P of the former counts, ``doubt`` why it may be wrong.
    ``classes`` are the names of the labels from 0 on.
    """

    colour: str
    depth: str = ""
    points: tuple[str, ...] = ()
    labels: str = ""
    transforms: tuple[str, ...] = ()
    colour_info: CameraInfoMessage | None = None
    depth_info: CameraInfoMessage | None = None
    classes: tuple[str, ...] = ()
    colour_is_rectified: bool = False
    doubt: str = ""


def choose_topics(bag: BagReader, names: TopicNames, matrix: str = "auto") -> Topics:
    """
    :param matrix: which one of the colour camera's calibration counts: ``K``, ``P``, or ``auto`` to
        go by the topic's name.
    :raises InputError: if a named topic is not there or not of its kind, or it is not clear which
        image topic is meant.
    """
    colour = choose_topic(bag, names.colour, "picture", "--topic")
    depth = ""
    depths = [name for name, kind in image_topics(bag).items() if kind == "depth"]
    if names.depth == "none":
        depths = []
    elif names.depth is not None or depths:
        depth = choose_topic(bag, names.depth, "depth", "--depth-topic")
    types = {topic.name: topic.msgtype for topic in bag.topics}
    for name in names.points:
        if types.get(name) not in (POINTS, SCAN):
            raise InputError(
                f"--points-topic {name} of {bag.path.name} is {types.get(name) or 'not there'}, "
                f"expected {POINTS} or {SCAN}"
            )
    labels = names.labels or ""
    if labels and labels not in types:
        raise InputError(f"{bag.path.name} has no topic {labels}, which --label-topic names")
    info_topic, rectified = calibration_topic(bag, colour), takes_projection(matrix, colour)
    info, doubt = first_message(bag, info_topic), ""
    if info is not None:
        doubt = calibration_doubt(info, "P" if rectified else matrix, "--camera-matrix")
    return Topics(
        colour,
        depth,
        tuple(names.points),
        labels,
        tuple(name for name in _TRANSFORMS if name in types),
        info,
        first_message(bag, calibration_topic(bag, depth)) if depth else None,
        _classes(bag, labels) if labels else (),
        rectified,
        f"{info_topic}: {doubt}" if doubt else "",
    )


def first_message(bag: BagReader, topic: str) -> CameraInfoMessage | None:
    """The first message of a topic that can be read."""
    for message in bag.messages([topic]):
        try:
            found: CameraInfoMessage = bag.deserialize(message)
        except InputError:
            continue
        return found
    return None


def label_values(labels_hw: np.ndarray, void: int = 255) -> np.ndarray:
    """Labels of a topic, from 0 on with ``void``, as a corpus stores them: from 1 on, 0 is void.

    :raises InputError: if they do not fit 8 bits.
    """
    labels = np.where(labels_hw == void, -1, labels_hw.astype(np.int64)) + 1
    if labels.min(initial=0) < 0 or labels.max(initial=0) > 255:
        raise InputError(
            f"labels go from {int(labels_hw.min())} to {int(labels_hw.max())}, expected 0 to 254 "
            f"and {void} for void"
        )
    return labels.astype(np.uint8)


def read_classes(path: Path) -> tuple[str, ...]:
    """Names of classes, a line each.

    :raises InputError: if the file cannot be read or names nothing.
    """
    try:
        lines = read_file(path, _MOST_BYTES).decode("utf-8-sig").splitlines()
    except (InputError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise InputError(f"{path} is empty, expected the names of the classes, a line each")
    return names


def _classes(bag: BagReader, labels: str) -> tuple[str, ...]:
    """From the LabelInfo beside a label topic, as segmentation nodes publish it."""
    folder = labels.rpartition("/")[0]
    infos = [topic.name for topic in bag.topics if topic.msgtype == _LABEL_INFO]
    beside = [name for name in infos if name.rpartition("/")[0] == folder] or infos
    if len(beside) != 1:
        return ()
    for message in bag.messages(beside):
        try:
            entries = bag.deserialize(message).class_map
            by_id = {int(entry.class_id): str(entry.class_name) for entry in entries}
        except (InputError, AttributeError, ValueError):
            continue
        by_id.pop(255, None)
        if by_id and min(by_id) >= 0:
            return tuple(by_id.get(k, f"class {k}") for k in range(max(by_id) + 1))
    return ()
