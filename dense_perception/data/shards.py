"""Tar shards of a corpus, as the WebDataset library reads them: frames to members and back.

A shard ``shard-00000.tar`` holds, for each frame in turn:

===================  ===============================================================================
``KEY.jpg``          colours
``KEY.depth.png``    16 bit, planar depth along z in steps of ``depth_unit_m``, 0 for none
``KEY.labels.png``   8 bit, index into the description's ``classes``; left out without labels
``KEY.json``         ``fx``, ``fy``, ``cx``, ``cy`` in pixels (centres on integers), ``width``,
                     ``height``, ``depth_unit_m``; where known ``recording``, ``stamp_ns``,
                     ``scene``, ``camera`` (position and quaternion)
===================  ===============================================================================

The members of a frame lie next to each other, so that one seek and one read get it whole.
"""

from __future__ import annotations

import io
import math
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import cv2
import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import InputError, TrainingError
from dense_perception.core.json_text import json_text, parse_json
from dense_perception.core.limits import MAX_PIXELS
from dense_perception.core.printable import printable
from dense_perception.core.storage import atomic_write, require_regular_file
from dense_perception.data.sample import Sample
from dense_perception.imaging.picture_headers import read_header

UNITS_M = (0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01)
"""Steps of stored depth: the coarsest one that is fine enough for a frame's near pixels."""
# A step at a frame's near pixels is at most this share of their depth, as in the earlier layout.
_PRECISION = 1 / 1024
_NEAR = 0.05
# Half of a frame beyond that is a mistake (millimetres), which has to be seen, not stored as none.
_FARTHEST_M = 65535 * UNITS_M[-1]
_COARSE_UNIT_M = 1.0
JPEG_QUALITY = 92
_BLOCK = 512
_LONGEST_NAME = 255
_KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")
_COLOURS = ("jpg", "jpeg", "png")


class _Record(TypedDict, total=False):
    """``KEY.json``."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    depth_unit_m: float
    recording: str
    stamp_ns: int
    scene: int
    camera: list[float]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the members of a frame lie in their shard, in bytes."""

    key: str
    offset: int
    size: int


def shard_path(root: Path, index: int) -> Path:
    """Where the shard of that number lies once it is finished."""
    return Path(root) / f"shard-{index:05d}.tar"


def shard_paths(root: Path) -> list[Path]:
    """The finished shards of a corpus, in order; empty where there are none."""
    return sorted(path for path in Path(root).glob("*.tar") if not path.name.startswith("."))


def encode(sample: Sample, *, unit_m: float | None = None, png_level: int = 6) -> dict[str, bytes]:
    """The members of a frame by their suffix.

    :param unit_m: metres of a step of the stored depth; by default one of :data:`UNITS_M`, a
        thousandth of the depth of the near pixels or less, or the finest that reaches the farthest.
        What lies beyond 65535 steps, is negative or not finite becomes 0.
    :param png_level: effort of the lossless compression, 0 to 9; 1 suits sensors' noise.
    :raises InputError: if the maps are not of the image's size, or labels do not fit 8 bits.
    """
    height, width = sample.rgb_hwc.shape[:2]
    for name, array in (("depth", sample.depth_m), ("labels", sample.labels_hw)):
        if array is not None and array.shape != (height, width):
            raise InputError(
                f"the {name} of {sample.key or 'a frame'} are {array.shape}, expected the image's "
                f"{(height, width)}"
            )
    depth_png, unit_m = _encode_depth(sample.depth_m, unit_m, png_level)
    camera = sample.intrinsics
    record: _Record = {
        "width": width,
        "height": height,
        "fx": camera.fx,
        "fy": camera.fy,
        "cx": camera.cx,
        "cy": camera.cy,
        "depth_unit_m": unit_m,
    }
    if sample.recording:
        record["recording"] = sample.recording
    if sample.stamp_ns is not None:
        record["stamp_ns"] = sample.stamp_ns
    if sample.scene is not None:
        record["scene"] = sample.scene
    if sample.camera_7 is not None:
        record["camera"] = [float(f"{value:.9g}") for value in sample.camera_7]
    members = {
        "jpg": sample.jpeg or _encode_colours(sample.rgb_hwc),
        "depth.png": depth_png,
    }
    if sample.labels_hw is not None:
        labels_hw = np.asarray(sample.labels_hw)
        if labels_hw.min(initial=0) < 0 or labels_hw.max(initial=0) > 255:
            raise InputError(
                f"labels go from {labels_hw.min()} to {labels_hw.max()}, expected 0 (void) to 255"
            )
        levels = [cv2.IMWRITE_PNG_COMPRESSION, png_level]
        members["labels.png"] = _packed(".png", labels_hw.astype(np.uint8), levels)
    members["json"] = json_text(record, compact=True).encode()
    return members


