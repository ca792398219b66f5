"""The corpus: what models are trained, calibrated and judged on. Its format, its reader and writer.

A corpus is a folder with ``corpus.json`` (``schema``, ``name``, ``width``, ``height``, ``frames``,
and what the generator adds) beside shards ``shard_00000``, ``shard_00001``, ... of n frames each:

==================  ============================  ==================================================
``rgb.npy``         (n, H, W, 3) uint8            colours in the order red, green, blue
``depth_m.npy``     (n, H, W) float16             planar depth along z in metres, 0 for none
``intrinsics.npy``  (n, 4) float32                fx, fy, cx, cy in pixels, centres on integers
``labels.npy``      (n, H, W) uint8, optional     index into the description's ``classes``, 0 for
                                                  none
``scene.npy``       (n,) int32, optional          frames of one number show one place
``camera.npy``      (n, 7) float32, optional      position x, y, z and quaternion qx, qy, qz, qw of
                                                  the optical frame (x right, y down, z forward) in
                                                  the world (z up)
==================  ============================  ==================================================

Shards are memory-mapped. A shard appears under its name only when whole; the description comes
last.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import TrainingError
from dense_perception.core.storage import atomic_write_text

SCHEMA = 1
DESCRIPTION_FILE = "corpus.json"
REQUIRED = ("rgb", "depth_m", "intrinsics")
OPTIONAL = ("labels", "scene", "camera")
# The type of each array, and its shape after the frames; H and W are the corpus's.
_COLUMNS: dict[str, tuple[type[np.generic], tuple[int | str, ...]]] = {
    "rgb": (np.uint8, ("H", "W", 3)),
    "depth_m": (np.float16, ("H", "W")),
    "intrinsics": (np.float32, (4,)),
    "labels": (np.uint8, ("H", "W")),
    "scene": (np.int32, ()),
    "camera": (np.float32, (7,)),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One frame: ``rgb_hwc`` uint8, ``depth_m`` (H, W) with 0 = invalid, and its intrinsics.

    ``labels_hw`` uint8 counts the corpus's classes, 0 = none; ``scene`` and ``camera_7`` are as in
    the module's table. None where the corpus does not have them.
    """

    rgb_hwc: np.ndarray
    depth_m: np.ndarray
    intrinsics: Intrinsics
    labels_hw: np.ndarray | None = None
    scene: int | None = None
    camera_7: np.ndarray | None = None


class Frames(Protocol):
    """What a data set is to the training: a length and samples by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


class Corpus:
    """A random-access corpus on disk; pages are shared and cached by the operating system.

    :raises TrainingError: if the folder, the description or a shard is missing, cut short or
        contradicts the layout; the message names the file.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.description = _read_description(self.root)
        self.width, self.height = self.description["width"], self.description["height"]
        size = (self.width, self.height)
        self._shards = [open_shard(folder, size=size) for folder in shard_folders(self.root)]
        self._starts = np.cumsum([0, *(len(shard["rgb"]) for shard in self._shards)])
        if len(self) == 0:
            raise TrainingError(
                f"{self.root} holds no frames: generate some with "
                "`dense-perception data synthesize`"
            )
        if len(self) < self.description["frames"]:
            raise TrainingError(
                f"{self.root} holds {len(self)} frames, corpus.json promises "
                f"{self.description['frames']}: a shard is missing, generate it again"
            )

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __reduce__(self) -> tuple[type[Corpus], tuple[Path]]:
        """Another process maps the files itself, instead of getting a copy of all frames."""
        return Corpus, (self.root,)

    @property
    def name(self) -> str:
        return str(self.description.get("name") or self.root.name)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        which = int(np.searchsorted(self._starts, index, side="right")) - 1
        shard, row = self._shards[which], index - int(self._starts[which])
        fx, fy, cx, cy = (float(value) for value in shard["intrinsics"][row])
        labels_hw, scene, camera_7 = (
            shard[name][row] if name in shard else None for name in OPTIONAL
        )
        return Sample(
            shard["rgb"][row],
            shard["depth_m"][row],
            Intrinsics(self.width, self.height, fx, fy, cx, cy),
            labels_hw,
            None if scene is None else int(scene),
            camera_7,
        )


