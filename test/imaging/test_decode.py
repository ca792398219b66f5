"""Compressed pictures: right colours, and clear words for what cannot be read."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest

from dense_perception.core.errors import InputError
from dense_perception.imaging.decode import (
    decode_compressed,
    decode_compressed_depth,
    decode_labels,
)
from dense_perception.imaging.encodings import SignificantBits


def scene(height: int = 40, width: int = 56) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 4, y * 5, (x + y) * 2], axis=-1).astype(np.uint8)


def encode(extension: str, rgb: np.ndarray, *options: int) -> bytes:
    ok, data = cv2.imencode(extension, np.ascontiguousarray(rgb[..., ::-1]), options)
    assert ok
    return bytes(data)


@pytest.mark.parametrize(
    ("extension", "tolerance"),
    [(".png", 0), (".bmp", 0), (".jpg", 12), (".webp", 24), (".tiff", 0), (".ppm", 0)],
)
@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda b: np.frombuffer(b, "u1")])
def test_round_trip_in_rgb(extension: str, tolerance: int, wrap: object) -> None:
    rgb = scene()
    got = decode_compressed(wrap(encode(extension, rgb)))  # type: ignore[operator]
    assert got.shape == rgb.shape
    assert np.abs(got.astype(int) - rgb.astype(int)).max() <= tolerance


def test_gray_progressive_and_alpha() -> None:
    gray = cv2.imencode(".jpg", scene()[..., 0])[1].tobytes()
    got = decode_compressed(gray)
    assert np.array_equal(got[..., 0], got[..., 2])
    progressive = encode(".jpg", scene(), cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    assert decode_compressed(progressive).shape == (40, 56, 3)
    bgra = np.dstack([scene()[..., ::-1], np.full((40, 56), 9, np.uint8)])
    png = cv2.imencode(".png", bgra)[1].tobytes()
    assert np.array_equal(decode_compressed(png), scene())


@pytest.mark.parametrize("extension", [".jpg", ".png", ".tiff", ".ppm"])
@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.5, 0.9, 0.99])
def test_truncated(extension: str, fraction: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    whole = encode(extension, noise)
    with pytest.raises(InputError, match=r"cut off|damaged|expected JPEG"):
        decode_compressed(whole[: int(len(whole) * fraction)])


def test_zeros_after_the_end_are_fine() -> None:
    whole = encode(".jpg", scene())
    assert np.array_equal(decode_compressed(whole + bytes(1000)), decode_compressed(whole))


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"\xff\xd8", b"\xff\xd8\xff", b"hello world", bytes(100), b"\x89PNG\r\n\x1a\n"],
)
def test_not_a_picture(data: bytes) -> None:
    with pytest.raises(InputError, match="picture"):
        decode_compressed(data)


def test_random_damage_never_raises_anything_else() -> None:
    generator = np.random.default_rng(0)
    for extension in (".jpg", ".png", ".bmp", ".webp"):
        whole = np.frombuffer(encode(extension, scene()), np.uint8)
        for _ in range(60):
            damaged = whole.copy()
            places = generator.integers(0, len(whole), 3)
            damaged[places] = generator.integers(0, 256, 3)
            try:
                got = decode_compressed(damaged)
            except InputError:
                continue
            assert got.ndim == 3


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def test_a_bomb_is_refused_from_its_header() -> None:
    with pytest.raises(InputError, match=r"60000x60000.*96 million"):
        decode_compressed(png_claiming(60_000, 60_000))
    with pytest.raises(InputError, match="56x40"):
        decode_compressed(encode(".jpg", scene()), max_pixels=56 * 40 - 1)
    with pytest.raises(InputError, match="damaged"):
        decode_compressed(png_claiming(0, 10))


def exif_turned(jpeg: bytes) -> bytes:
    tiff = b"MM\x00*\x00\x00\x00\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0)
    body = b"Exif\x00\x00" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def test_orientation_only_when_asked() -> None:
    turned = exif_turned(encode(".jpg", scene()))
    assert decode_compressed(turned).shape == (40, 56, 3)
    assert decode_compressed(turned, apply_orientation=True).shape == (56, 40, 3)


def test_compressed_depth() -> None:
    millimetres = np.array([[0, 1, 2500], [65535, 10, 0]], np.uint16)
    png = cv2.imencode(".png", millimetres)[1].tobytes()
    expected = np.where(millimetres == 0, np.nan, millimetres / 1000.0)
    np.testing.assert_allclose(decode_compressed_depth(png), expected, rtol=1e-6)
    np.testing.assert_allclose(decode_compressed_depth(bytes(12) + png), expected, rtol=1e-6)
    metres = np.array([[0.5, 2.0], [4.0, 8.0]])
    a, b = 4000.0, 3.0
    quantised = cv2.imencode(".png", np.round(a / metres + b).astype(np.uint16))[1].tobytes()
    header = struct.pack("<iff", 0, a, b)
    np.testing.assert_allclose(decode_compressed_depth(header + quantised), metres, rtol=0.001)
    # The transport leaves what happened to be in memory in the header of 16UC1.
    np.testing.assert_allclose(decode_compressed_depth(header + png, "16UC1"), expected, rtol=1e-6)
    beyond = cv2.imencode(".png", np.array([[2, 3]], np.uint16))[1].tobytes()
    assert np.isnan(decode_compressed_depth(header + beyond, "32FC1")).all()
    for wrong in (b"", b"RVL" * 20, png[:40], encode(".png", scene())):
        with pytest.raises(InputError, match=r"compressed depth|PNG"):
            decode_compressed_depth(wrong)


@pytest.mark.parametrize("kind", [b"IDAT", b"tEXt", b"PLTE", b"fdAT", b"tRNS"])
def test_a_chunk_beyond_the_bytes_is_refused_before_decoding(kind: bytes) -> None:
    whole = cv2.imencode(".png", np.zeros((4, 4), np.uint16))[1].tobytes()
    bomb = whole[:33] + (0xFFFFFF00).to_bytes(4, "big") + kind + whole[33:]
    for decode in (decode_compressed, decode_compressed_depth):
        with pytest.raises(InputError, match="is cut off after"):
            decode(bomb)
    with pytest.raises(InputError, match="is cut off after"):
        decode_compressed_depth(bytes(12) + bomb, "16UC1")


@pytest.mark.parametrize("bare", [b"\xff\x01", b"\xff\xd0", b"\xff\xd7", b"\xff\xff\xff\x01"])
def test_markers_without_a_length_hide_no_frame_header(bare: bytes) -> None:
    large = cv2.imencode(".jpg", np.zeros((300, 400), np.uint8))[1].tobytes()
    # Read as a segment with a length, the marker would jump over the true frame header.
    at = large.index(b"\xff\xc0")
    tricked = large[:at] + bare + large[at:]
    assert decode_compressed(tricked).shape == (300, 400, 3)
    with pytest.raises(InputError, match="400x300, expected at most"):
        decode_compressed(tricked, max_pixels=1000)


def test_two_frame_headers_are_refused() -> None:
    data = cv2.imencode(".jpg", np.zeros((30, 40), np.uint8))[1].tobytes()
    at = data.index(b"\xff\xc0")
    end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    with pytest.raises(InputError, match="two frame headers"):
        decode_compressed(data[:at] + data[at:end] + data[at:])


def test_a_picture_of_many_scans_is_refused() -> None:
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    data = cv2.imencode(".jpg", np.zeros((30, 40, 3), np.uint8), options)[1].tobytes()
    assert decode_compressed(data).shape == (30, 40, 3)
    at = data.rindex(b"\xff\xda")
    with pytest.raises(InputError, match="over 200 scans"):
        decode_compressed(data[:at] + data[at:-2] * 300 + data[-2:])


@pytest.mark.parametrize(
    ("size", "repeats", "named"),
    [
        ((4000, 4000), 190, r"has 76 scans of 4000x4000 pixels or more"),
        ((6000, 6000), 1, "progressive JPEG picture is 6000x6000, expected at most 33.6 million"),
    ],
)
def test_a_progressive_picture_costs_no_more_than_another(
    size: tuple[int, int], repeats: int, named: str
) -> None:
    """Small files that claim a large area: scans cost time, and all of it is held at once."""
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    data = bytearray(cv2.imencode(".jpg", np.zeros((30, 40, 3), np.uint8), options)[1].tobytes())
    at = data.index(b"\xff\xc2")
    data[at + 5 : at + 9] = size[0].to_bytes(2, "big") + size[1].to_bytes(2, "big")
    last = data.rindex(b"\xff\xda")
    with pytest.raises(InputError, match=named):
        decode_compressed(bytes(data[:last] + data[last:-2] * repeats + data[-2:]))


def test_an_animated_picture_costs_no_more_than_another() -> None:
    sides = (5000 - 1).to_bytes(3, "little") * 2
    extended = b"VP8X\x0a\0\0\0\x02\0\0\0" + sides  # the flag says that it is animated
    data = b"RIFF" + (len(extended) + 4).to_bytes(4, "little") + b"WEBP" + extended
    with pytest.raises(InputError, match=r"animated WebP .* 5000x5000, expected at most 19\.2"):
        decode_compressed(data)


def test_a_bitmap_larger_than_its_bytes_is_refused() -> None:
    data = bytearray(cv2.imencode(".bmp", np.zeros((4, 4, 3), np.uint8))[1].tobytes())
    assert decode_compressed(bytes(data)).shape == (4, 4, 3)
    data[18:26] = (9000).to_bytes(4, "little") * 2
    with pytest.raises(InputError, match="BMP picture is cut off"):
        decode_compressed(bytes(data))


@pytest.mark.parametrize("extension", [".gif", ".avif"])
def test_formats_that_only_some_builds_read(extension: str) -> None:
    try:
        data = encode(extension, scene())
    except (cv2.error, AssertionError):
        pytest.skip(f"OpenCV {cv2.__version__} writes no {extension}")
    got = decode_compressed(data)
    assert np.abs(got.astype(int) - scene().astype(int)).mean() < 20  # a GIF has 256 colours
    with pytest.raises(InputError, match=r"56x40, expected at most .* million pixels"):
        decode_compressed(data, max_pixels=56 * 40 - 1)
    for fraction in (0.1, 0.5, 0.9):
        with pytest.raises(InputError, match=r"cut off|damaged|expected JPEG"):
            decode_compressed(data[: int(len(data) * fraction)])


def test_tiff_claims_are_checked_against_its_bytes() -> None:
    data = encode(".tiff", scene(), cv2.IMWRITE_TIFF_COMPRESSION, 1)
    width = struct.pack("<HHI", 256, 3, 1)
    at = data.index(width) + 8
    claims = bytearray(data)
    claims[at : at + 2] = struct.pack("<H", 60_000)
    with pytest.raises(InputError, match="TIFF picture claims 60000x40 and holds"):
        decode_compressed(bytes(claims))
    # A raw photograph starts with a small preview, which says so in the tag 254.
    preview = bytearray(data)
    preview[at - 8 : at + 2] = struct.pack("<HHIH", 254, 3, 1, 1)
    with pytest.raises(InputError, match="raw photograph"):
        decode_compressed(bytes(preview))
    sixteen = cv2.imencode(".tiff", scene()[..., 0].astype(np.uint16) << 4)[1].tobytes()
    got = decode_compressed(sixteen, bits=SignificantBits(12))
    assert np.array_equal(got[..., 0], scene()[..., 0])


@pytest.mark.parametrize(
    ("head", "pixels", "wanted"),
    [
        (b"P5\n# by a camera\n3 1\n255\n", bytes([0, 128, 255]), [0, 128, 255]),
        (b"P5 3 1 100\n", bytes([0, 50, 100]), [0, 128, 255]),
        (b"P5 3 1 1023\n", b"\0\0\2\0\3\xff", [0, 128, 255]),
        (b"P2 3 1 255\n", b"0 128 255\n", [0, 128, 255]),
    ],
)
def test_pgm_says_how_bright_white_is(head: bytes, pixels: bytes, wanted: list[int]) -> None:
    assert decode_compressed(head + pixels)[0, :, 0].tolist() == wanted
    with pytest.raises(InputError, match="PNM picture is cut off"):
        decode_compressed(head + pixels[:1])


def palette_png(indices_hw: np.ndarray, depth: int) -> bytes:
    """Written as the standard says, with colours that have nothing to do with the indices."""
    height, width = indices_hw.shape
    bits = (indices_hw[..., None] >> np.arange(depth - 1, -1, -1)) & 1
    rows = np.packbits(bits.reshape(height, width * depth).astype(np.uint8), axis=1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + check

    colours = bytes((7 * i + 90) % 256 for i in range(3 * 2**depth))
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 3, 0, 0, 0)),
            chunk(b"PLTE", colours),
            chunk(b"tRNS", b"\0\x80"),
            chunk(b"IDAT", zlib.compress(raw)),
            chunk(b"IEND", b""),
        ]
    )


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_labels_of_a_palette_are_its_indices(depth: int) -> None:
    indices_hw = np.random.default_rng(depth).integers(0, 2**depth, (5, 9))
    assert np.array_equal(decode_labels(palette_png(indices_hw, depth)), indices_hw)
    gray = indices_hw.astype(np.uint8)
    assert np.array_equal(decode_labels(cv2.imencode(".png", gray)[1].tobytes()), gray)


def test_labels_are_pngs_of_one_channel() -> None:
    with pytest.raises(InputError, match="it is JPEG, expected a PNG of one channel"):
        decode_labels(encode(".jpg", scene()))
    with pytest.raises(InputError, match="several channels"):
        decode_labels(encode(".png", scene()))
