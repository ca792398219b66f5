"""One decoder for image messages from subscriptions, bags and anything of their shape."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags.typesys import Stores, get_typestore

from dense_perception.core.errors import InputError
from dense_perception.imaging.messages import (
    ImageReader,
    base_topic,
    camera_info_topic,
    is_compressed,
    is_depth,
    is_rectified,
    message_depth_m,
    message_rgb,
    stamp_fields,
    stamp_ns,
)

TYPES = get_typestore(Stores.ROS2_HUMBLE).types


class Plain:
    """Messages of nothing but their fields."""

    def __call__(self, name: str, **fields: Any) -> Any:
        return SimpleNamespace(**fields)


class Bags:
    """Messages as rosbags reads them: ``data`` is an array."""

    def __call__(self, name: str, **fields: Any) -> Any:
        if "data" in fields:
            fields["data"] = np.frombuffer(fields["data"], np.uint8)
        return TYPES[name](**fields)


class Dds:
    """Messages as a subscription gives them."""

    def __call__(self, name: str, **fields: Any) -> Any:
        module = pytest.importorskip(f"{name.split('/')[0]}.msg")
        message = getattr(module, name.split("/")[-1])()
        for key, value in fields.items():
            if key == "data":
                message.data.frombytes(value)
            else:
                setattr(message, key, value)
        return message


@pytest.fixture(params=[Plain, Bags, Dds])
def make(request: pytest.FixtureRequest) -> Any:
    kind: Any = request.param
    return kind()


def header(make: Any) -> Any:
    stamp = make("builtin_interfaces/msg/Time", sec=1_700_000_000, nanosec=999_999_999)
    return make("std_msgs/msg/Header", stamp=stamp, frame_id="camera")


def image(make: Any, encoding: str, array: np.ndarray, *, pad: int = 0, big: bool = False) -> Any:
    rows = np.ascontiguousarray(array).view(np.uint8).reshape(len(array), -1)
    rows = np.pad(rows, ((0, 0), (0, pad)), constant_values=7)
    return make(
        "sensor_msgs/msg/Image",
        header=header(make),
        height=array.shape[0],
        width=array.shape[1],
        encoding=encoding,
        is_bigendian=int(big),
        step=rows.shape[1],
        data=rows.tobytes(),
    )


def compressed(make: Any, form: str, suffix: str, array: np.ndarray, prefix: bytes = b"") -> Any:
    _, data = cv2.imencode(suffix, array)
    return make(
        "sensor_msgs/msg/CompressedImage",
        header=header(make),
        format=form,
        data=prefix + data.tobytes(),
    )


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)


def test_stamps(make: Any) -> None:
    time_ns = stamp_ns(header(make))
    assert time_ns == 1_700_000_000_999_999_999
    assert stamp_fields(time_ns) == (1_700_000_000, 999_999_999)


def test_pictures(make: Any) -> None:
    rgb = picture()
    for message in (
        image(make, "rgb8", rgb, pad=5),
        image(make, "bgr8", rgb[..., ::-1]),
        compressed(make, "rgb8; png compressed bgr8", ".png", rgb[..., ::-1]),
    ):
        np.testing.assert_array_equal(message_rgb(message), rgb)
        assert not is_depth(message)


def test_depth(make: Any) -> None:
    millimetres = np.array([[0, 500], [1500, 65535]], np.uint16)
    metres = np.where(millimetres > 0, millimetres / np.float32(1000), np.nan).astype(np.float32)
    for message in (
        image(make, "16UC1", millimetres, pad=2),
        image(make, "16UC1", millimetres.byteswap(), big=True),
        image(make, "32FC1", metres),
        compressed(make, "16UC1; png compressed", ".png", millimetres),
        compressed(make, "16UC1; compressedDepth png", ".png", millimetres, bytes(12)),
    ):
        np.testing.assert_allclose(message_depth_m(message), metres, rtol=1e-6)
        assert is_depth(message)


def test_what_tells_the_two_kinds_apart(make: Any) -> None:
    gray = picture()[..., 0]
    assert is_compressed(compressed(make, "jpeg", ".jpg", gray))
    assert not is_compressed(image(make, "mono8", gray))
    assert not is_depth(image(make, "mono16", gray.astype(np.uint16)))
    assert is_depth(compressed(make, "png", ".png", gray), "/camera/depth/compressedDepth")


def test_what_cannot_be_decoded_is_said(make: Any) -> None:
    with pytest.raises(InputError, match="which is depth, expected a picture"):
        message_rgb(image(make, "32FC1", np.ones((2, 2), np.float32)))
    with pytest.raises(InputError, match="expected 16UC1"):
        message_depth_m(image(make, "rgb8", picture()))
    cut = compressed(make, "jpeg", ".jpg", picture())
    cut.data = cut.data[:40]
    with pytest.raises(InputError, match="cut off"):
        message_rgb(cut)


def test_topic_names_by_convention() -> None:
    assert base_topic("/cam/image_raw/compressed") == "/cam/image_raw"
    assert base_topic("/compressed") == "/compressed"
    assert camera_info_topic("/cam/image_raw/compressed") == "/cam/camera_info"
    assert camera_info_topic("/image") == "/camera_info"


@pytest.mark.parametrize(
    ("name", "rectified"),
    [
        ("/cam/image_rect", True),
        ("image_rect_color", True),
        ("/cam/image_rect_raw/compressed", True),
        ("/cam/image_rectified", True),
        ("/cam/rect", True),
        ("/cam/image_raw", False),
        ("/camera/image_direct", False),
        ("/cam/image_unrect", False),
        ("/cam/image_unrectified", False),
        ("/cam/rectangles", False),
        ("/rectified_cam/image_raw", False),
    ],
)
def test_only_a_word_of_the_last_name_says_that_an_image_is_rectified(
    name: str, rectified: bool
) -> None:
    assert is_rectified(name) == rectified


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_compressed_mosaic_is_demosaiced(make: Any, suffix: str) -> None:
    mosaic = np.zeros((32, 32), np.uint8)
    mosaic[::2, ::2] = 200  # red alone: the first pixel of rggb
    rgb = message_rgb(compressed(make, "bayer_rggb8; jpeg compressed", suffix, mosaic))
    red, green, blue = rgb[8:24, 8:24].reshape(-1, 3).mean(axis=0)
    assert red > 190 > 10 > max(green, blue)
    # A driver that made the picture first says the same in front.
    colour = np.full((32, 32, 3), (10, 20, 200), np.uint8)
    rgb = message_rgb(compressed(make, "bayer_rggb8; jpeg compressed bgr8", suffix, colour))
    assert np.abs(rgb.astype(int) - (200, 20, 10)).max() < 8
    with pytest.raises(InputError, match="'bayer_abcd8', expected one of the Bayer patterns"):
        message_rgb(compressed(make, "bayer_abcd8; jpeg compressed", suffix, mosaic))


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ("16UC1; png compressed", "'16UC1; png compressed', which is depth"),
        ("32FC1; compressedDepth png", "which is depth"),
        ("theora", "'theora', a video stream"),
        ("av1", "a video stream, expected h264, h265, vp9"),
    ],
)
def test_what_is_no_picture_is_refused_by_its_format(make: Any, form: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        message_rgb(compressed(make, form, ".png", np.full((4, 4), 1500, np.uint16)))


def test_a_16_bit_png_of_12_bits(make: Any) -> None:
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    message = compressed(make, "mono16; png compressed", ".png", gray.astype(np.uint16) << 4)
    told = ImageReader(12).rgb(message)
    assert told is not None
    assert np.array_equal(told[..., 0], gray)
    assert np.array_equal(message_rgb(message)[..., 0], gray >> 4)


def test_more_pixels_than_allowed_are_refused_raw_and_compressed(make: Any) -> None:
    reader = ImageReader(max_pixels=23)
    for message in (image(make, "rgb8", picture()), compressed(make, "jpeg", ".jpg", picture())):
        with pytest.raises(InputError, match=r"6x4, expected at most 2\.3e-05 million pixels"):
            reader.rgb(message)
        assert ImageReader(max_pixels=24).rgb(message) is not None
    with pytest.raises(InputError, match="expected at most"):
        message_depth_m(image(make, "16UC1", np.ones((4, 6), np.uint16)), max_pixels=23)
