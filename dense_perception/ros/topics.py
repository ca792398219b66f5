"""Every topic the nodes publish, declared once: name, type, meaning, what it is made from.

The publishers and the documentation both come from these declarations; reading them needs no ROS.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Literal, TypeAlias

from dense_perception.core.errors import InputError

_TYPE = re.compile(r"([a-z][a-z0-9_]*)/(?:msg/)?([A-Za-z][A-Za-z0-9]*)")


Packing: TypeAlias = Literal["", "jpeg", "png", "depth"]


@dataclass(frozen=True)
class TopicSpec:
    """One output topic below the node's name (``~/``), or ``~/CAMERA/`` with several cameras.

    ``made_from``: the entries of a Prediction it needs. ``latched``: reliable and transient local,
    so that late subscribers get the last message; the others are volatile with the node's
    ``output_reliability``. ``only``: when it is published, in words; empty is always.
    ``packed``: how :func:`packed_topic` has it besides, empty where it is not offered.
    """

    name: str
    type: str
    encoding: str
    description: str
    made_from: tuple[str, ...]
    latched: bool = False
    only: str = ""
    packed: Packing = ""


DEPTH_IMAGE = TopicSpec(
    "depth/image",
    "sensor_msgs/Image",
    "32FC1 or 16UC1",
    "Depth along the optical axis (REP 118): metres with NaN for invalid pixels, or millimetres "
    "with 0 for them.",
    ("depth",),
    only="with a metric model, or one made metric by scale_source",
    packed="depth",
)
DEPTH_RELATIVE = TopicSpec(
    "depth/relative",
    "sensor_msgs/Image",
    "32FC1",
    "Depth or inverse depth up to an unknown scale, as the model's card says; NaN is invalid.",
    ("depth",),
    only="with a relative model, while its scale is not known",
)
DEPTH_CAMERA_INFO = TopicSpec(
    "depth/camera_info",
    "sensor_msgs/CameraInfo",
    "",
    "The calibration of the outputs' size, which all outputs of a frame share.",
    ("depth",),
)
DEPTH_COLOR = TopicSpec(
    "depth/color",
    "sensor_msgs/Image",
    "rgb8",
    "A colourised preview: near is red, far is blue, invalid is black.",
    ("depth",),
    packed="jpeg",
)
POINTS = TopicSpec(
    "points",
    "sensor_msgs/PointCloud2",
    "x, y, z (float32 metres), rgb (float32), label (uint32)",
    "Organised cloud of the outputs' width and height in the optical frame (REP 103); NaN where "
    "there is no depth. The rays follow the lens of an image that is not rectified. rgb only "
    "with points_rgb; label only in nodes that publish labels, with points_label.",
    ("depth",),
    only="with a metric model, or one made metric by scale_source",
)
LABELS = TopicSpec(
    "segmentation/labels",
    "sensor_msgs/Image",
    "mono8 or mono16",
    "The label of each pixel; mono16 where a label is above 255. See label_groups, first_label "
    "and void_label.",
    ("labels",),
    only="with a model that gives labels",
    packed="png",
)
CONFIDENCE = TopicSpec(
    "segmentation/confidence",
    "sensor_msgs/Image",
    "mono8",
    "The probability of that label, in units of 1/255.",
    ("labels",),
    only="with a model that gives labels",
    packed="png",
)
LABEL_INFO = TopicSpec(
    "segmentation/label_info",
    "vision_msgs/LabelInfo",
    "",
    "The name of each label; sent at activation and whenever it changes.",
    (),
    latched=True,
    only="with a model that gives labels, where vision_msgs is installed",
)
OVERLAY = TopicSpec(
    "segmentation/overlay",
    "sensor_msgs/Image",
    "rgb8",
    "The image tinted in the colours of its labels.",
    ("labels",),
    only="with a model that gives labels",
    packed="jpeg",
)
NORMALS = TopicSpec(
    "normals",
    "sensor_msgs/Image",
    "32FC3",
    "Unit surface normals x, y, z in the optical frame (REP 103), towards the camera; NaN where "
    "unknown.",
    ("normals",),
    only="with a model that gives normals",
)
NORMALS_COLOR = TopicSpec(
    "normals/color",
    "sensor_msgs/Image",
    "rgb8",
    "A colourised preview: red, green and blue are x, -y and -z from -1 to 1, so a floor is green.",
    ("normals",),
    only="with a model that gives normals",
    packed="jpeg",
)
EDGES = TopicSpec(
    "edges",
    "sensor_msgs/Image",
    "mono8",
    "Strength of texture edges.",
    ("edges",),
    only="with a model that gives edges",
    packed="png",
)
KEYPOINTS = TopicSpec(
    "keypoints",
    "sensor_msgs/Image",
    "mono8",
    "Heat map of image keypoints.",
    ("keypoints",),
    only="with a model that gives keypoints",
    packed="png",
)
RESHADING = TopicSpec(
    "reshading",
    "sensor_msgs/Image",
    "mono8",
    "Shading of the surfaces by a light at the camera.",
    ("reshading",),
    only="with a model that gives reshading",
    packed="png",
)

DETECTIONS = TopicSpec(
    "instances/detections",
    "vision_msgs/Detection2DArray",
    "",
    "The things, the best first: class by name (class_id), score, box in pixels of the outputs' "
    "size, measured from the left and upper edge of the first pixel, and id: that of the id image.",
    ("instances",),
    only="with a model that finds things, where vision_msgs is installed",
)
DETECTIONS_3D = TopicSpec(
    "instances/detections_3d",
    "vision_msgs/Detection3DArray",
    "",
    "The things whose depth is known, in metres in the optical frame (REP 103): the pose of the "
    "class is the median of a thing's points, the box holds them but for the nearest and farthest "
    "twentieth.",
    ("instances", "instance_ids", "depth"),
    only="with a model that finds things and gives metric depth, where vision_msgs is installed",
)
INSTANCE_IDS = TopicSpec(
    "instances/ids",
    "sensor_msgs/Image",
    "mono16",
    "The thing of each pixel: the detections' id, 0 for none. With tracking it is kept from frame "
    "to frame, otherwise it is the row of the detections, from 1.",
    ("instances", "instance_ids"),
    only="with a model that gives masks",
    packed="png",
)
PANOPTIC = TopicSpec(
    "instances/panoptic",
    "sensor_msgs/Image",
    "32SC1",
    "The label of each pixel times 65536 plus the id of its thing, 0 for stuff and for things that "
    "are not published. Labels are those of segmentation/labels, named by "
    "segmentation/label_info.",
    ("labels", "instances", "instance_ids"),
    only="with a panoptic model",
)
INSTANCE_OVERLAY = TopicSpec(
    "instances/overlay",
    "sensor_msgs/Image",
    "rgb8",
    "The image with the things' masks, boxes, names and scores.",
    ("instances", "instance_ids"),
    only="with a model that finds things",
    packed="jpeg",
)
INSTANCE_MARKERS = TopicSpec(
    "instances/markers",
    "visualization_msgs/MarkerArray",
    "",
    "The boxes and names of detections_3d for RViz; each message replaces the last one.",
    ("instances", "instance_ids", "depth"),
    only="with a model that finds things and gives metric depth",
)

DEPTH_TOPICS = (DEPTH_IMAGE, DEPTH_RELATIVE, DEPTH_CAMERA_INFO, DEPTH_COLOR)
POINT_TOPICS = (POINTS,)
SEGMENTATION_TOPICS = (LABELS, CONFIDENCE, LABEL_INFO, OVERLAY)
MAP_TOPICS = (NORMALS, NORMALS_COLOR, EDGES, KEYPOINTS, RESHADING)
INSTANCE_TOPICS = (
    *(DETECTIONS, DETECTIONS_3D, INSTANCE_IDS),
    *(PANOPTIC, INSTANCE_OVERLAY, INSTANCE_MARKERS),
)


_PACKED: Mapping[Packing, tuple[str, str, str]] = {
    "jpeg": ("compressed", "jpeg", "The same as JPEG of jpeg_quality."),
    "png": ("compressed", "png", "The same as PNG, without loss."),
    "depth": (
        "compressedDepth",
        "png behind a header of 12 bytes",
        "The same as compressed_depth_image_transport packs it. 32FC1 is stored as inverse depth "
        "in 16 bits, in steps of about 0.1 mm at 1 m and 1 cm at 10 m.",
    ),
}


@cache
def packed_topic(spec: TopicSpec) -> TopicSpec | None:
    """The topic beside an image topic that has it compressed, as image_transport names it."""
    if not spec.packed:
        return None
    name, encoding, description = _PACKED[spec.packed]
    return TopicSpec(
        f"{spec.name}/{name}",
        "sensor_msgs/CompressedImage",
        encoding,
        description,
        spec.made_from,
        only=spec.only,
    )


def with_packed(specs: Iterable[TopicSpec]) -> tuple[TopicSpec, ...]:
    """Each topic, and its compressed one behind it where there is one."""
    pairs = [(spec, packed_topic(spec)) for spec in specs]
    return tuple(spec for pair in pairs for spec in pair if spec is not None)


def message_class(name: str) -> type:
    """The class of ``package/msg/Name`` or ``package/Name``, if its package is installed.

    :raises InputError: if it is not, or the name is malformed.
    """
    match = _TYPE.fullmatch(name)
    if match is None:
        raise InputError(f"the type {name!r} is not a message type such as std_msgs/msg/Header")
    package, kind_name = match.groups()
    try:
        kind: type = getattr(import_module(f"{package}.msg"), kind_name)
    except (ImportError, AttributeError) as error:
        message = f"{name} is not installed here: install the package {package}"
        raise InputError(message) from error
    if not hasattr(kind, "get_fields_and_field_types"):
        raise InputError(f"{name} names something that is not a message")
    return kind


def message_type(spec: TopicSpec) -> type:
    """The class of a topic's messages.

    :raises InputError: if its package is not installed.
    """
    return message_class(spec.type)


def is_installed(spec: TopicSpec) -> bool:
    """Whether the package of the topic's type is there and usable."""
    try:
        message_type(spec)
    except InputError:
        return False
    return True
