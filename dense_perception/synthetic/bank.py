"""Photographs of surfaces out of Python wheels that are read as zip files, never installed."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dense_perception.core.errors import InputError

SIDE = 256


@dataclass(frozen=True)
class Wheel:
    """A wheel that carries textures: requirement, licence, and which files serve as what."""

    requirement: str
    licence: str
    folder: str
    roles: dict[str, tuple[str, ...]]


WHEELS = (
    Wheel(
        "miniworld==2.1.0",
        "Apache-2.0",
        "miniworld/textures/",
        {
            "floor": (
                "wood_1",
                "wood_2",
                "wood_planks_1",
                "concrete_1",
                "concrete_2",
                "concrete_3",
                "concrete_4",
                "concrete_tiles_1",
                "floor_tiles_white",
                "floor_tiles_bw_1",
                "marble_1",
                "marble_2",
                "asphalt_1",
            ),
            "wall": (
                "drywall_1",
                "stucco_1",
                "white_1",
                "brick_wall_1",
                "cinder_blocks_1",
                "concrete_1",
                "concrete_2",
                "concrete_3",
                "wood_planks_1",
                "wood_1",
            ),
            "ceiling": ("ceiling_tile_noborder_1", "ceiling_tiles_1", "white_1", "drywall_1"),
            "object": (
                "wood_1",
                "wood_2",
                "wood_planks_1",
                "cardboard_1",
                "cardboard_2",
                "cardboard_3",
                "cardboard_4",
                "metal_grill_1",
                "marble_1",
            ),
            "picture": ("portraits/*",),
        },
    ),
    Wheel(
        "metaworld==3.1.1",
        "MIT",
        "metaworld/assets/",
        {
            "floor": (
                "textures/floor1",
                "textures/floor2",
                "textures/wood1",
                "textures/wood2",
                "textures/wood3",
                "textures/wood4",
                "textures/granite",
                "scene/textures/white_marble_tile",
                "scene/textures/white_marble_tile2",
                "scene/textures/fabricPlain",
            ),
            "wall": ("textures/plaster1", "textures/brick1", "scene/textures/plaster"),
            "object": (
                "textures/darkwood",
                "textures/light_wood",
                "textures/light_wood_v2",
                "textures/wood",
                "textures/wood_light",
                "textures/navy_blue",
                "textures/metal",
                "textures/metal1",
                "textures/metal2",
                "textures/wood1",
                "textures/wood2",
                "textures/wood3",
                "textures/wood4",
                "scene/textures/wood2",
                "textures/granite",
                "scene/textures/wood",
                "scene/textures/fabricPattern",
                "scene/textures/fabricPlain",
            ),
        },
    ),
    Wheel(
        "robosuite==1.5.2",
        "MIT",
        "robosuite/models/assets/textures/",
        {
            "floor": (
                "light-gray-floor-tile",
                "wood-tiles",
                "dark-wood",
                "light-wood",
                "gray-woodgrain",
                "gray-felt",
            ),
            "wall": (
                "cream-plaster",
                "gray-plaster",
                "light-gray-plaster",
                "white-plaster",
                "yellow-plaster",
                "pink-plaster",
                "white-bricks",
                "wood-varnished-panels",
            ),
            "ceiling": ("white-plaster", "light-gray-plaster"),
            "object": (
                "dark-wood",
                "light-wood",
                "gray-woodgrain",
                "red-wood",
                "steel-brushed",
                "steel-scratched",
                "brass-ambra",
                "blue-wood",
                "ceramic",
                "clay",
                "gray-felt",
            ),
        },
    ),
)


def fetch_wheels(cache: Path) -> list[Path]:
    """The texture wheels, downloaded into ``cache/wheels`` by pip where they are not there yet.

    :raises InputError: when pip cannot get one.
    """
    folder = Path(cache) / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for wheel in WHEELS:
        stem = wheel.requirement.replace("==", "-")
        found = sorted(folder.glob(f"{stem}-*.whl"))
        if not found:
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
            done = subprocess.run(
                [*command, "-d", str(folder), wheel.requirement], capture_output=True, text=True
            )
            found = sorted(folder.glob(f"{stem}-*.whl"))
            if not found:
                raise InputError(
                    f"pip could not download the texture wheel {wheel.requirement} into {folder}: "
                    f"{done.stderr.strip()[-300:]} -- check the network or put the wheel there"
                )
        paths.append(found[0])
    return paths


def held_out(key: str, share: float = 0.2) -> bool:
    """Whether an asset belongs to the validation corpora; a fixed function of its name."""
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 2**32 < share


class TextureBank:
    """Photographs by role ("floor", "wall", "ceiling", "object", "picture") of one split.

    :param wheels: the files :func:`fetch_wheels` returns.
    :param split: "train", "val" or "all".
    """

    def __init__(self, wheels: Sequence[Path], split: str = "all") -> None:
        self._by_role: dict[str, list[np.ndarray]] = {}
        by_key: dict[str, np.ndarray] = {}
        for wheel, path in zip(WHEELS, wheels, strict=True):
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
                for role, stems in wheel.roles.items():
                    for stem in stems:
                        prefix = wheel.folder + stem.rstrip("*")
                        for name in names:
                            if not (name.startswith(prefix) and name.endswith(".png")):
                                continue
                            if not stem.endswith("*") and name != prefix + ".png":
                                continue
                            if split != "all" and held_out(name) != (split == "val"):
                                continue
                            if name not in by_key:
                                by_key[name] = _decode(archive.read(name))
                            self._by_role.setdefault(role, []).append(by_key[name])

    def pick(self, role: str, rng: np.random.Generator) -> np.ndarray:
        """One SIDE x SIDE x 3 photograph; mid-gray where the split has none of that role."""
        images = self._by_role.get(role)
        if not images:
            return np.full((SIDE, SIDE, 3), 0.5, np.float32)
        return images[int(rng.integers(len(images)))]


def _decode(data: bytes) -> np.ndarray:
    from PIL import Image

    image = Image.open(io.BytesIO(data)).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(image, np.float32) / 255
