"""Valid pictures of every format, and damage that knows their structure.

Bit flips alone seldom come past the first check: what is dangerous is a well-formed file whose
lengths, sizes, counts or offsets lie.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from contextlib import suppress

import cv2
import numpy as np

from test.fuzz.mutations import NUMBERS, damaged, pick

Damage = Callable[[bytes, np.random.Generator], bytes]
PNG = b"\x89PNG\r\n\x1a\n"
_LARGE = 1 << 20
SIZES = (0, 1, 7, 100, 5000, 30_000, 65_535, 65_536, 2**24 - 1, 2**31 - 1)
"""What widths and heights are set to."""


def random_picture(rng: np.random.Generator) -> np.ndarray:
    """A small smooth picture: gray, colour or with alpha, 8 bit."""
    height, width = (int(side) for side in rng.integers(1, 70, 2))
    channels = int(pick(rng, (1, 3, 4)))
    shape = (height, width, channels) if channels > 1 else (height, width)
    noise = rng.integers(0, 256, shape, np.uint8)
    return cv2.blur(noise, (3, 3)) if rng.random() < 0.5 else noise


def valid(suffix: str, rng: np.random.Generator) -> bytes:
    """A whole picture of that format; the format's options vary."""
    picture = random_picture(rng)
    options: list[int] = []
    if suffix == ".jpg":
        picture = picture if picture.ndim == 2 else picture[..., :3]
        options = [cv2.IMWRITE_JPEG_PROGRESSIVE, int(rng.integers(2))]
        options += [cv2.IMWRITE_JPEG_RST_INTERVAL, int(pick(rng, (0, 1, 4)))]
        options += [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(1, 101))]
    elif suffix == ".png":
        if rng.random() < 0.3:
            picture = picture.astype(np.uint16) << 4
        options = [cv2.IMWRITE_PNG_COMPRESSION, int(rng.integers(10))]
    elif suffix == ".webp":
        options = [cv2.IMWRITE_WEBP_QUALITY, int(pick(rng, (1, 50, 101)))]
    elif suffix in (".tif", ".tiff"):
        if rng.random() < 0.3:
            picture = picture.astype(np.uint16) << 4
        options = [cv2.IMWRITE_TIFF_COMPRESSION, int(pick(rng, (1, 5, 8, 32773)))]
    elif suffix in (".ppm", ".pgm", ".pnm"):
        picture = picture[..., :3] if suffix == ".ppm" and picture.ndim == 3 else picture
        picture = np.atleast_2d(picture if picture.ndim == 2 else picture[..., 0])
        if suffix == ".ppm":
            picture = np.dstack([picture] * 3)
        options = [cv2.IMWRITE_PXM_BINARY, int(rng.integers(2))]
    elif suffix in (".gif", ".avif", ".jp2"):
        picture = picture if picture.ndim == 3 else np.dstack([picture] * 3)
    done, data = cv2.imencode(suffix, np.ascontiguousarray(picture), options)
    assert done, suffix
    return data.tobytes()


def depth_png(rng: np.random.Generator) -> bytes:
    """The payload of ``compressedDepth``: a header of twelve bytes and a 16-bit PNG."""
    depth = rng.integers(0, 5000, tuple(rng.integers(1, 50, 2)), np.uint16)
    png = cv2.imencode(".png", depth)[1].tobytes()
    header = struct.pack("<iff", int(rng.integers(2)), *rng.uniform(-10, 1000, 2))
    return header + png if rng.random() < 0.7 else png


def broken(data: bytes, rng: np.random.Generator) -> bytes:
    """Damaged by its format's structure, or anywhere, or both."""
    for _ in range(int(pick(rng, (0, 1, 1, 2, 3)))):
        if len(data) > _LARGE:  # repeated thousands of times, and that again
            break
        # What is damaged may leave no structure for the next.
        with suppress(struct.error, IndexError, ValueError, KeyError):
            data = _by_structure(data)(data, rng)
    return damaged(data, rng) if rng.random() < 0.4 else data


