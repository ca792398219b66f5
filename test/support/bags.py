"""Small bags with known contents, written by the ``rosbags`` library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

TYPES = get_typestore(Stores.LATEST)
START_NS = 1_700_000_000_000_000_000


def stamped_header(time_ns: int, frame_id: str = "camera_optical") -> Any:
    stamp = TYPES.types["builtin_interfaces/msg/Time"](*divmod(time_ns, 1_000_000_000))
    return TYPES.types["std_msgs/msg/Header"](stamp, frame_id)


def image(time_ns: int, rgb_hwc: np.ndarray) -> Any:
    height, width, _ = rgb_hwc.shape
    return TYPES.types["sensor_msgs/msg/Image"](
        stamped_header(time_ns), height, width, "rgb8", 0, 3 * width, rgb_hwc.reshape(-1)
    )


def text(value: str) -> Any:
    return TYPES.types["std_msgs/msg/String"](value)


def unknown_thing(value: int) -> Any:
    """A message of a type that no ROS machine has."""
    name = "nowhere_msgs/msg/Thing"
    if name not in TYPES.types:
        TYPES.register(get_types_from_msg("int32 value", name))
    return TYPES.types[name](value)


def write_bag(
    path: Path,
    messages: Sequence[tuple[str, str, int, Any]],
    *,
    plugin: StoragePlugin = StoragePlugin.MCAP,
    compression: CompressionMode = CompressionMode.NONE,
    qos: dict[str, list[Any]] | None = None,
) -> Path:
    """``messages``: topic, type, time in nanoseconds, message."""
    writer = Writer(path, version=9, storage_plugin=plugin)
    if compression is not CompressionMode.NONE:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        connections: dict[str, Any] = {}
        for topic, msgtype, time_ns, message in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(
                    topic,
                    msgtype,
                    typestore=TYPES,
                    offered_qos_profiles=(qos or {}).get(topic, []),
                )
            writer.write(connections[topic], time_ns, TYPES.serialize_cdr(message, msgtype))
    return path


def picture_messages(count: int, width: int = 160, height: int = 120) -> list[Any]:
    """Noise pictures on /camera/image at 50 Hz and a text per picture on /note."""
    rng = np.random.default_rng(0)
    messages: list[Any] = []
    for index in range(count):
        time_ns = START_NS + index * 20_000_000
        rgb_hwc = rng.integers(0, 256, (height, width, 3), np.uint8)
        messages += [
            ("/camera/image", "sensor_msgs/msg/Image", time_ns, image(time_ns, rgb_hwc)),
            ("/note", "std_msgs/msg/String", time_ns + 1000, text(f"picture {index}")),
        ]
    return messages


def cut_in_half(path: Path) -> None:
    """The largest file of the bag loses its second half."""
    victim = max((each for each in path.iterdir()), key=lambda each: each.stat().st_size)
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2])
