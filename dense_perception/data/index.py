"""Random access to the frames of tar shards, through an index of their places."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dense_perception.core.errors import TrainingError
from dense_perception.core.json_text import parse_json
from dense_perception.core.storage import atomic_write, read_file, require_regular_file
from dense_perception.data.sample import Sample
from dense_perception.data.shards import Place, decode, members_of, scan, shard_paths

INDEX_FILE = "index.npz"
MANIFEST_FILE = "manifest.json"
# An index is stored as it is; one that somebody packed tightly may still be read.
_LEAST_LIMIT, _MOST_PACKED = 1 << 20, 20
_COLUMNS = ("shard", "offset", "size", "key")


def write_index(root: Path, paths: Sequence[Path]) -> list[int]:
    """Write ``index.npz`` of the shards ``paths``; returns the number of frames of each.

    :raises TrainingError: if a shard is damaged, or two frames have one key.
    """
    places = [scan(path) for path in paths]
    arrays = _arrays(places)
    _require_unique(root, arrays["key"])
    with atomic_write(root / INDEX_FILE) as stream:
        np.savez(
            stream,
            names=np.array([path.name for path in paths], np.bytes_),
            bytes=np.array([path.stat().st_size for path in paths], np.int64),
            shard=arrays["shard"],
            offset=arrays["offset"],
            size=arrays["size"],
            key=arrays["key"],
        )
    return [len(each) for each in places]


class TarShards:
    """The frames of tar shards, by index: one read each, safe for threads and after a fork.

    Without ``index.npz`` the shards' headers are read once.

    :raises TrainingError: if a shard is missing, was cut short or changed, or there are fewer
        frames than ``frames``.
    """

    def __init__(self, root: Path, frames: int, void: int = 0, classes: int = 0) -> None:
        self._void, self._classes = void, classes
        names, arrays = self._places(root)
        self._paths = [root / name for name in names]
        self._handles: dict[int, int] = {}
        self._shards, self._offsets, self._sizes = (arrays[name] for name in _COLUMNS[:3])
        self.keys: Sequence[str] = tuple(key.decode() for key in arrays["key"].tolist())
        if len(self.keys) < frames:
            raise TrainingError(
                f"{root} holds {len(self.keys)} frames, corpus.json promises {frames}: a shard is "
                "missing, make it again"
            )

    def __getitem__(self, index: int) -> Sample:
        return decode(self.members(index), self.keys[index], self._void, self._classes)

    def members(self, index: int) -> dict[str, bytes]:
        """The undecoded members of a frame by suffix.

        :raises TrainingError: if they cannot be read.
        """
        shard, size = int(self._shards[index]), int(self._sizes[index])
        try:
            if shard not in self._handles:
                self._handles[shard] = os.open(self._paths[shard], os.O_RDONLY)
            content = os.pread(self._handles[shard], size, int(self._offsets[index]))
        except OSError as error:
            raise TrainingError(f"cannot read {self._paths[shard]}: {error}") from error
        return members_of(content, f"{self.keys[index]} of {self._paths[shard].name}")

    def __del__(self) -> None:
        for handle in getattr(self, "_handles", {}).values():
            os.close(handle)

    def _places(self, root: Path) -> tuple[list[str], dict[str, np.ndarray]]:
        present = {path.name: path for path in shard_paths(root)}
        path = root / INDEX_FILE
        if not path.exists():
            arrays = _arrays([scan(shard) for shard in present.values()])
            _require_unique(root, arrays["key"])
            return list(present), arrays
        try:
            require_regular_file(path)
            _require_small(path)
            with np.load(path, allow_pickle=False) as stored:
                names = [name.decode() for name in stored["names"].tolist()]
                sizes = dict(zip(names, stored["bytes"].tolist(), strict=True))
                arrays = {name: stored[name] for name in _COLUMNS}
            _require_sound(arrays, list(sizes.values()))
        except (
            *(OSError, ValueError, KeyError, EOFError, TypeError, AttributeError),
            *(NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error),
        ) as error:
            raise TrainingError(
                f"cannot read {path}: {error}; delete it: it is made anew from the shards"
            ) from error
        for name, size in sizes.items():
            if name not in present:
                raise TrainingError(f"{root / name} is missing, which {INDEX_FILE} names")
            found = present[name].stat().st_size
            if found != size:
                raise TrainingError(
                    f"{root / name} has {found} bytes, {INDEX_FILE} says {size}: it is cut short "
                    "or was changed; copy or make it again"
                )
        return names, arrays


def _require_small(path: Path) -> None:
    """
    :raises ValueError: if what the index unpacks to is far more than its bytes are.
    """
    with zipfile.ZipFile(path) as packed:
        claimed = sum(member.file_size for member in packed.infolist())
    most = _LEAST_LIMIT + _MOST_PACKED * path.stat().st_size
    if claimed > most:
        raise ValueError(f"it claims {claimed} bytes of which {most} can be")


def _require_sound(arrays: Mapping[str, np.ndarray], sizes: Sequence[int]) -> None:
    """
    :raises ValueError: if a place is not inside its shard.
    """
    count = len(arrays["key"])
    for name, array in arrays.items():
        kind = "S" if name == "key" else "iu"
        if array.ndim != 1 or len(array) != count or array.dtype.kind not in kind:
            raise ValueError(f"{name} is {array.dtype} {array.shape}, expected {count} of each")
    if not count:
        return
    shard, offset, size = (arrays[name].astype(np.int64) for name in _COLUMNS[:3])
    if shard.min() < 0 or shard.max() >= len(sizes):
        raise ValueError(f"it has frames in shard {int(shard.max())} of {len(sizes)}")
    ends = np.asarray(sizes, np.int64)[shard]
    outside = (offset < 0) | (size < 1) | (size > ends) | (offset > ends - size)
    if outside.any():
        raise ValueError(f"{int(outside.sum())} frames lie outside of their shards")


def read_manifest(root: Path) -> dict[str, str]:
    """SHA-256 by shard; empty where there is no manifest.

    :raises TrainingError: if it is damaged.
    """
    path = root / MANIFEST_FILE
    if not path.exists():
        return {}
    try:
        shards = parse_json(read_file(path))["shardlist"]
        return {str(shard["url"]): str(shard["sha256"]) for shard in shards}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"cannot read {path}: {error!r}") from error


def _arrays(places: Sequence[Sequence[Place]]) -> dict[str, np.ndarray]:
    flat = [(shard, place) for shard, each in enumerate(places) for place in each]
    return {
        "shard": np.array([shard for shard, _ in flat], np.int32),
        "offset": np.array([place.offset for _, place in flat], np.int64),
        "size": np.array([place.size for _, place in flat], np.int64),
        "key": np.array([place.key.encode() for _, place in flat], np.bytes_),
    }


def _require_unique(root: Path, keys: np.ndarray) -> None:
    names, counts = np.unique(keys, return_counts=True)
    if (counts > 1).any():
        twice = names[counts > 1][0].decode()
        raise TrainingError(
            f"{root} has several frames of the key {twice!r}: keys name one frame, and the members "
            "of a frame lie next to each other"
        )