def decode(members: Mapping[str, bytes], key: str, void: int = 0, classes: int = 0) -> Sample:
    """The frame of ``members``, the inverse of :func:`encode`.

    :param void: the stored label of pixels without a class; another than 0 means that the classes
        are stored from 0 on.
    :param classes: how many there are beside void; 0 where nobody says.
    :raises TrainingError: if a member is missing, damaged or contradicts another; it is named.
    """
    suffix = next((each for each in _COLOURS if each in members), "")
    if not suffix or "json" not in members:
        found = ", ".join(members) or "nothing"
        raise TrainingError(f"frame {key} has {found}, expected KEY.jpg and KEY.json at least")
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    bgr_hwc = _unpacked(members[suffix], f"{key}.{suffix}", flags)
    height, width = bgr_hwc.shape[:2]
    try:
        record = parse_json(members["json"])
        fx, fy, cx, cy = (float(record[name]) for name in ("fx", "fy", "cx", "cy"))
        camera = Intrinsics(width, height, fx, fy, cx, cy)
        stamp, scene, pose = (record.get(name) for name in ("stamp_ns", "scene", "camera"))
        unit_m = float(record.get("depth_unit_m", 0.001))
        camera_7 = None if pose is None else np.array(pose, np.float32).reshape(7)
        scene, stamp = (None if each is None else int(each) for each in (scene, stamp))
        if not (math.isfinite(unit_m) and unit_m > 0):
            raise ValueError(f"depth_unit_m is {unit_m}")
    except InputError as error:
        raise TrainingError(f"{key}.json is damaged: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise TrainingError(f"{key}.json is damaged: {error!r}") from error
    depth_m = np.zeros((height, width), np.float32)
    if "depth.png" in members:
        depth_m = _map(members["depth.png"], f"{key}.depth.png", (height, width)).astype(np.float32)
        depth_m *= np.float32(unit_m)
    labels_hw = None
    if "labels.png" in members:
        labels_hw = _map(members["labels.png"], f"{key}.labels.png", (height, width))
        if void:
            labels_hw = np.where(labels_hw == void, 0, labels_hw.astype(np.int32) + 1)
        highest = int(labels_hw.max(initial=0))
        if highest > (classes or 255):
            raise TrainingError(
                f"{key}.labels.png has label {highest - bool(void)}, expected up to "
                f"{(classes or 255) - bool(void)}: its classes and its label images do not belong "
                "together"
            )
        labels_hw = labels_hw.astype(np.uint8, copy=False)
    return Sample(
        cv2.cvtColor(bgr_hwc, cv2.COLOR_BGR2RGB),
        depth_m,
        camera,
        labels_hw,
        scene,
        camera_7,
        key,
        str(record.get("recording", "")),
        stamp,
    )


def write_shard(
    root: Path,
    index: int,
    samples: Sequence[Sample],
    *,
    unit_m: float | None = None,
    png_level: int = 6,
) -> Path:
    """Write one shard whole, or not at all; an older one of that number is replaced.

    Frames without a key are named by the shard's number and their own.

    :raises InputError: as :func:`encode`, or for a key that is no name of a frame.
    """
    Path(root).mkdir(parents=True, exist_ok=True)
    packed = (
        (
            sample.key or f"{index:05d}_{row:04d}",
            encode(sample, unit_m=unit_m, png_level=png_level),
        )
        for row, sample in enumerate(samples)
    )
    return write_members(shard_path(root, index), packed)


def write_members(path: Path, frames: Iterator[tuple[str, Mapping[str, bytes]]]) -> Path:
    """Write frames, each a key and its members by suffix, as the shard ``path``.

    :raises InputError: for a key of other than letters, digits, ``_`` and ``-``, or over 80.
    """
    with (
        atomic_write(path) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as shard,
    ):
        for key, members in frames:
            if not _KEY.fullmatch(key):
                raise InputError(
                    f"{key!r} cannot name a frame: expected up to 80 letters, digits, _ and -"
                )
            for suffix, content in members.items():
                # Nothing but the content: one corpus made twice is the same file.
                entry = tarfile.TarInfo(f"{key}.{suffix}")
                entry.size = len(content)
                shard.addfile(entry, io.BytesIO(content))
    return path


def scan(path: Path) -> list[Place]:
    """The frames of a shard in their order, found by its headers alone.

    :raises TrainingError: if it is no tar file or cut short.
    """
    places: list[Place] = []
    try:
        require_regular_file(path)
        with tarfile.open(path, "r:") as shard:
            for entry in shard:
                if entry.isdir():
                    continue
                _require_plain(entry)
                folder, _, name = entry.name.rpartition("/")
                key = "/".join(part for part in (folder, name.partition(".")[0]) if part)
                end = entry.offset_data + -(-entry.size // _BLOCK) * _BLOCK
                known = bool(places) and places[-1].key == key
                begin = places.pop().offset if known else entry.offset
                places.append(Place(key, begin, end - begin))
            # A whole archive ends with zeros; one that was cut between two frames does not.
            whole = path.stat().st_size >= shard.offset + _BLOCK
    except (InputError, tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise TrainingError(
            f"cannot read {path}: {error}; the shard is damaged or cut short: delete it and "
            "make it again"
        ) from error
    if not whole:
        raise TrainingError(
            f"{path} is cut short after {len(places)} frames: delete it and make it again"
        )
    return places


def members_of(content: bytes, key: str) -> dict[str, bytes]:
    """The members of one frame by suffix, from its bytes as a :class:`Place` delimits them.

    :raises TrainingError: if they are no members of a tar file.
    """
    members: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as shard:
            for entry in shard:
                _require_plain(entry)
                begin, end = entry.offset_data, entry.offset_data + entry.size
                if end > len(content):
                    raise EOFError(f"{printable(entry.name)} has {entry.size} bytes")
                name = entry.name.rpartition("/")[2]
                members[name.partition(".")[2].lower()] = content[begin:end]
    except (InputError, tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise TrainingError(
            f"frame {key} is damaged ({error}): its shard was changed after its index was made"
        ) from error
    return members


def _require_plain(entry: tarfile.TarInfo) -> None:
    """
    :raises InputError: for links, devices and sparse files, which claim what is not there, and for
        names that nobody can print.
    """
    if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE) or entry.issparse():
        raise InputError(
            f"{printable(entry.name)} is no plain file (a link, device or sparse file), expected "
            "the members of frames: pack them again"
        )
    if printable(entry.name, keep="") != entry.name or len(entry.name) > _LONGEST_NAME:
        raise InputError(f"a member has the name {printable(entry.name)[:_LONGEST_NAME]!r}")


def _encode_colours(rgb_hwc: np.ndarray) -> bytes:
    bgr_hwc = cv2.cvtColor(np.ascontiguousarray(rgb_hwc), cv2.COLOR_RGB2BGR)
    return _packed(".jpg", bgr_hwc, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])


def _encode_depth(depth_m: np.ndarray, unit_m: float | None, png_level: int) -> tuple[bytes, float]:
    depth_m = np.asarray(depth_m, np.float32)
    if unit_m is None:
        unit_m = _unit_of(depth_m)
    with np.errstate(invalid="ignore", over="ignore"):
        steps = depth_m * np.float32(1 / unit_m)
        steps += np.float32(0.5)
        known = (steps >= 0) & (steps < 65536)  # NaN and infinity are not
        steps = np.where(known, steps, 0).astype(np.uint16)
    # The level comes first: OpenCV takes it to mean the default strategy.
    options = [cv2.IMWRITE_PNG_COMPRESSION, png_level]
    if png_level == 1:
        # A sensor's noise repeats nothing, so looking for repetitions costs time and bits.
        options += [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    # Debian 12's OpenCV 4.6 has no choice and takes the filter "sub" always.
    if hasattr(cv2, "IMWRITE_PNG_FILTER"):
        options += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_PAETH]
    return _packed(".png", steps, options), unit_m


def _unit_of(depth_m: np.ndarray) -> float:
    known_m = depth_m[np.isfinite(depth_m) & (depth_m > 0)]
    if not known_m.size:
        return UNITS_M[0]
    reaching = [unit for unit in UNITS_M if known_m.max() <= 65535 * unit]
    if not reaching:
        return _COARSE_UNIT_M if np.median(known_m) > _FARTHEST_M / 2 else UNITS_M[-1]
    near_m = float(np.quantile(known_m[::7], _NEAR))
    fine = [unit for unit in reaching if unit <= _PRECISION * near_m]
    return fine[-1] if fine else reaching[0]


def _packed(suffix: str, image: np.ndarray, options: Sequence[int]) -> bytes:
    done, packed = cv2.imencode(suffix, image, list(options))
    if not done:  # pragma: no cover - OpenCV always carries these codecs
        raise InputError(f"OpenCV cannot write {suffix} of {image.dtype} {image.shape}")
    return packed.tobytes()


def _unpacked(content: bytes, name: str, flags: int) -> np.ndarray:
    try:
        header = read_header(memoryview(content))
    except InputError as error:
        raise TrainingError(f"{name} cannot be decoded: {error}") from error
    if header.width * header.height > MAX_PIXELS:
        raise TrainingError(
            f"{name} is {header.width}x{header.height}, expected at most {MAX_PIXELS // 10**6} "
            "million pixels: make the shard again with smaller pictures"
        )
    image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    if image is None:
        raise TrainingError(f"{name} cannot be decoded: make the shard again")
    return image


def _map(content: bytes, name: str, shape: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8 or uint16."""
    values = _unpacked(content, name, cv2.IMREAD_UNCHANGED)
    if values.shape != shape or values.dtype not in (np.uint8, np.uint16):
        raise TrainingError(
            f"{name} is {values.dtype} {values.shape}, expected 8 or 16 bits of the image's {shape}"
        )
    return values