def _by_structure(data: bytes) -> Damage:
    if data.startswith(PNG) or data[12:20] == PNG:
        return _png
    for start, how in {
        b"\xff\xd8": _jpeg,
        b"BM": _bmp,
        b"RIFF": _webp,
        b"II": _tiff,
        b"MM": _tiff,
        b"P": _pnm,
    }.items():
        if data.startswith(start):
            return how
    return _boxes if data[4:8] in (b"ftyp", b"jP  ") else damaged


def _chunk(kind: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def _bomb(rng: np.random.Generator) -> bytes:
    return zlib.compress(bytes(int(10 ** rng.uniform(3, 7.5))), 9)


def _png(data: bytes, rng: np.random.Generator) -> bytes:
    start = 0 if data.startswith(PNG) else 12
    head, rest = data[: start + 8], data[start + 8 :]
    chunks: list[tuple[bytes, bytes]] = []
    while len(rest) >= 12:
        length, kind = struct.unpack_from(">I4s", rest)
        chunks.append((kind, rest[8 : 8 + length]))
        rest = rest[12 + length :]
    place = int(rng.integers(len(chunks)))
    kind, content = chunks[place]
    how = int(rng.integers(8))
    if how == 0:  # a size, depth, colour type or interlacing that is not so
        header = bytearray(chunks[0][1])
        field = int(rng.integers(7))
        if field < 2:
            struct.pack_into(">I", header, 4 * field, pick(rng, SIZES))
        else:
            header[6 + field] = int(pick(rng, (0, 1, 2, 3, 4, 6, 8, 16, 255)))
        chunks[0] = (b"IHDR", bytes(header))
    elif how == 1:
        chunks[place:place] = [(kind, content)] * int(pick(rng, (1, 2, 300)))
    elif how == 2:
        del chunks[place]
    elif how == 3:  # text, profile and palette chunks, some of them bombs
        new = pick(
            rng,
            (
                (b"zTXt", b"k\0\0" + _bomb(rng)),
                (b"iCCP", b"p\0\0" + _bomb(rng)),
                (b"iTXt", b"k\0\1\0\0\0" + _bomb(rng)),
                (b"tEXt", b"k\0" + bytes(1000)),
                (b"PLTE", bytes(3 * int(rng.integers(0, 300)))),
                (b"tRNS", bytes(int(rng.integers(0, 300)))),
                (b"eXIf", b"MM\0*" + rng.bytes(40)),
                (b"gAMA", rng.bytes(4)),
                (b"cHRM", rng.bytes(32)),
                (b"sBIT", rng.bytes(4)),
            ),
        )
        chunks.insert(int(rng.integers(len(chunks) + 1)), new)
    elif how == 4:
        chunks = [(k, _bomb(rng) if k == b"IDAT" else c) for k, c in chunks]
    elif how == 5:  # animation
        frames = struct.pack(">II", pick(rng, NUMBERS), 0)
        sizes = [pick(rng, (0, 1, 10, 100, 2**31)) for _ in range(4)]
        control = struct.pack(">5IHHBB", 0, *sizes, 1, 1, *rng.integers(0, 4, 2).tolist())
        chunks[1:1] = [(b"acTL", frames), (b"fcTL", control)]
        chunks.insert(len(chunks) - 1, (b"fdAT", struct.pack(">I", 1) + content))
    elif how == 6:
        chunks[place] = (kind, damaged(content, rng))
    whole = head + b"".join(_chunk(k, c) for k, c in chunks)
    if how == 7:  # a length that is not so
        position = len(head) + sum(12 + len(c) for _, c in chunks[:place])
        changed = bytearray(whole)
        struct.pack_into(">I", changed, position, pick(rng, NUMBERS))
        whole = bytes(changed)
    return whole


def _segments(data: bytes) -> list[bytes]:
    """The marker segments of a JPEG; a scan's data belongs to its header."""
    parts, position = [data[:2]], 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == 0xDA:
            while end + 1 < len(data) and not (
                data[end] == 0xFF and data[end + 1] not in (0, *range(0xD0, 0xD8))
            ):
                end += 1
        if marker == 0xD9:
            break
        parts.append(data[position:end])
        position = end
    return [*parts, b"\xff\xd9"]


def _jpeg(data: bytes, rng: np.random.Generator) -> bytes:
    parts = _segments(data)
    place = int(rng.integers(1, len(parts)))
    part = bytearray(parts[place])
    frames = [i for i, each in enumerate(parts) if each[1:2] in (b"\xc0", b"\xc1", b"\xc2")]
    scans = [i for i, each in enumerate(parts) if each[1:2] == b"\xda"]
    how = int(rng.integers(10))
    if how == 0:  # a size that is not so
        frame = bytearray(parts[frames[0]])
        struct.pack_into(">H", frame, 5 + 2 * int(rng.integers(2)), pick(rng, SIZES) & 0xFFFF)
        parts[frames[0]] = bytes(frame)
    elif how == 1:  # sampling, number of components, precision, kind of coding
        frame = bytearray(parts[frames[0]])
        which = int(rng.integers(4))
        if which == 0:
            frame[11] = int(pick(rng, (0x11, 0x12, 0x41, 0x44, 0x00, 0xFF)))
        elif which == 1:
            frame[9] = int(pick(rng, (0, 1, 2, 3, 4, 255)))
        elif which == 2:
            frame[4] = int(pick(rng, (1, 8, 12, 16)))
        else:
            frame[1] = int(pick(rng, (0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA, 0xC5)))
        parts[frames[0]] = bytes(frame)
    elif how == 2:
        parts[scans[0] : scans[0]] = [parts[pick(rng, scans)]] * int(pick(rng, (1, 20, 190, 3000)))
    elif how == 3:
        del parts[place]
    elif how == 4:
        parts.insert(place, bytes(part))
    elif how == 5 and len(part) >= 4:
        struct.pack_into(">H", part, 2, pick(rng, NUMBERS) & 0xFFFF)
        parts[place] = bytes(part)
    elif how == 6:  # markers without a length, fill bytes, data between segments
        parts.insert(
            place,
            pick(
                rng, (b"\xff\x01", b"\xff\xd0", b"\xff" * 500, b"\0" * 50, b"\xff\0", b"\xff\xd8")
            ),
        )
    elif how == 7:  # restart intervals, comments, profiles and EXIF with offsets that lead nowhere
        new = pick(
            rng,
            (
                b"\xff\xdd\0\4" + rng.bytes(2),
                b"\xff\xfe\xff\xff" + bytes(65_533),
                b"\xff\xe1\0\x40Exif\0\0MM\0*" + rng.bytes(54),
                b"\xff\xe1\0\x40Exif\0\0II*\0\x08\0\0\0" + rng.bytes(50),
                b"\xff\xe2\0\x40ICC_PROFILE\0" + rng.bytes(50),
                b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + rng.bytes(1),
            ),
        )
        parts.insert(1, new)
    elif how == 8:
        parts[place] = part[:4] + damaged(bytes(part[4:]), rng)
    else:
        parts.pop()
    return b"".join(parts)


def _bmp(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    # file size, offset, header size, width, height, planes and bits, compression, size, colours
    place = int(pick(rng, (2, 10, 14, 18, 22, 26, 30, 34, 46)))
    number = int(pick(rng, (*SIZES, *NUMBERS, 2**32 - 5)))
    if place == 26:
        number = 1 | int(pick(rng, (0, 1, 4, 8, 15, 16, 24, 32, 64))) << 16
    elif place == 30:
        number = int(pick(rng, (0, 1, 2, 3, 4, 5, 255)))
        if rng.random() < 0.5:
            changed[28] = int(pick(rng, (4, 8)))
    struct.pack_into("<I", changed, place, number & 0xFFFFFFFF)
    return bytes(changed)


def _webp(data: bytes, rng: np.random.Generator) -> bytes:
    chunks, position = [], 12
    while position + 8 <= len(data):
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        chunks.append((data[position : position + 4], data[position + 8 : position + 8 + length]))
        position += 8 + length + length % 2
    place = int(rng.integers(len(chunks)))
    kind, content = chunks[place]
    how = int(rng.integers(6))
    if how == 0:  # an extended header with a canvas of its own, some of them animated
        flags = int(pick(rng, (0x00, 0x02, 0x10, 0x12, 0x2C)))
        sides = [int(pick(rng, SIZES)) & 0xFFFFFF for _ in range(2)]
        canvas = bytes([flags, 0, 0, 0]) + b"".join(s.to_bytes(3, "little") for s in sides)
        chunks.insert(0, (b"VP8X", canvas))
        if flags & 2:
            frame = bytes(6) + b"".join(
                int(pick(rng, SIZES[:6])).to_bytes(3, "little") for _ in range(3)
            )
            inner = kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
            chunks = [
                chunks[0],
                (b"ANIM", bytes(6)),
                *[(b"ANMF", frame + b"\0" + inner)] * int(pick(rng, (1, 3, 500))),
            ]
    elif how == 1:  # the size inside the stream
        changed = bytearray(content)
        at = 1 if kind == b"VP8L" else 6
        struct.pack_into("<H", changed, at, pick(rng, SIZES) & 0xFFFF)
        chunks[place] = (kind, bytes(changed))
    elif how == 2:
        chunks[place:place] = [chunks[place]] * int(pick(rng, (1, 5, 500)))
    elif how == 3:
        new = pick(rng, ((b"ALPH", rng.bytes(50)), (b"ICCP", bytes(500)), (b"EXIF", b"MM\0*")))
        chunks.insert(int(rng.integers(len(chunks) + 1)), new)
    elif how == 4:
        chunks[place] = (kind, damaged(content, rng))
    body = b"".join(k + struct.pack("<I", len(c)) + c + b"\0" * (len(c) % 2) for k, c in chunks)
    whole = bytearray(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body)
    if how == 5:
        struct.pack_into("<I", whole, int(pick(rng, (4, 16))), pick(rng, NUMBERS))
    return bytes(whole)


def _tiff(data: bytes, rng: np.random.Generator) -> bytes:
    order = "<" if data[:2] == b"II" else ">"
    changed = bytearray(data)
    (directory,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, directory)
    how = int(rng.integers(6))
    entry = directory + 2 + 12 * int(rng.integers(count))
    if how == 0:  # a value or an offset: sizes, strips, compression, bits
        struct.pack_into(f"{order}I", changed, entry + 8, pick(rng, (*SIZES, *NUMBERS)))
    elif how == 1:  # how many values
        struct.pack_into(f"{order}I", changed, entry + 4, pick(rng, NUMBERS))
    elif how == 2:
        struct.pack_into(f"{order}HH", changed, entry, *(int(n) for n in rng.integers(250, 350, 2)))
    elif how == 3:  # the next directory is this one, or lies anywhere
        follower = pick(rng, (directory, 0, 8, len(data) - 1, 2**31))
        struct.pack_into(f"{order}I", changed, directory + 2 + 12 * count, follower)
    elif how == 4:
        struct.pack_into(f"{order}I", changed, 4, pick(rng, (*NUMBERS, len(data) - 2)))
    else:
        tags = {
            int.from_bytes(data[at : at + 2], "little" if order == "<" else "big"): at
            for at in range(directory + 2, directory + 2 + 12 * count, 12)
        }
        for tag in (256, 257):  # width, height
            struct.pack_into(f"{order}HHII", changed, tags[tag], tag, 4, 1, pick(rng, SIZES))
    return bytes(changed)


def _pnm(data: bytes, rng: np.random.Generator) -> bytes:
    words = data.split(maxsplit=4)
    place = int(rng.integers(min(4, len(words))))
    texts = (b"0", b"-1", b"1", b"255", b"65535", b"65536", b"99999999999999999999", b"#", b"1e9")
    words[place] = pick(rng, (b"P1", b"P4", b"P6", b"P7", b"PF")) if not place else pick(rng, texts)
    return b"\n".join(words)


def _boxes(data: bytes, rng: np.random.Generator) -> bytes:
    """ISO boxes (AVIF, JPEG 2000): a length anywhere in the tree."""
    places = [0]
    for name in (b"meta", b"iloc", b"iinf", b"iprp", b"ispe", b"mdat", b"jp2h", b"ihdr", b"jp2c"):
        at = data.find(name)
        if at >= 4:
            places += [at - 4, at + 4, at + 8]
    changed = bytearray(data)
    struct.pack_into(">I", changed, pick(rng, places), pick(rng, (*SIZES, *NUMBERS)))
    return bytes(changed)
