"""Reads generated corpora: memory-mapped shards of RGB, planar depth and intrinsics.

Layout: ``corpus.json`` beside folders ``shard_00000``, ``shard_00001``, ... with ``rgb.npy``
(n, H, W, 3) uint8, ``depth_m.npy`` (n, H, W) float16 planar z in metres with 0 for "none",
``intrinsics.npy`` (n, 4) float32 ``fx, fy, cx, cy`` and, where there are labels, ``labels.npy``
(n, H, W) uint8 with 0 for "none".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import TrainingError

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Sample:
    """One frame: ``rgb_hwc`` uint8, ``depth_m`` (H, W) with 0 = invalid, and its intrinsics.

    ``labels_hw`` uint8 counts the corpus's classes, 0 = none; None where the corpus has no labels.
    """

    rgb_hwc: np.ndarray
    depth_m: np.ndarray
    intrinsics: Intrinsics
    labels_hw: np.ndarray | None = None


class Frames(Protocol):
    """What a data set is to the training: a length and samples by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


@dataclass(frozen=True)
class _Shard:
    rgb_nhwc: np.ndarray
    depth_m_nhw: np.ndarray
    intrinsics_n4: np.ndarray
    labels_nhw: np.ndarray | None


class Corpus:
    """A random-access corpus on disk; pages are shared and cached by the operating system.

    :raises TrainingError: if the folder, the description or a shard is missing, cut short or
        contradicts the layout; the message names the file.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.description = _read_description(self.root)
        self.width, self.height = self.description["width"], self.description["height"]
        folders = sorted(self.root.glob("shard_[0-9]*"))
        self._shards = [_open_shard(folder, self.width, self.height) for folder in folders]
        self._starts = np.cumsum([0, *(len(shard.rgb_nhwc) for shard in self._shards)])
        if len(self) == 0:
            raise TrainingError(
                f"{self.root} holds no frames: make some with `dense-perception data synthesize`"
            )
        if len(self) < self.description["frames"]:
            raise TrainingError(
                f"{self.root} holds {len(self)} frames, corpus.json promises "
                f"{self.description['frames']}: a shard is missing, generate it again"
            )

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def name(self) -> str:
        return str(self.description.get("name") or self.root.name)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        which = int(np.searchsorted(self._starts, index, side="right")) - 1
        shard, row = self._shards[which], index - int(self._starts[which])
        fx, fy, cx, cy = (float(value) for value in shard.intrinsics_n4[row])
        camera = Intrinsics(self.width, self.height, fx, fy, cx, cy)
        labels_hw = None if shard.labels_nhw is None else shard.labels_nhw[row]
        return Sample(shard.rgb_nhwc[row], shard.depth_m_nhw[row], camera, labels_hw)


class Mixture:
    """Several corpora as one sequence; every frame is equally likely."""

    def __init__(self, corpora: Sequence[Corpus]) -> None:
        if not corpora:
            raise TrainingError("no corpus given: pass --data DIR at least once")
        self.corpora = tuple(corpora)
        self._starts = np.cumsum([0, *(len(corpus) for corpus in corpora)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Sample:
        which = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self.corpora[which][index - int(self._starts[which])]

    def describe(self) -> list[dict[str, Any]]:
        """Provenance of each corpus, plain data for the card."""
        described = []
        for corpus in self.corpora:
            entry: dict[str, Any] = {"name": corpus.name, "frames": len(corpus)}
            for key in ("generator", "seed", "command"):
                if key in corpus.description:
                    entry[key] = _without_folders(corpus.description[key])
            described.append(entry)
        return described


def _without_folders(value: Any) -> Any:
    """A command as anyone could give it: paths of the machine that ran it become bare names."""
    if not isinstance(value, str):
        return value
    return " ".join(Path(word).name if word.startswith("/") else word for word in value.split(" "))


def _read_description(root: Path) -> dict[str, Any]:
    path = root / "corpus.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise TrainingError(
            f"cannot read {path}: {error}; a corpus is a folder that "
            "`dense-perception data synthesize` has finished"
        ) from error
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        got = data.get("schema") if isinstance(data, dict) else type(data).__name__
        raise TrainingError(f"{path}: schema is {got!r}, this version reads {SCHEMA}")
    for key in ("width", "height", "frames"):
        value = data.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise TrainingError(f"{path}: {key} is {value!r}, expected a positive whole number")
    return data


def _open_shard(folder: Path, width: int, height: int) -> _Shard:
    rgb = _open(folder / "rgb.npy", np.uint8, (height, width, 3))
    depth = _open(folder / "depth_m.npy", np.float16, (height, width))
    intrinsics = _open(folder / "intrinsics.npy", np.float32, (4,))
    if not len(rgb) == len(depth) == len(intrinsics):
        raise TrainingError(
            f"{folder}: {len(rgb)} images, {len(depth)} depth maps and {len(intrinsics)} "
            "intrinsics: the shard is damaged, delete it and generate it again"
        )
    labels = None
    if (folder / "labels.npy").exists():
        labels = _open(folder / "labels.npy", np.uint8, (height, width))
        if len(labels) != len(rgb):
            raise TrainingError(
                f"{folder}: {len(rgb)} images and {len(labels)} label maps: the shard is damaged, "
                "delete it and generate it again"
            )
    return _Shard(rgb, depth, intrinsics, labels)


def _open(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise TrainingError(
            f"cannot read {path}: {error}; delete the shard and generate it again"
        ) from error
    if array.dtype != dtype or array.shape[1:] != shape:
        raise TrainingError(
            f"{path} holds {array.dtype} {array.shape}, expected {np.dtype(dtype)} (n, "
            f"{', '.join(map(str, shape))})"
        )
    return array
