"""The earlier corpus layout, read only: a folder of NumPy arrays a shard (schema 1).

`dense-perception data convert` turns such a corpus into tar shards. Shards ``shard_00000``,
``shard_00001``, ... hold n frames each:

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

Shards are memory-mapped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import InputError, TrainingError
from dense_perception.core.storage import require_regular_file
from dense_perception.data.sample import Sample

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


class NumpyShards:
    """The frames of a corpus in this layout, by index; pages are shared by all processes.

    :raises TrainingError: if a shard is missing, cut short or contradicts the layout; the message
        names the file.
    """

    def __init__(self, root: Path, width: int, height: int, frames: int) -> None:
        self.width, self.height = width, height
        size = (width, height)
        self._shards = [open_shard(folder, size=size) for folder in shard_folders(root)]
        self._starts = np.cumsum([0, *(len(shard["rgb"]) for shard in self._shards)])
        self.keys = tuple(
            f"{which:05d}_{row:04d}"
            for which, shard in enumerate(self._shards)
            for row in range(len(shard["rgb"]))
        )
        if self.keys and len(self.keys) < frames:
            raise TrainingError(
                f"{root} holds {len(self.keys)} frames, corpus.json promises {frames}: a shard is "
                "missing, generate it again"
            )

    def __getitem__(self, index: int) -> Sample:
        which = int(np.searchsorted(self._starts, index, side="right")) - 1
        shard, row = self._shards[which], index - int(self._starts[which])
        fx, fy, cx, cy = (float(value) for value in shard["intrinsics"][row])
        labels_hw, scene, camera_7 = (
            shard[name][row] if name in shard else None for name in OPTIONAL
        )
        try:
            camera = Intrinsics(self.width, self.height, fx, fy, cx, cy)
        except InputError as error:
            raise TrainingError(f"frame {self.keys[index]}: {error}") from error
        return Sample(
            shard["rgb"][row],
            shard["depth_m"][row],
            camera,
            labels_hw,
            None if scene is None else int(scene),
            camera_7,
            self.keys[index],
        )


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


def _open(folder: Path, name: str, size: tuple[int, int] | None) -> np.ndarray:
    path = folder / f"{name}.npy"
    try:
        require_regular_file(path)
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