class Mixture:
    """Several corpora as one sequence; every frame is equally likely, unless shares are given.

    :param shares: by position, the share of the sequence that a corpus makes up, 0 to 1; its frames
        recur in turn as often as that takes. Corpora without one have each of their frames once.
    :raises TrainingError: without a corpus, or if shares leave nothing to the corpora without one.
    """

    def __init__(
        self, corpora: Sequence[Corpus], shares: Mapping[int, float] | None = None
    ) -> None:
        if not corpora:
            raise TrainingError("no corpus given: pass --data DIR at least once")
        self.corpora = tuple(corpora)
        self.shares = dict(shares or {})
        once = [len(corpus) for k, corpus in enumerate(corpora) if k not in self.shares]
        left = 1 - sum(self.shares.values())
        if self.shares and not (all(s > 0 for s in self.shares.values()) and left > 0 and once):
            raise TrainingError(
                f"the corpora's shares are {list(self.shares.values())}, expected numbers above 0 "
                "that add up to less than 1, and a corpus without a share for the rest"
            )
        lengths = [
            max(1, round(self.shares[k] / left * sum(once))) if k in self.shares else len(corpus)
            for k, corpus in enumerate(corpora)
        ]
        self._starts = np.cumsum([0, *lengths])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Sample:
        which = int(np.searchsorted(self._starts, index, side="right")) - 1
        corpus = self.corpora[which]
        return corpus[(index - int(self._starts[which])) % len(corpus)]

    def describe(self) -> list[dict[str, Any]]:
        """Provenance of each corpus, plain data for the card."""
        described = []
        for k, corpus in enumerate(self.corpora):
            entry: dict[str, Any] = {"name": corpus.name, "frames": len(corpus)}
            if k in self.shares:
                entry["share"] = self.shares[k]
            for key in ("generator", "seed", "command", "licence"):
                if key in corpus.description:
                    entry[key] = _without_folders(corpus.description[key])
            described.append(entry)
        return described


@dataclass(frozen=True)
class Span:
    """Frames ``start`` to ``stop`` (excluded) of another data set."""

    frames: Frames
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int, /) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        return self.frames[self.start + index]


def split(frames: Frames, held_out: float) -> tuple[Span, Span]:
    """All but the last share, and the last share; scenes are stored in order, so few are shared.

    :raises TrainingError: if there are too few frames for two parts.
    """
    if len(frames) < 2:
        raise TrainingError(f"{len(frames)} frames cannot be split: generate more")
    cut = min(len(frames) - 1, round(len(frames) * (1 - held_out)))
    return Span(frames, 0, cut), Span(frames, cut, len(frames))


def evenly(length: int, most: int) -> list[int]:
    """Indices of ``most`` frames spread over ``length`` of them; of all if there are fewer."""
    count = min(most, length)
    return [round(i * length / count) for i in range(count)]


def shard_path(root: Path, index: int) -> Path:
    """Where a finished shard lies."""
    return Path(root) / f"shard_{index:05d}"


def shard_folders(root: Path) -> list[Path]:
    """The finished shards of a corpus, in order; empty where there are none."""
    return sorted(Path(root).glob("shard_[0-9]*"))


