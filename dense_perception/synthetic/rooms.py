"""Generates shards of furnished rooms. A shard is a pure function of (seed, shard index)."""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dense_perception.core.errors import BackendError
from dense_perception.data.sample import Sample, instance_labels
from dense_perception.synthetic import furniture, surfaces
from dense_perception.synthetic.bank import WHEELS, TextureBank, fetch_wheels, held_out
from dense_perception.synthetic.furnish import draw_room
from dense_perception.synthetic.renderer import Pose, RoomRenderer, finish_picture, load_mujoco
from dense_perception.synthetic.stock import Stock
from dense_perception.synthetic.taxonomy import CLASSES
from dense_perception.synthetic.viewpoints import VIEWS, preview

VIEWS_PER_ROOM = 12
ROOMS_PER_SHARD = 8
FRAMES_PER_SHARD = VIEWS_PER_ROOM * ROOMS_PER_SHARD


@dataclass(frozen=True)
class RoomGenerator:
    """Furnished rooms of one split ("train", "val" or "all"); see :class:`.generate.Generator`."""

    cache: Path
    libraries: tuple[Path, ...]
    split: str = "train"
    views: str = "mixed"

    name = "rooms"
    classes = CLASSES
    frames_per_shard = FRAMES_PER_SHARD

    @classmethod
    def prepare(
        cls, cache: Path, folder: Path | None, split: str, views: str = "mixed"
    ) -> RoomGenerator:
        """Fetch and convert the assets, which takes some minutes the first time.

        :raises InputError: when furniture or textures are not to be had.
        :raises BackendError: when nothing can be rendered here.
        """
        load_mujoco()
        cache = Path(cache)
        cache.mkdir(parents=True, exist_ok=True)
        libraries = tuple(furniture.find_libraries(folder or furniture.SYSTEM_FOLDER))
        fetch_wheels(cache)
        furniture.load_catalogue(libraries, cache, say)
        return cls(cache, libraries, split, views)

    def settings(self) -> dict[str, object]:
        """What must be equal for a corpus to be continued."""
        libraries = [path.name for path in self.libraries]
        settings: dict[str, object] = {"split": self.split, "libraries": libraries}
        # Corpora older than the choice of views go on as they began.
        return settings if self.views == "mixed" else {**settings, "views": self.views}

    def assets(self) -> list[dict[str, str]]:
        """Name, licence and source of everything the pictures are made of."""
        assets = [
            {"name": wheel.requirement, "licence": wheel.licence, "source": "textures (PyPI)"}
            for wheel in WHEELS
        ]
        models = furniture.load_catalogue(self.libraries, self.cache)
        for library in self.libraries:
            mine = [m for m in models if m.source == library.name]
            creators = ", ".join(sorted({m.creator for m in mine}))
            assets.append(
                {
                    "name": f"{library.name} ({len(mine)} models by {creators})",
                    "licence": mine[0].licence if mine else "unknown",
                    "source": "Sweet Home 3D furniture libraries (Debian sweethome3d-furniture)",
                }
            )
        return assets

    def make_shard(
        self, seed: int, index: int, frames: int, width: int, height: int
    ) -> list[Sample]:
        """The frames of one shard, ``VIEWS_PER_ROOM`` at most of each room."""
        stock = load_stock(self.cache, self.libraries, self.split)
        samples: list[Sample] = []
        rooms = np.random.SeedSequence([seed, index])
        failures = 0
        while len(samples) < frames:
            scene_seed = int(rooms.spawn(1)[0].generate_state(1)[0] & 0x7FFFFFFF)
            wanted = min(VIEWS_PER_ROOM, frames - len(samples))
            made = make_room(stock, self.cache, scene_seed, wanted, width, height, self.views)
            failures = 0 if made else failures + 1
            if failures > 60:
                raise BackendError(
                    "sixty rooms in a row gave no usable view: the renderer returns no depth "
                    "here; try MUJOCO_GL=osmesa"
                )
            samples += made
        return samples


@functools.lru_cache(maxsize=2)
def load_stock(cache: Path, libraries: tuple[Path, ...], split: str) -> Stock:
    """The models and textures of a split: "train", "val" or "all"."""
    models = furniture.load_catalogue(libraries, cache)
    if split != "all":
        models = [m for m in models if held_out(m.key) == (split == "val")]
    return Stock(models, TextureBank(fetch_wheels(cache), split))


def say(line: str) -> None:
    """Progress that goes to the terminal without hurting a progress bar."""
    print(line, file=sys.stderr, flush=True)


def make_room(
    stock: Stock,
    cache: Path,
    scene_seed: int,
    count: int,
    width: int,
    height: int,
    views: str = "mixed",
) -> list[Sample]:
    """Up to ``count`` useful frames of the room of that seed, from the places of ``VIEWS``."""
    kind = VIEWS[views]
    rng = np.random.default_rng(scene_seed)
    scene = draw_room(rng, stock)
    surfaces.finish(rng, scene, stock.bank)
    samples: list[Sample] = []
    with RoomRenderer(scene, width, height, cache) as renderer:
        for _ in range(count * 12):
            if len(samples) == count:
                break
            camera = kind.draw(rng, scene, width, height)
            if camera is None:
                continue
            pose, intrinsics = camera
            if not kind.is_promising(rng, *preview(scene, pose, intrinsics)):
                continue
            renderer.aim(pose, intrinsics)
            depth_m = renderer.depth()
            if not kind.is_useful(depth_m):
                continue
            labels_hw, instances_hw = renderer.identify()
            samples.append(
                Sample(
                    finish_picture(renderer.rgb(), depth_m, rng),
                    depth_m,
                    intrinsics,
                    labels_hw,
                    scene_seed,
                    pose_vector(pose),
                    instances_hw=instances_hw,
                    instance_labels=instance_labels(instances_hw, labels_hw),
                )
            )
    return samples


def pose_vector(pose: Pose) -> np.ndarray:
    """Position and quaternion (x, y, z, qx, qy, qz, qw) of an optical-to-world rotation."""
    m = pose.rotation_33
    # The eigenvector of the largest eigenvalue is the quaternion, free of special cases.
    k = (
        np.array(
            [
                [m[0, 0] - m[1, 1] - m[2, 2], 0, 0, 0],
                [m[0, 1] + m[1, 0], m[1, 1] - m[0, 0] - m[2, 2], 0, 0],
                [m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], m[2, 2] - m[0, 0] - m[1, 1], 0],
                [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], m.trace()],
            ]
        )
        / 3
    )
    quaternion = np.linalg.eigh(k)[1][:, -1]
    if quaternion[3] < 0:
        quaternion = -quaternion
    return np.concatenate([pose.position, quaternion]).astype(np.float32)
