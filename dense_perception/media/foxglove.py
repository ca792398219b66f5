"""Foxglove's image messages, as JSON, protobuf or ROS, in the shape of ``sensor_msgs``.

Recorders without ROS write them to MCAP. Of protobuf only these few messages are read, with the
field numbers of the published schemas, so no protobuf library is needed.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.core.json_text import parse_json

Value: TypeAlias = "int | float | str | bytes | list[float] | tuple[int, int]"
_Read: TypeAlias = "Callable[[bytes | int], Value]"

RAW, COMPRESSED, VIDEO, CALIBRATION = (
    *("RawImage", "CompressedImage", "CompressedVideo", "CameraCalibration"),
)
SCHEMAS = tuple(f"foxglove.{name}" for name in (RAW, COMPRESSED, VIDEO, CALIBRATION))
"""Names in MCAP of the messages that :func:`read` takes."""

DEFINITIONS = {
    "foxglove_msgs/msg/CompressedVideo": (
        "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n"
    ),
    "ffmpeg_image_transport_msgs/msg/FFMPEGPacket": (
        "std_msgs/Header header\nint32 width\nint32 height\nstring encoding\nuint64 pts\n"
        "uint8 flags\nbool is_bigendian\nuint8[] data\n"
    ),
}
"""Definitions of ROS messages that bags before ROS 2 Iron do not carry."""


@dataclass(frozen=True)
class Stamp:
    """As ``builtin_interfaces/Time``."""

    sec: int
    nanosec: int


@dataclass(frozen=True)
class Header:
    """As ``std_msgs/Header``."""

    stamp: Stamp
    frame_id: str


@dataclass(frozen=True)
class CompressedPicture:
    """As ``sensor_msgs/CompressedImage``, of a picture or a packet of a video."""

    header: Header
    format: str
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class RawPicture:
    """As ``sensor_msgs/Image``."""

    header: Header
    width: int
    height: int
    encoding: str
    step: int
    data: bytes = field(repr=False)
    is_bigendian: bool = False


@dataclass(frozen=True)
class _Window:
    x_offset: int = 0
    y_offset: int = 0
    height: int = 0
    width: int = 0


@dataclass(frozen=True)
class Calibration:
    """As ``sensor_msgs/CameraInfo``."""

    header: Header
    width: int
    height: int
    distortion_model: str
    d: list[float]
    k: list[float]
    r: list[float]
    p: list[float]
    binning_x: int = 0
    binning_y: int = 0
    roi: _Window = field(default_factory=_Window)


StandardMessage: TypeAlias = "CompressedPicture | RawPicture | Calibration"


class Time(Protocol):
    """``builtin_interfaces/Time``."""

    @property
    def sec(self) -> int: ...
    @property
    def nanosec(self) -> int: ...


def read(schema: str, encoding: str, data: bytes) -> StandardMessage:
    """A message of :data:`SCHEMAS` from ``json`` or ``protobuf``.

    :raises InputError: if the bytes are damaged or lack a field.
    """
    name = schema.rpartition(".")[2]
    try:
        reads = _from_json(data) if encoding == "json" else _from_protobuf(name, data)
        return _standard(name, reads)
    except (ValueError, TypeError, KeyError, IndexError, RecursionError, struct.error) as error:
        raise InputError(f"a {schema} message as {encoding} is damaged: {error!r:.200}") from error


def is_foxglove(msgtype: str) -> bool:
    """Whether a ROS message is one that :func:`from_ros` takes."""
    package, _, name = msgtype.rpartition("/msg/")
    return package == "foxglove_msgs" and f"foxglove.{name}" in SCHEMAS


def from_ros(msgtype: str, message: object) -> StandardMessage:
    """A message of ``foxglove_msgs``, as ROS gives it."""
    names = ("frame_id", "data", "format", "width", "height", "encoding", "step", "D", "K", "R")
    values = {
        name: getattr(message, name)
        for name in (*names, "P", "distortion_model")
        if hasattr(message, name)
    }
    stamp: Time = getattr(message, "timestamp")  # noqa: B009 (its class is the bag's)
    return _standard(
        msgtype.rpartition("/")[2], {**values, "timestamp": (stamp.sec, stamp.nanosec)}
    )


def _standard(name: str, values: Mapping[str, object]) -> StandardMessage:
    seconds, nanoseconds = _pair(values.get("timestamp", (0, 0)))
    header = Header(Stamp(seconds, nanoseconds), str(values.get("frame_id", "")))
    if name == CALIBRATION:
        d, k, r, p = (_numbers(values.get(key, ())) for key in "DKRP")
        width, height = _whole(values["width"]), _whole(values["height"])
        return Calibration(
            header, width, height, str(values.get("distortion_model", "")), d, k, r, p
        )
    data = _content(values.get("data", b""))
    if name != RAW:
        return CompressedPicture(header, str(values.get("format", "")), data)
    width, height, step = (_whole(values[key]) for key in ("width", "height", "step"))
    return RawPicture(header, width, height, str(values["encoding"]), step, data)


def _pair(value: object) -> tuple[int, int]:
    if isinstance(value, Mapping):
        return _whole(value.get("sec", 0)), _whole(value.get("nsec", 0))
    if isinstance(value, tuple):
        return _whole(value[0]), _whole(value[1])
    raise TypeError(f"timestamp is a {type(value).__name__}")


def _whole(value: object) -> int:
    if isinstance(value, (int, float)):
        return int(value)
    return int(str(value))


def _numbers(value: object) -> list[float]:
    if not hasattr(value, "__iter__"):
        raise TypeError(f"a matrix is a {type(value).__name__}")
    return [float(entry) for entry in value]


def _content(value: object) -> bytes:
    """The bytes; of JSON they come as base64."""
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except binascii.Error as error:
            raise ValueError(f"data is no base64: {error}") from error
    if isinstance(value, (bytes, bytearray, memoryview, np.ndarray)):
        return bytes(value)
    raise TypeError(f"data is a {type(value).__name__}")


def _from_json(data: bytes) -> dict[str, object]:
    values = parse_json(data)
    if not isinstance(values, dict):
        raise TypeError(f"it is a {type(values).__name__}")
    return values


def _text(value: bytes | int) -> str:
    return bytes(value).decode() if isinstance(value, bytes) else ""


def _time(value: bytes | int) -> tuple[int, int]:
    fields = dict(_fields(value)) if isinstance(value, bytes) else {}
    return int(fields.get(1, 0)), int(fields.get(2, 0))


def _doubles(value: bytes | int) -> list[float]:
    if isinstance(value, bytes):
        return [entry for (entry,) in struct.iter_unpack("<d", value)]
    return [struct.unpack("<d", value.to_bytes(8, "little"))[0]]


def _same(value: bytes | int) -> Value:
    return value


_NUMBERED: dict[str, dict[int, tuple[str, _Read]]] = {
    COMPRESSED: {
        1: ("timestamp", _time),
        2: ("data", _same),
        3: ("format", _text),
        4: ("frame_id", _text),
    },
    VIDEO: {
        1: ("timestamp", _time),
        2: ("frame_id", _text),
        3: ("data", _same),
        4: ("format", _text),
    },
    RAW: {
        1: ("timestamp", _time),
        2: ("width", _same),
        3: ("height", _same),
        4: ("encoding", _text),
        5: ("step", _same),
        6: ("data", _same),
        7: ("frame_id", _text),
    },
    CALIBRATION: {
        1: ("timestamp", _time),
        2: ("width", _same),
        3: ("height", _same),
        4: ("distortion_model", _text),
        5: ("D", _doubles),
        6: ("K", _doubles),
        7: ("R", _doubles),
        8: ("P", _doubles),
        9: ("frame_id", _text),
    },
}


def _from_protobuf(name: str, data: bytes) -> dict[str, object]:
    values: dict[str, object] = {}
    for number, content in _fields(data):
        key, convert = _NUMBERED[name].get(number, ("", _same))
        if not key:
            continue
        value, before = convert(content), values.get(key)
        # A list may come whole or one number at a time.
        values[key] = [*before, *value] if isinstance(before, list) else value  # type: ignore[misc]
    if name == RAW:  # zeros are left out on the wire
        values = {"width": 0, "height": 0, "step": 0, "encoding": "", **values}
    if name == CALIBRATION:
        values = {"width": 0, "height": 0, **values}
    return values


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Field numbers and contents of a protobuf message.

    :raises ValueError: if it is cut off, or has a kind of field that none of these messages has.
    """
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        kind = key & 7
        if kind == 0:
            value, position = _varint(data, position)
            yield key >> 3, value
            continue
        if kind == 2:
            length, position = _varint(data, position)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"there is no wire type {kind}")
        if position + length > len(data):
            raise ValueError("it is cut off")
        content = data[position : position + length]
        position += length
        yield key >> 3, content if kind == 2 else int.from_bytes(content, "little")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise ValueError("it is cut off")
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError("a number is too long")