def open_shard(
    folder: Path,
    required: Sequence[str] = REQUIRED,
    optional: Sequence[str] = OPTIONAL,
    size: tuple[int, int] | None = None,
) -> dict[str, np.ndarray]:
    """The arrays of a shard by name, memory-mapped and read-only.

    :param required: arrays that have to be there; ``optional`` ones are left out where they are
        not.
    :param size: width and height that the images must have; None for any.
    :raises TrainingError: if an array is missing, cannot be read, has another type or shape than
        the format says, or another number of frames than the first.
    """
    present = [name for name in optional if (folder / f"{name}.npy").exists()]
    arrays = {name: _open(folder, name, size) for name in (*required, *present)}
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{count} of {name}" for name, count in counts.items())
        raise TrainingError(
            f"{folder} holds {found}, expected as many of each: the shard is damaged, delete it "
            "and generate it again"
        )
    return arrays


def iterate_shards(
    root: Path, required: Sequence[str] = REQUIRED, optional: Sequence[str] = OPTIONAL
) -> Iterator[dict[str, np.ndarray]]:
    """Each shard's arrays in order, as :func:`open_shard` gives them, without a description.

    :raises TrainingError: if there is no shard, or one is damaged.
    """
    folders = shard_folders(root)
    if not folders:
        raise TrainingError(
            f"{root} holds no shards, expected a corpus: `dense-perception data synthesize` "
            "makes one"
        )
    for folder in folders:
        yield open_shard(folder, required, optional)


def write_shard(root: Path, index: int, samples: Sequence[Sample]) -> Path:
    """Write one shard under a temporary name, then rename it over an older one, if any.

    Optional arrays are written where every sample has them.
    """
    final = shard_path(root, index)
    temporary = final.with_name(f".{final.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    cameras = [sample.intrinsics for sample in samples]
    columns: dict[str, list[Any]] = {
        "rgb": [sample.rgb_hwc for sample in samples],
        "depth_m": [sample.depth_m for sample in samples],
        "intrinsics": [(camera.fx, camera.fy, camera.cx, camera.cy) for camera in cameras],
        "labels": [sample.labels_hw for sample in samples],
        "scene": [sample.scene for sample in samples],
        "camera": [sample.camera_7 for sample in samples],
    }
    for name, (dtype, _) in _COLUMNS.items():
        if name in REQUIRED or all(value is not None for value in columns[name]):
            np.save(temporary / f"{name}.npy", np.asarray(columns[name]).astype(dtype))
    if final.exists():  # a folder cannot be replaced in one step: move the old one aside first
        old = final.with_name(f".{final.name}.old.{os.getpid()}")
        os.replace(final, old)
        os.replace(temporary, final)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(temporary, final)
    return final


def write_description(root: Path, description: Mapping[str, Any]) -> None:
    """Write ``corpus.json``, whole or not at all; it makes the folder a corpus.

    :param description: ``name``, ``width``, ``height``, ``frames`` and anything else; JSON types.
    """
    text = json.dumps({"schema": SCHEMA, **description}, indent=1) + "\n"
    atomic_write_text(Path(root) / DESCRIPTION_FILE, text)


def _read_description(root: Path) -> dict[str, Any]:
    path = root / DESCRIPTION_FILE
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


def _open(folder: Path, name: str, size: tuple[int, int] | None) -> np.ndarray:
    path = folder / f"{name}.npy"
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise TrainingError(
            f"cannot read {path}: {error}; delete the shard and generate it again"
        ) from error
    dtype, shape = _COLUMNS[name]
    if size is not None:
        shape = tuple({"W": size[0], "H": size[1]}.get(str(side), side) for side in shape)
    fits = array.ndim == 1 + len(shape) and all(
        want in (got, "H", "W") for got, want in zip(array.shape[1:], shape, strict=True)
    )
    if array.dtype != dtype or not fits:
        expected = ", ".join(map(str, ("n", *shape)))
        raise TrainingError(
            f"{path} holds {array.dtype} {array.shape}, expected {np.dtype(dtype)} ({expected})"
        )
    return array


def _without_folders(value: Any) -> Any:
    """A command as anyone could give it: paths of the machine that ran it become bare names."""
    if not isinstance(value, str):
        return value
    return " ".join(Path(word).name if word.startswith("/") else word for word in value.split(" "))
