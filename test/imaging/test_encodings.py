"""Message fields to RGB and depth, against hand-made bytes and the rosbags-image library."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from rosbags.image import message_to_cvimage

from dense_perception.core.errors import InputError
from dense_perception.imaging.encodings import (
    DEPTH_ENCODINGS,
    IMAGE_ENCODINGS,
    SignificantBits,
    decode_depth,
    decode_image,
)

# Bytes per pixel of a packed row.
PIXEL_BYTES = {
    "rgb8": 3, "bgr8": 3, "8UC3": 3, "rgba8": 4, "bgra8": 4, "8UC4": 4, "mono8": 1, "8UC1": 1,
    "mono16": 2, "rgb16": 6, "bgr16": 6, "yuv422": 2, "uyvy": 2, "yuv422_yuy2": 2, "yuyv": 2,
    "nv12": 1, "nv21": 1, "bayer_rggb8": 1, "bayer_bggr8": 1, "bayer_gbrg8": 1, "bayer_grbg8": 1,
    "rgba16": 8, "bgra16": 8, "bayer_rggb16": 2, "bayer_bggr16": 2, "bayer_gbrg16": 2,
    "bayer_grbg16": 2,
}  # fmt: skip
# The oracle gives raw types no colour meaning, and reads too few rows of two-plane formats.
ORACLE = [name for name in PIXEL_BYTES if not name.startswith(("8UC", "nv"))]
HEIGHT, WIDTH = 6, 8


def rows_of(encoding: str) -> int:
    return HEIGHT * 3 // 2 if encoding.startswith("nv") else HEIGHT


def random_bytes(encoding: str, seed: int = 0) -> np.ndarray:
    shape = (rows_of(encoding), WIDTH * PIXEL_BYTES[encoding])
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_every_encoding_is_listed() -> None:
    assert set(IMAGE_ENCODINGS) == set(PIXEL_BYTES)


@pytest.mark.parametrize("encoding", ORACLE)
@pytest.mark.parametrize("big_endian", [False, True])
def test_agrees_with_rosbags_image(encoding: str, big_endian: bool) -> None:
    rows = random_bytes(encoding)
    if encoding.startswith("bayer") and encoding.endswith("16"):
        tolerance = 2  # cut before the neighbours are averaged, not after
    elif PIXEL_BYTES[encoding] in (2, 6, 8) and not encoding.startswith(("yuv", "uyvy", "yuyv")):
        tolerance = 1  # 16 to 8 bit: we cut, the oracle scales
    else:
        tolerance = 0
    message = SimpleNamespace(
        encoding=encoding,
        width=WIDTH,
        height=HEIGHT,
        step=rows.shape[1],
        data=rows.reshape(-1),
        is_bigendian=big_endian,
    )
    expected = message_to_cvimage(message, "rgb8")
    if encoding.startswith(("mono",)) and expected.ndim == 2:
        expected = np.repeat(expected[..., None], 3, axis=2)
    got = decode_image(encoding, WIDTH, HEIGHT, rows.shape[1], rows.tobytes(), big_endian)
    assert got.shape == (HEIGHT, WIDTH, 3)
    assert got.dtype == np.uint8
    assert np.abs(got.astype(int) - expected.astype(int)).max() <= tolerance


@pytest.mark.parametrize("encoding", sorted(PIXEL_BYTES))
def test_row_padding_changes_nothing(encoding: str) -> None:
    rows = random_bytes(encoding)
    padded = np.pad(rows, ((0, 0), (0, 5)), constant_values=0xEE)
    plain = decode_image(encoding, WIDTH, HEIGHT, rows.shape[1], rows.tobytes())
    got = decode_image(encoding, WIDTH, HEIGHT, padded.shape[1], padded.tobytes())
    assert np.array_equal(got, plain)


@pytest.mark.parametrize(
    ("encoding", "pixel"),
    [
        ("rgb8", (10, 20, 30)),
        ("bgr8", (30, 20, 10)),
        ("8UC3", (30, 20, 10)),
        ("rgba8", (10, 20, 30, 77)),
        ("bgra8", (30, 20, 10, 77)),
        ("8UC4", (30, 20, 10, 77)),
    ],
)
def test_channel_order(encoding: str, pixel: tuple[int, ...]) -> None:
    data = bytes(pixel) * 4
    got = decode_image(encoding, 2, 2, 2 * len(pixel), data)
    assert (got == np.array([10, 20, 30])).all()


@pytest.mark.parametrize(("encoding", "red_first"), [("nv12", False), ("nv21", True)])
def test_two_plane_chroma_order(encoding: str, red_first: bool) -> None:
    # BT.601 limited range: Y=81, U=90, V=240 is pure red; swapped chroma is not.
    chroma = (240, 90) if red_first else (90, 240)
    data = bytes([81] * 8) + bytes(chroma * 2)
    rgb = decode_image(encoding, 4, 2, 4, data)
    assert np.abs(rgb.astype(int) - [255, 0, 0]).max() <= 2


@pytest.mark.parametrize(
    ("encoding", "cell"),
    [
        ("bayer_rggb8", [[200, 100], [100, 50]]),
        ("bayer_bggr8", [[50, 100], [100, 200]]),
        ("bayer_gbrg8", [[100, 50], [200, 100]]),
        ("bayer_grbg8", [[100, 200], [50, 100]]),
    ],
)
def test_bayer_pattern_of_one_colour(encoding: str, cell: list[list[int]]) -> None:
    mosaic = np.tile(np.array(cell, np.uint8), (4, 4))
    rgb = decode_image(encoding, 8, 8, 8, mosaic.tobytes())
    assert (rgb[2:-2, 2:-2] == [200, 100, 50]).all()


def test_rgb8_is_not_copied() -> None:
    data = bytearray(range(2 * 2 * 3))
    got = decode_image("rgb8", 2, 2, 6, data)
    data[0] = 99
    assert got[0, 0, 0] == 99


def test_millimetres_and_metres() -> None:
    millimetres = np.array([[0, 1, 1500, 65535]], np.uint16)
    expected = np.array([[np.nan, 0.001, 1.5, 65.535]], np.float32)
    for encoding in ("16UC1", "mono16"):
        got = decode_depth(encoding, 4, 1, 8, millimetres.tobytes())
        np.testing.assert_allclose(got, expected, rtol=1e-6)
    big = decode_depth("16UC1", 4, 1, 8, millimetres.astype(">u2").tobytes(), True)
    np.testing.assert_allclose(big, expected, rtol=1e-6)

    metres = np.array([[0, -1, np.inf, np.nan, 2.5]], np.float32)
    expected = np.array([[np.nan] * 4 + [2.5]], np.float32)
    for order in "<>":
        data = metres.astype(f"{order}f4").tobytes()
        got = decode_depth("32FC1", 5, 1, 20, data, order == ">")
        np.testing.assert_array_equal(got, expected)
        assert got.dtype == np.float32


def test_depth_rows_may_be_padded_by_an_odd_number_of_bytes() -> None:
    rows = np.array([[1000, 2000], [3000, 4000]], "<u2").view(np.uint8).reshape(2, 4)
    data = np.pad(rows, ((0, 0), (0, 3))).tobytes()
    np.testing.assert_allclose(decode_depth("16UC1", 2, 2, 7, data), [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"step": 23}, ["step is 23", "24", "rgb8"]),
        ({"step": 0}, ["step is 0", "24"]),
        ({"data": bytes(24 * 6 - 1)}, ["143 bytes", "144", "cut off"]),
        ({"data": b""}, ["0 bytes", "144"]),
        ({"width": 0}, ["0x6", "1x1"]),
        ({"height": 0}, ["8x0", "1x1"]),
        ({"encoding": "rgb888"}, ["'rgb888'", "rgb8", "bayer_rggb8"]),
        ({"encoding": ""}, ["''", "rgb8"]),
        ({"encoding": "16UC1"}, ["'16UC1'", "depth"]),
        ({"encoding": "nv12", "height": 5}, ["height", "5", "even"]),
        ({"encoding": "yuv422", "width": 7}, ["width", "7", "even"]),
        ({"data": "text"}, ["str", "bytes"]),
    ],
)
def test_wrong_fields_are_named(changes: dict[str, object], words: list[str]) -> None:
    fields: dict[str, object] = {
        "encoding": "rgb8",
        "width": WIDTH,
        "height": HEIGHT,
        "step": WIDTH * 3,
        "data": bytes(WIDTH * 3 * HEIGHT),
    }
    with pytest.raises(InputError) as caught:
        decode_image(**{**fields, **changes})  # type: ignore[arg-type]
    for word in words:
        assert word in str(caught.value)


def test_a_picture_is_no_depth() -> None:
    with pytest.raises(InputError, match="'rgb8', expected 16UC1"):
        decode_depth("rgb8", 2, 2, 6, bytes(12))
    assert set(DEPTH_ENCODINGS) == {"16UC1", "mono16", "32FC1"}


def test_one_pixel_of_bayer_is_an_input_error_or_a_pixel() -> None:
    try:
        got = decode_image("bayer_rggb8", 1, 1, 1, b"\x05")
    except InputError:
        return
    assert got.shape == (1, 1, 3)


@pytest.mark.parametrize(("bits", "encoding"), [(10, "mono16"), (12, "rgb16"), (12, "mono16")])
def test_cameras_that_use_the_low_bits(bits: int, encoding: str) -> None:
    channels = PIXEL_BYTES[encoding] // 2
    wanted = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, channels), np.uint8)
    wanted[0, 0] = 255
    data = (wanted.astype("<u2") << (bits - 8)).tobytes()
    fields = (encoding, WIDTH, HEIGHT, WIDTH * PIXEL_BYTES[encoding], data, False)
    watch = SignificantBits()
    assert decode_image(*fields, watch).max() < 16
    assert watch.doubt == bits
    told = SignificantBits(bits)
    assert np.array_equal(decode_image(*fields, told), np.broadcast_to(wanted, (6, 8, 3)))
    assert told.doubt == 0


def test_high_bits_in_one_picture_end_the_doubt() -> None:
    watch = SignificantBits()
    watch.to_8bit(np.full((2, 2), 700, np.uint16))
    assert watch.doubt == 10
    watch.to_8bit(np.full((2, 2), 5000, np.uint16))
    assert watch.doubt == 0
    assert SignificantBits(12).to_8bit(np.array([70, 65535], np.uint16)).tolist() == [4, 255]
    with pytest.raises(InputError, match="expected 9 to 16"):
        SignificantBits(8)
