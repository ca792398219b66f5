"""The corpus on disk: numbered shards of memory-mapped arrays and one ``corpus.json``.

``<corpus>/shard_00000/`` holds ``rgb.npy`` (n,H,W,3) uint8, ``depth_m.npy`` (n,H,W) float16 planar
metres with 0 = none, ``labels.npy`` (n,H,W) uint8 indices into the corpus' ``classes``,
``intrinsics.npy`` (n,4) float32 fx, fy, cx, cy with pixel centres on integers, ``scene.npy`` (n,)
int32, ``camera.npy`` (n,7) float32 x, y, z of the camera and its rotation as a quaternion
qx, qy, qz, qw from the optical frame (x right, y down, z forward) to the world (z up).
A shard appears under its name only when whole; ``corpus.json`` comes last.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dense_perception.core.errors import TrainingError
from dense_perception.core.storage import atomic_write_text

SCHEMA = 1
ARRAYS = {
    "rgb": np.uint8,
    "depth_m": np.float16,
    "labels": np.uint8,
    "intrinsics": np.float32,
    "scene": np.int32,
    "camera": np.float32,
}


@dataclass(frozen=True)
class Sample:
    """One frame of a corpus; shapes and units as in the module's description."""

    rgb_hwc: np.ndarray
    depth_m: np.ndarray
    labels_hw: np.ndarray
    intrinsics: tuple[float, float, float, float]
    scene: int
    camera: np.ndarray


def shard_path(corpus: Path, index: int) -> Path:
    """Where a finished shard lies."""
    return Path(corpus) / f"shard_{index:05d}"


def write_shard(corpus: Path, index: int, samples: list[Sample]) -> Path:
    """Write one shard under a temporary name, then rename it over an older one, if any."""
    final = shard_path(corpus, index)
    temporary = final.with_name(f".{final.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    columns: dict[str, list[Any]] = {
        "rgb": [s.rgb_hwc for s in samples],
        "depth_m": [s.depth_m for s in samples],
        "labels": [s.labels_hw for s in samples],
        "intrinsics": [s.intrinsics for s in samples],
        "scene": [s.scene for s in samples],
        "camera": [s.camera for s in samples],
    }
    for name, dtype in ARRAYS.items():
        np.save(temporary / f"{name}.npy", np.asarray(columns[name]).astype(dtype))
    if final.exists():  # a folder cannot be replaced in one step: move the old one aside first
        old = final.with_name(f".{final.name}.old.{os.getpid()}")
        os.replace(final, old)
        os.replace(temporary, final)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(temporary, final)
    return final


def write_description(corpus: Path, description: dict[str, Any]) -> None:
    """Write ``corpus.json``, whole or not at all."""
    text = json.dumps({"schema": SCHEMA, **description}, indent=1)
    atomic_write_text(Path(corpus) / "corpus.json", f"{text}\n")


def read_description(corpus: Path) -> dict[str, Any]:
    """The corpus' description.

    :raises TrainingError: when it is missing, malformed or of another schema.
    """
    path = Path(corpus) / "corpus.json"
    try:
        description = json.loads(path.read_text())
        schema = description["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{path} is not a corpus description ({error}): generate the corpus with "
            "'dense-perception data synthesize', or wait until it has finished"
        ) from error
    if schema != SCHEMA:
        raise TrainingError(f"{path} has schema {schema}, expected {SCHEMA}: generate it anew")
    result: dict[str, Any] = description
    return result


def open_shards(corpus: Path) -> Iterator[dict[str, np.ndarray]]:
    """Each finished shard's arrays, memory-mapped, in order.

    :raises TrainingError: when there is none or one is damaged.
    """
    folders = sorted(Path(corpus).glob("shard_?????"))
    if not folders:
        raise TrainingError(
            f"{corpus} holds no shards: generate it with 'dense-perception data synthesize'"
        )
    for folder in folders:
        try:
            yield {
                name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
                for name in ARRAYS
            }
        except (OSError, ValueError) as error:
            raise TrainingError(
                f"{folder} is damaged ({error}): remove it and run 'synthesize' again"
            ) from error
