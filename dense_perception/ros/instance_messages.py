"""Found things as messages: detections in the image and in space, ids, panoptic labels, markers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from geometry_msgs.msg import Point, Pose, PoseWithCovariance, Quaternion, Vector3
from sensor_msgs.msg import Image
from std_msgs.msg import ColorRGBA, Header

from dense_perception.core.prediction import Instances
from dense_perception.imaging.instance_overlay import color_of
from dense_perception.imaging.instance_places import Place
from dense_perception.ros.convert import image_message

if TYPE_CHECKING:
    from vision_msgs.msg import (
        Detection2DArray,
        Detection3DArray,
        ObjectHypothesisWithPose,
    )
    from visualization_msgs.msg import Marker, MarkerArray

_LEAST_SIDE_M = 1e-3
_TEXT_M = 0.08
_BOX_ALPHA = 0.4


def ids_message(found: Instances, header: Header) -> Image:
    """``mono16``: each pixel's thing, as the detections' ``id`` has it; 0 for none."""
    assert found.ids_hw is not None
    return image_message(_numbered(found, np.uint16), header, "mono16")


def panoptic_message(labels_hw: np.ndarray, found: Instances, header: Header) -> Image:
    """``32SC1``: the published label times 65536 plus the thing's id."""
    assert found.ids_hw is not None
    coded = labels_hw.astype(np.uint32) << np.uint32(16)
    coded |= _numbered(found, np.uint32)
    return image_message(coded.view(np.int32), header, "32SC1")


def detections_message(found: Instances, header: Header) -> Detection2DArray:
    """A box, a class by name and a score for each thing, the best first."""
    from vision_msgs.msg import BoundingBox2D, Detection2D, Detection2DArray

    message = Detection2DArray(header=header)
    for row, box in enumerate(found.boxes_n4.tolist()):
        left, top, right, bottom = box
        bounds = BoundingBox2D(size_x=right - left, size_y=bottom - top)
        bounds.center.position.x = (left + right) / 2
        bounds.center.position.y = (top + bottom) / 2
        message.detections.append(
            Detection2D(
                header=header,
                results=[_hypothesis(found, row)],
                bbox=bounds,
                id=str(found.numbers[row]),
            )
        )
    return message


def detections_3d_message(
    found: Instances, places: Sequence[Place | None], header: Header
) -> Detection3DArray:
    """The things whose place is known; their pose is the median of their points."""
    from vision_msgs.msg import BoundingBox3D, Detection3D, Detection3DArray

    message = Detection3DArray(header=header)
    for row, place in enumerate(places):
        if place is None:
            continue
        center, size = _box_of(place)
        message.detections.append(
            Detection3D(
                header=header,
                results=[_hypothesis(found, row, place)],
                bbox=BoundingBox3D(center=center, size=size),
                id=str(found.numbers[row]),
            )
        )
    return message


def markers_message(
    found: Instances, places: Sequence[Place | None], header: Header
) -> MarkerArray:
    """For RViz: a translucent box and a name for each thing, after the end of the last frame's."""
    from visualization_msgs.msg import Marker, MarkerArray

    markers = [Marker(header=header, action=Marker.DELETEALL)]
    for row, place in enumerate(places):
        if place is None:
            continue
        number = int(found.numbers[row])
        center, size = _box_of(place)
        color = [channel / 255 for channel in color_of(number)]
        box = _marker(header, "boxes", number, Marker.CUBE, center)
        box.scale = size
        box.color = ColorRGBA(r=color[0], g=color[1], b=color[2], a=_BOX_ALPHA)
        above = Pose(position=Point(x=center.position.x, z=center.position.z))
        above.position.y = place.low[1] - _TEXT_M  # y is down
        above.orientation.w = 1.0
        name = _marker(header, "names", number, Marker.TEXT_VIEW_FACING, above)
        name.scale.z = _TEXT_M
        name.color = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
        name.text = f"{found.names[row]} {found.scores_n[row]:.2f}"
        markers += [box, name]
    return MarkerArray(markers=markers)


def _numbered(found: Instances, dtype: type[np.unsignedinteger]) -> np.ndarray:
    table = np.zeros(len(found) + 1, dtype)
    table[1:] = found.numbers
    assert found.ids_hw is not None
    return table.take(found.ids_hw)


def _hypothesis(found: Instances, row: int, place: Place | None = None) -> ObjectHypothesisWithPose:
    from vision_msgs.msg import ObjectHypothesisWithPose

    answer = ObjectHypothesisWithPose()
    answer.hypothesis.class_id = found.names[row]
    answer.hypothesis.score = float(found.scores_n[row])
    if place is not None:
        answer.pose = PoseWithCovariance(pose=_pose(place.median))
    return answer


def _box_of(place: Place) -> tuple[Pose, Vector3]:
    """Middle and size of the extent; a flat thing has a millimetre, or RViz would not draw it."""
    middle = [(low + high) / 2 for low, high in zip(place.low, place.high, strict=True)]
    sides = [
        max(high - low, _LEAST_SIDE_M) for low, high in zip(place.low, place.high, strict=True)
    ]
    return _pose(middle), Vector3(x=sides[0], y=sides[1], z=sides[2])


def _pose(xyz: Iterable[float]) -> Pose:
    x, y, z = xyz
    return Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(w=1.0))


def _marker(header: Header, namespace: str, number: int, kind: int, pose: Pose) -> Marker:
    from visualization_msgs.msg import Marker

    return Marker(header=header, ns=namespace, id=number, type=kind, action=Marker.ADD, pose=pose)
