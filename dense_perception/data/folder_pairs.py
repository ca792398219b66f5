"""Folders of colour images with depth beside them, as a corpus.

A recording is a folder with ``color/KEY.jpg`` (or png), ``depth/KEY.png`` of the same size (16 bit,
0 for none, seen from the colour camera) and ``frames.json``: by key ``fx``, ``fy``, ``cx`` and
``cy`` in pixels, centres on integers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import InputError
from dense_perception.data.corpus import Sample, write_description, write_shard

FRAMES_FILE = "frames.json"
_PER_SHARD = 64


def read(folder: Path, unit_m: float = 0.001) -> Iterator[Sample]:
    """The frames in the order of their keys.

    :param unit_m: metres of one step of the depth images.
    :raises InputError: if a file is missing, cannot be decoded, or sizes differ; it is named.
    """
    path = folder / FRAMES_FILE
    try:
        frames = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    for key in sorted(frames):
        colours = [folder / "color" / f"{key}{suffix}" for suffix in (".jpg", ".png")]
        colour = next((path for path in colours if path.exists()), colours[0])
        bgr_hwc = _decode(colour, cv2.IMREAD_COLOR)
        depth = _decode(folder / "depth" / f"{key}.png", cv2.IMREAD_UNCHANGED)
        height, width = bgr_hwc.shape[:2]
        if depth.shape != (height, width) or depth.dtype != np.uint16:
            raise InputError(
                f"the depth of {colour} is {depth.dtype} {depth.shape}, expected uint16 "
                f"{(height, width)}: depth has to be registered to colour"
            )
        try:
            fx, fy, cx, cy = (float(frames[key][name]) for name in ("fx", "fy", "cx", "cy"))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: frame {key} lacks fx, fy, cx or cy: {error!r}") from error
        yield Sample(
            np.ascontiguousarray(bgr_hwc[..., ::-1]),
            depth.astype(np.float32) * unit_m,
            Intrinsics(width, height, fx, fy, cx, cy),
        )


def convert(folder: Path, out: Path, licence: str, unit_m: float = 0.001) -> int:
    """Write the frames of ``folder`` as the corpus ``out``; returns their number.

    All frames must be of the first one's size.

    :param licence: of the recording, for the cards of models that are trained on it.
    :raises InputError: as :func:`read`; also without a frame, with frames of several sizes, or
        where ``out`` holds something.
    """
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} is not empty: choose another folder for the corpus")
    size: tuple[int, int] | None = None
    samples: list[Sample] = []
    count = shards = 0
    for sample in read(folder, unit_m):
        found = (sample.intrinsics.width, sample.intrinsics.height)
        size = size or found
        if found != size:
            raise InputError(f"{folder} holds frames of {size} and of {found}: split it by size")
        samples.append(sample)
        count += 1
        if len(samples) == _PER_SHARD:
            write_shard(out, shards, samples)
            samples, shards = [], shards + 1
    if size is None:
        raise InputError(f"{folder / FRAMES_FILE} names no frame")
    if samples:
        write_shard(out, shards, samples)
    description = {"width": size[0], "height": size[1], "frames": count, "licence": licence}
    write_description(out, {"name": out.name, "generator": "recording", **description})
    return count


def _decode(path: Path, flags: int) -> np.ndarray:
    image = cv2.imread(str(path), flags)
    if image is None:
        raise InputError(f"cannot read the image {path}")
    return image
