"""Tar shards of a corpus, as the WebDataset library reads them: frames to members and back.

A shard ``shard-00000.tar`` holds, for each frame in turn:

=====================  =============================================================================
``KEY.jpg``            colours
``KEY.depth.png``      16 bit, planar depth along z in steps of ``depth_unit_m``, 0 for none
``KEY.labels.png``     8 bit, index into the description's ``classes``; left out without labels
``KEY.instances.png``  16 bit, the number of the thing, 0 for none; left out where it is not known
``KEY.json``           ``fx``, ``fy``, ``cx``, ``cy`` in pixels (centres on integers), ``width``,
                       ``height``, ``depth_unit_m``; where known ``recording``, ``stamp_ns``,
                       ``scene``, ``camera`` (position and quaternion), ``instances`` (the class of
                       each thing, as in ``KEY.labels.png``, by its number)
=====================  =============================================================================

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
from dense_perception.data.depth_steps import fine_unit
from dense_perception.data.sample import Sample
from dense_perception.imaging.picture_headers import read_header

JPEG_QUALITY = 92
"""Of pictures that are not JPEG already."""
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
    instances: dict[str, int]


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


def encode(
    sample: Sample,
    *,
    unit_m: float | None = None,
    png_level: int = 6,
    jpeg_quality: int = JPEG_QUALITY,
) -> dict[str, bytes]:
    """The members of a frame by their suffix.

    :param unit_m: metres of a step of the stored depth; by default that of
        :func:`~dense_perception.data.depth_steps.fine_unit`. What lies beyond 65535 steps, is
        negative or not finite becomes 0.
    :param png_level: effort of the lossless compression, 0 to 9; 1 suits sensors' noise.
    :param jpeg_quality: of pictures that are not JPEG already, 0 to 100.
    :raises InputError: if the maps are not of the image's size, or labels do not fit 8 bits.
    """
    height, width = sample.rgb_hwc.shape[:2]
    maps = (("depth", sample.depth_m), ("labels", sample.labels_hw))
    for name, array in (*maps, ("instances", sample.instances_hw)):
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
        "jpg": sample.jpeg or _encode_colours(sample.rgb_hwc, jpeg_quality),
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
    if sample.instances_hw is not None:
        members["instances.png"] = _encode_instances(sample, png_level)
        record["instances"] = {str(k): v for k, v in sorted(sample.instance_labels.items())}
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
        instance_labels = {int(k): int(v) for k, v in (record.get("instances") or {}).items()}
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
    instances_hw = None
    if "instances.png" in members:
        instances_hw = _map(members["instances.png"], f"{key}.instances.png", (height, width))
        instances_hw = instances_hw.astype(np.uint16, copy=False)
        instance_labels = _instance_labels(instances_hw, instance_labels, key, void, classes)
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
        instances_hw=instances_hw,
        instance_labels=instance_labels if instances_hw is not None else {},
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


def _encode_colours(rgb_hwc: np.ndarray, quality: int) -> bytes:
    bgr_hwc = cv2.cvtColor(np.ascontiguousarray(rgb_hwc), cv2.COLOR_RGB2BGR)
    # Huffman tables of the picture's own: a twentieth less, and the same pixels.
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    return _packed(".jpg", bgr_hwc, options)


def _encode_depth(depth_m: np.ndarray, unit_m: float | None, png_level: int) -> tuple[bytes, float]:
    depth_m = np.asarray(depth_m, np.float32)
    if unit_m is None:
        unit_m = fine_unit(depth_m)
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
        options += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_ALL_FILTERS]
    return _packed(".png", steps, options), unit_m


def _encode_instances(sample: Sample, png_level: int) -> bytes:
    instances_hw = np.asarray(sample.instances_hw)
    if instances_hw.min(initial=0) < 0 or instances_hw.max(initial=0) > 65535:
        raise InputError(
            f"instances go from {instances_hw.min()} to {instances_hw.max()}, expected 0 (none) to "
            "65535"
        )
    named = {0, *sample.instance_labels}
    nameless = sorted(set(np.unique(instances_hw).tolist()) - named)
    if nameless:
        raise InputError(
            f"the instances {nameless[:5]} of {sample.key or 'a frame'} have no class: give each "
            "one in instance_labels, 0 for none"
        )
    levels = [cv2.IMWRITE_PNG_COMPRESSION, png_level]
    return _packed(".png", instances_hw.astype(np.uint16), levels)


def _instance_labels(
    instances_hw: np.ndarray, stored: Mapping[int, int], key: str, void: int, classes: int
) -> dict[int, int]:
    """The class of each thing in the map, from 1 on, 0 for none; numbers of others are left out."""
    found: dict[int, int] = {}
    for number in np.unique(instances_hw).tolist():
        if not number:
            continue
        label = stored.get(number)
        if label is None:
            raise TrainingError(
                f"{key}.instances.png has the instance {number}, and {key}.json no class of it "
                "under `instances`: make the shard again"
            )
        counted = (0 if label == void else label + 1) if void else label
        if not 0 <= counted <= (classes or 255):
            raise TrainingError(
                f"{key}.json gives the instance {number} the label {label}, expected 0 to "
                f"{(classes or 255) - bool(void)}: its classes and its instances do not belong "
                "together"
            )
        found[number] = counted
    return found


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
