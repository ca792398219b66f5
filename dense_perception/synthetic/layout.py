"""Draws one furnished room, step by step; a pure function of the random generator."""

from __future__ import annotations

import numpy as np

from dense_perception.synthetic import decorate, furnish, shell
from dense_perception.synthetic.scene import Scene
from dense_perception.synthetic.stock import Stock
from dense_perception.synthetic.themes import THEMES


def draw_room(rng: np.random.Generator, stock: Stock) -> Scene:
    """A furnished room without light and paint (:func:`.surfaces.finish` adds those)."""
    names = list(THEMES)
    weights = np.array([THEMES[name].weight for name in names])
    name = names[int(rng.choice(len(names), p=weights / weights.sum()))]
    scene = shell.draw_shell(rng, name)
    shell.add_openings(rng, scene, stock)
    furnish.along_walls(rng, scene, stock)
    furnish.tables(rng, scene, stock)
    furnish.on_floor(rng, scene, stock)
    decorate.on_walls(rng, scene, stock)
    decorate.on_ceiling(rng, scene, stock)
    return scene
