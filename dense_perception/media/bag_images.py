"""Which topics of a bag are pictures, which are depth, and what belongs to them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from dense_perception.core.errors import InputError
from dense_perception.imaging.encodings import IMAGE_ENCODINGS
from dense_perception.imaging.messages import (
    ImageReader,
    base_topic,
    camera_info_topic,
    compression,
    is_compressed,
    is_depth,
    stamp_ns,
)
from dense_perception.imaging.video import is_video
from dense_perception.media.bag_reader import BagReader, BagTopic

IMAGES = (
    "sensor_msgs/msg/Image",
    "sensor_msgs/msg/CompressedImage",
    "ffmpeg_image_transport_msgs/msg/FFMPEGPacket",
    *("foxglove_msgs/msg/RawImage", "foxglove_msgs/msg/CompressedImage"),
    *("foxglove_msgs/msg/CompressedVideo", "foxglove.RawImage"),
    *("foxglove.CompressedImage", "foxglove.CompressedVideo"),
)
"""Types of images; those without ``/msg/`` are JSON or protobuf in MCAP."""
CALIBRATIONS = (
    "sensor_msgs/msg/CameraInfo",
    "foxglove_msgs/msg/CameraCalibration",
    "foxglove.CameraCalibration",
)
"""Types of calibrations."""
_MOST_APART_S = 1.0  # what a tolerance may sensibly bridge


def image_topics(bag: BagReader) -> dict[str, str]:
    """Topic name to ``picture``, ``depth`` or ``other``, judged by its first readable message."""
    kinds: dict[str, str] = {}
    for topic in bag.topics:
        if topic.msgtype in IMAGES and bag.reads(topic) and topic.count != 0:
            kinds[topic.name] = _kind(bag, topic.name)
    return kinds


def choose_topic(
    bag: BagReader, wanted: str | None, kind: str, option: str, others: Collection[str] = ()
) -> str:
    """The wanted topic, or the only one of its kind (``picture`` or ``depth``) but for ``others``.

    :raises InputError: if it is not in the bag, there is none, or there are several to choose
        from; ``option`` is the command-line option that chooses.
    """
    kinds = image_topics(bag)
    fitting = [name for name, found in kinds.items() if found == kind and name not in others]
    if wanted is not None:
        if wanted in kinds:
            return wanted
        for topic in bag.topics:
            if topic.name == wanted:
                raise InputError(
                    f"{option} {wanted} of {bag.path.name} holds no images: "
                    f"{_why_not(bag, topic, kinds)}"
                )
        known = ", ".join(fitting or [topic.name for topic in bag.topics])
        raise InputError(f"{bag.path.name} has no image topic {wanted!r}: {option} one of {known}")
    if not fitting:
        reasons = "; ".join(f"{topic.name}: {_why_not(bag, topic, kinds)}" for topic in bag.topics)
        raise InputError(
            f"{bag.path.name} has no {kind} topic among {len(bag.topics)}: {reasons or 'none'}"
        )
    if len(fitting) > 1:
        # The raw and the compressed form of one camera are one choice.
        bases = {base_topic(name) for name in fitting}
        if len(bases) > 1:
            raise InputError(
                f"{bag.path.name} has several {kind} topics: choose one with {option}: "
                f"{', '.join(fitting)}"
            )
    return min(fitting, key=len)


def _why_not(bag: BagReader, topic: BagTopic, kinds: Mapping[str, str]) -> str:
    """Why a topic is not what was looked for."""
    if not bag.reads(topic):
        return f"{topic.msgtype or 'no type'} in {topic.encoding!r}, which is not a ROS message"
    if not topic.msgtype:
        return "the recording does not say its type"
    if topic.msgtype not in IMAGES:
        return topic.msgtype
    if not topic.count:
        return "no messages"
    for message in bag.messages([topic.name]):
        try:
            content = bag.deserialize(message)
            if not is_compressed(content) and content.encoding == "mono16":
                return "mono16, which counts as a picture; name the topic if it is depth"
            if kinds.get(topic.name) != "other":
                return kinds.get(topic.name, "no messages")
            ImageReader().rgb(content)
        except InputError as error:
            return str(error)
        return "other"
    return "no message that can be read"


def _kind(bag: BagReader, topic: str) -> str:
    for message in bag.messages([topic]):
        try:
            content = bag.deserialize(message)
        except InputError:
            continue
        if is_depth(content, topic):
            return "depth"
        known = is_compressed(content) or content.encoding in IMAGE_ENCODINGS
        return "picture" if known else "other"
    return "other"


def calibration_topic(bag: BagReader, topic: str) -> str:
    """The calibration that belongs to an image topic, by name, or as the only one beside it.

    The name where ROS has it is the answer if there is none.
    """
    usual = camera_info_topic(topic)
    found = [entry.name for entry in bag.topics if entry.msgtype in CALIBRATIONS]
    if usual in found:
        return usual
    beside = usual.rpartition("/")[0]
    near = [name for name in found if name.rpartition("/")[0] in (beside, base_topic(topic))]
    return near[0] if len(near) == 1 else usual


def why_unmatched(bag: BagReader, first: str, second: str, tolerance_ms: float) -> str:
    """Why no messages of two topics belong together, with the cure."""
    stamps = [_first_stamp_ns(bag, topic) for topic in (first, second)]
    text = f"within {tolerance_ms:g} ms"
    if stamps[0] is None or stamps[1] is None:
        return f"{text}: check the topics"
    apart_s = abs(stamps[1] - stamps[0]) / 1e9
    if apart_s <= _MOST_APART_S:
        return f"{text}: raise --tolerance-ms"
    return (
        f"{text}, and their first stamps are {apart_s:.6g} s apart: they are of different clocks, "
        "or were not recorded at the same time; stamp both by one clock"
    )


def _first_stamp_ns(bag: BagReader, topic: str) -> int | None:
    for message in bag.messages([topic]):
        try:
            return stamp_ns(bag.deserialize(message).header)
        except (InputError, AttributeError):
            continue
    return None


def needs_all(bag: BagReader, topic: str) -> bool:
    """Whether an image is made of those before it: no message of a video may be passed over."""
    for message in bag.messages([topic]):
        try:
            content = bag.deserialize(message)
        except InputError:
            continue
        return is_compressed(content) and is_video(compression(content))
    return False
