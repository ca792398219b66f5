"""Videos on topics: every packet has to be decoded, though only the newest picture is answered."""

from __future__ import annotations

import threading
from collections import deque
from typing import TypeAlias

from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from dense_perception.core.errors import InputError
from dense_perception.imaging.messages import ImageReader, compression
from dense_perception.imaging.video import is_keyframe, is_video, video_codec
from dense_perception.ros.topics import message_class

KINDS = {
    "ffmpeg": "ffmpeg_image_transport_msgs/msg/FFMPEGPacket",
    "foxglove": "foxglove_msgs/msg/CompressedVideo",
}
"""Types of the transports that only have videos, by image_transport's names."""
_MOST_PACKETS = 600
_MOST_BYTES = 64 << 20

Kind: TypeAlias = "type[CompressedImage]"


def packet_class(transport: str) -> Kind:
    """The class of the messages of a transport of :data:`KINDS`.

    :raises InputError: if its package is not installed, naming the one to install.
    """
    try:
        kind: Kind = message_class(KINDS[transport])
    except InputError as error:
        package = KINDS[transport].partition("/")[0]
        raise InputError(
            f"image_transport {transport} needs {KINDS[transport]}, which is not installed: "
            f"apt install ros-$ROS_DISTRO-{package.replace('_', '-')}"
        ) from error
    return kind


def as_compressed_image(message: object) -> CompressedImage:
    """A packet of any transport as the ``CompressedImage`` with the same bytes."""
    if isinstance(message, CompressedImage):
        return message
    header = getattr(message, "header", None)
    if header is None:  # Foxglove's have its two fields themselves
        header = Header(
            stamp=getattr(message, "timestamp"),  # noqa: B009 (packages are optional)
            frame_id=getattr(message, "frame_id"),  # noqa: B009
        )
    form = compression(message)  # type: ignore[arg-type]
    return CompressedImage(header=header, format=form, data=getattr(message, "data"))  # noqa: B009


class Backlog:
    """Packets that came and were not decoded yet, since the last keyframe. Thread-safe.

    Too many are forgotten: the decoder then waits for the next keyframe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._packets: deque[CompressedImage] = deque()
        self._bytes = 0

    def put(self, message: CompressedImage) -> None:
        """In the executor's thread; anything but a packet of a video is passed over."""
        if not is_video(message.format):
            return
        starts = is_keyframe(video_codec(message.format), bytes(message.data))
        with self._lock:
            size = len(message.data)
            too_many = len(self._packets) >= _MOST_PACKETS or self._bytes + size > _MOST_BYTES
            if starts or too_many:
                self._packets.clear()
                self._bytes = 0
            self._packets.append(message)
            self._bytes += size

    def decode_before(self, message: CompressedImage, reader: ImageReader) -> None:
        """Decode what came before ``message``; in the worker's thread.

        Damage shows again in the message itself, which waits for a keyframe then.
        """
        with self._lock:
            if not any(packet is message for packet in self._packets):
                return
            earlier: list[CompressedImage] = []
            while (packet := self._packets.popleft()) is not message:
                earlier.append(packet)
            self._bytes = sum(len(packet.data) for packet in self._packets)
        for packet in earlier:
            try:
                reader.rgb(packet)
            except InputError:
                continue
