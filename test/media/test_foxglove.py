"""Foxglove's messages: bytes that its own package foxglove-schemas-protobuf 0.4.0 wrote."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from dense_perception.core.camera import intrinsics_from_info
from dense_perception.core.errors import InputError
from dense_perception.imaging.messages import is_compressed, message_rgb, stamp_ns
from dense_perception.media import foxglove
from dense_perception.media.bag_images import calibration_topic, choose_topic
from dense_perception.media.bag_reader import BagReader
from test.media.test_bag_reader import mcap_of

STAMP_NS = 1_700_000_000_000_000_005
COMPRESSED = "0a080880e2cfaa06100512036162631a03706e67220363616d"
VIDEO = "0a080880e2cfaa061005120363616d1a03616263220468323634"
RAW = "0a080880e2cfaa06100515020000001d010000002204726762382d0600000032066162636465663a0363616d"
CALIBRATION = (
    "0a080880e2cfaa06100515400000001d300000002209706c756d625f626f622a289a9999999999b93f9a99999999"
    "99b93f9a9999999999b93f9a9999999999b93f9a9999999999b93f32480000000000804b40000000000000000000"
    "00000000803f4000000000000000000000000000804b400000000000803740000000000000000000000000000000"
    "00000000000000f03f3a48000000000000f03f000000000000000000000000000000000000000000000000000000"
    "000000f03f000000000000000000000000000000000000000000000000000000000000f03f426000000000000049"
    "4000000000000000000000000000803f400000000000000000000000000000000000000000000049400000000000"
    "803740000000000000000000000000000000000000000000000000000000000000f03f00000000000000004a0363"
    "616d"
)


def test_protobuf() -> None:
    for name, text in (("CompressedImage", COMPRESSED), ("CompressedVideo", VIDEO)):
        message = foxglove.read(f"foxglove.{name}", "protobuf", bytes.fromhex(text))
        assert isinstance(message, foxglove.CompressedPicture)
        assert is_compressed(message)
        assert message.data == b"abc"
        assert message.format == ("png" if name == "CompressedImage" else "h264")
        assert stamp_ns(message.header) == STAMP_NS
        assert message.header.frame_id == "cam"
    raw = foxglove.read("foxglove.RawImage", "protobuf", bytes.fromhex(RAW))
    assert message_rgb(raw).tolist() == [[[97, 98, 99], [100, 101, 102]]]
    info = foxglove.read("foxglove.CameraCalibration", "protobuf", bytes.fromhex(CALIBRATION))
    assert isinstance(info, foxglove.Calibration)
    assert (info.width, info.height, info.distortion_model) == (64, 48, "plumb_bob")
    assert list(info.d) == [0.1] * 5
    assert info.k == [55, 0, 31.5, 0, 55, 23.5, 0, 0, 1]
    assert intrinsics_from_info(info, 64, 48, rectified=True).fx == 50


def test_what_is_cut_or_of_another_kind_is_refused() -> None:
    whole = bytes.fromhex(RAW)
    for end in range(len(whole)):
        try:
            message = foxglove.read("foxglove.RawImage", "protobuf", whole[:end])
        except InputError:
            continue
        if not message.header.frame_id:  # written last: all before it is there or 0
            continue
        pytest.fail(f"{end} bytes of {len(whole)} are a whole message")
    for text in ("[]", "{", '{"timestamp": 3}', '{"data": "!"}', "[" * 100_000):
        with pytest.raises(InputError, match=r"foxglove\.CompressedImage message as json is dam"):
            foxglove.read("foxglove.CompressedImage", "json", text.encode())


def test_json_in_mcap_is_a_picture_topic(tmp_path: Path) -> None:
    rgb = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    png = cv2.imencode(".png", rgb[..., ::-1])[1].tobytes()
    values = {
        "timestamp": {"sec": 1_700_000_000, "nsec": 5},
        "frame_id": "cam",
        "format": "png",
        "data": base64.b64encode(png).decode(),
    }
    path = tmp_path / "a.mcap"
    path.write_bytes(mcap_of("foxglove.CompressedImage", "json", json.dumps(values).encode()))
    with BagReader(path) as bag:
        assert choose_topic(bag, None, "picture", "--topic") == "/a"
        (message,) = bag.messages()
        content = bag.deserialize(message)
        assert np.array_equal(message_rgb(content), rgb)
        assert stamp_ns(content.header) == STAMP_NS


def test_the_only_calibration_beside_a_picture_belongs_to_it(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    data = bytes.fromhex(CALIBRATION)
    path.write_bytes(mcap_of("foxglove.CameraCalibration", "protobuf", data))
    with BagReader(path) as bag:
        assert calibration_topic(bag, "/camera") == "/a"
        assert calibration_topic(bag, "/front/image") == "/front/camera_info"
