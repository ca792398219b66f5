"""What a room can be filled with: furniture models and textures of one split."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dense_perception.synthetic.bank import TextureBank
from dense_perception.synthetic.furniture import FurnitureModel
from dense_perception.synthetic.scene import Scene

MAX_ROOM_FACES = 130_000
MAX_OBJECT_FACES = 21_000


class Stock:
    """Models by placement, and a texture bank."""

    def __init__(self, models: Sequence[FurnitureModel], bank: TextureBank) -> None:
        self.bank = bank
        self._by_placement: dict[str, list[FurnitureModel]] = {}
        for model in models:
            self._by_placement.setdefault(model.placement, []).append(model)

    def pick(
        self,
        rng: np.random.Generator,
        scene: Scene,
        placement: str,
        accept: Callable[[FurnitureModel], bool] | None = None,
    ) -> FurnitureModel | None:
        """One model of a placement that fits under the ceiling, keeps the scene drawable and that
        ``accept`` lets through; None when there is none.
        """
        faces = faces_left(scene)
        models = [
            m
            for m in self._by_placement.get(placement, ())
            if m.faces < faces
            and m.size_m[2] + m.elevation_m < scene.size[2] - 0.05
            and (accept is None or accept(m))
        ]
        return models[int(rng.integers(len(models)))] if models else None


def faces_left(scene: Scene) -> int:
    """How many triangles one more object may have."""
    used = sum(instance.model.faces for instance in scene.instances)
    return min(MAX_OBJECT_FACES, MAX_ROOM_FACES - used)


def draw_seed(rng: np.random.Generator) -> int:
    """A seed for an object's own colours."""
    return int(rng.integers(2**31))
