"""The rooms of a drive on disk, until all of them are in its bag.

A drive takes minutes to hours; the rooms that are done outlive a command that is stopped. They lie
in the folder NAME.rooms beside the bag NAME.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.core.json_text import json_text, parse_json
from dense_perception.core.storage import atomic_write, atomic_write_text
from dense_perception.imaging.transforms import Transform


@dataclass(frozen=True)
class Moment:
    """What is recorded at once: where the robot is in its room, a JPEG, and depth where it has any.

    ``depth_mm`` is (H, W) uint16.
    """

    base: Transform
    jpeg: bytes
    depth_mm: np.ndarray | None


class KeptRooms:
    """The rooms of the drive ``out``, each in a file of its own.

    :param settings: what decides what is seen, plain data.
    :raises InputError: if rooms of a drive with other settings are kept there.
    """

    def __init__(self, out: Path, settings: Mapping[str, object]) -> None:
        self.folder = out.with_name(f"{out.name}.rooms")
        self.folder.mkdir(parents=True, exist_ok=True)
        path, text = self.folder / "settings.json", json_text(dict(settings), indent=1) + "\n"
        if not path.exists():
            atomic_write_text(path, text)
            return
        try:
            found = parse_json(path.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        wanted = parse_json(text)
        if found != wanted:
            before = found if isinstance(found, dict) else {}
            different = sorted(key for key in settings if before.get(key) != wanted[key])
            raise InputError(
                f"{self.folder} keeps rooms of a drive with other settings "
                f"({', '.join(different)}): give those to go on, remove it, or choose another --out"
            )

    def has(self, room: int, count: int) -> bool:
        """Whether a room with so many moments is kept."""
        return self._path(room, count).is_file()

    def write(self, room: int, moments: Sequence[Moment]) -> None:
        """Keep a room, whole or not at all."""
        bases = np.stack(
            [np.column_stack([each.base.rotation, each.base.translation]) for each in moments]
        )
        pictures = [each.jpeg for each in moments]
        depths = [
            bytes(cv2.imencode(".png", each.depth_mm, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1])
            for each in moments
            if each.depth_mm is not None
        ]
        with atomic_write(self._path(room, len(moments))) as stream:
            np.savez(
                stream,
                bases=bases,
                picture_sizes=[len(each) for each in pictures],
                pictures=np.frombuffer(b"".join(pictures), np.uint8),
                depth_sizes=np.array([len(each) for each in depths], np.int64),
                depths=np.frombuffer(b"".join(depths), np.uint8),
            )

    def read(self, room: int, count: int) -> list[Moment]:
        """What was written."""
        with np.load(self._path(room, count)) as held:
            bases = held["bases"]
            pictures = _parts(held["pictures"], held["picture_sizes"])
            depths = _parts(held["depths"], held["depth_sizes"])
        images = [np.asarray(cv2.imdecode(each, cv2.IMREAD_UNCHANGED)) for each in depths]
        return [
            Moment(
                Transform(base[:, :3], base[:, 3]),
                picture.tobytes(),
                images[at] if images else None,
            )
            for at, (base, picture) in enumerate(zip(bases, pictures, strict=True))
        ]

    def remove(self) -> None:
        """The bag has them all."""
        shutil.rmtree(self.folder)

    def _path(self, room: int, count: int) -> Path:
        # A shorter drive through the same room is another one: its walls are painted otherwise.
        return self.folder / f"room-{room:05d}-{count}.npz"


def _parts(joined: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    return np.split(joined, np.cumsum(sizes)[:-1]) if len(sizes) else []
