"""Draws a room: size, walls, doors, windows, furniture with its clutter, pictures, lamps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dense_perception.training.synthetic import clutter, textures
from dense_perception.training.synthetic.furniture import Model
from dense_perception.training.synthetic.scene import (
    Box,
    Instance,
    Primitive,
    Scene,
    WallRun,
    footprint,
)
from dense_perception.training.synthetic.textures import TextureBank

MAX_ROOM_FACES = 130_000
MAX_OBJECT_FACES = 21_000


@dataclass(frozen=True)
class Theme:
    """What a kind of room holds: weights of labels, how full it is, its size in metres."""

    weight: float
    side_m: tuple[float, float]
    stretch: tuple[float, float]
    along_wall: dict[str, float]
    tables: tuple[int, int]
    desk_share: float
    floor_items: tuple[int, int]
    surface_items: tuple[int, int]


THEMES: dict[str, Theme] = {
    "office": Theme(
        0.28, (2.8, 7.5), (1.0, 1.7), {"cabinet": 2, "shelf": 3, "sofa": 0.4, "appliance": 0.4,
        "picture": 0.3}, (2, 8), 0.75, (3, 10), (3, 11)),
    "living": Theme(
        0.2, (3.0, 6.5), (1.0, 1.6), {"sofa": 3, "cabinet": 2, "shelf": 2.5, "other_furniture": 0.7,
        "chair": 1, "appliance": 0.5}, (1, 4), 0.2, (4, 11), (2, 8)),
    "bedroom": Theme(
        0.13, (2.6, 4.8), (1.0, 1.5), {"bed": 3, "cabinet": 3, "shelf": 1, "textile": 0.5,
        "chair": 0.5}, (0, 3), 0.5, (3, 11), (2, 8)),
    "kitchen": Theme(
        0.12, (2.3, 5.0), (1.0, 1.7), {"cabinet": 3, "appliance": 4, "sanitary": 0.6, "shelf": 0.6},
        (0, 3), 0.2, (2, 7), (3, 10)),
    "bathroom": Theme(
        0.06, (1.9, 3.4), (1.0, 1.6), {"sanitary": 5, "appliance": 1, "cabinet": 1, "textile": 0.3},
        (0, 0), 0.0, (0, 4), (1, 4)),
    "corridor": Theme(
        0.09, (1.5, 2.8), (2.5, 5.5), {"cabinet": 1, "shelf": 1, "appliance": 0.5, "chair": 0.5},
        (0, 2), 0.5, (2, 9), (1, 5)),
    "hall": Theme(
        0.06, (6.0, 11.0), (1.0, 1.5), {"sofa": 1.5, "cabinet": 1, "shelf": 1, "chair": 1,
        "appliance": 0.4}, (4, 14), 0.5, (6, 22), (1, 7)),
    "storage": Theme(
        0.06, (2.2, 5.5), (1.0, 2.0), {"shelf": 5, "cabinet": 2, "appliance": 0.6, "textile": 0.2},
        (0, 2), 0.7, (6, 18), (3, 9)),
}  # fmt: skip


class Furnisher:
    """Draws rooms out of a catalogue of models and a bank of textures.

    A room is a pure function of the random generator it is given.
    """

    def __init__(self, models: Sequence[Model], bank: TextureBank) -> None:
        self.bank = bank
        self._by_placement: dict[str, list[Model]] = {}
        for model in models:
            self._by_placement.setdefault(model.placement, []).append(model)

    def pick(
        self,
        rng: np.random.Generator,
        placement: str,
        accept: Callable[[Model], bool] = lambda model: True,
    ) -> Model | None:
        """One model of a placement that ``accept`` lets through, or None."""
        models = [m for m in self._by_placement.get(placement, ()) if accept(m)]
        return models[int(rng.integers(len(models)))] if models else None

    def room(self, rng: np.random.Generator) -> Scene:
        """Draw one furnished room, without light and paint."""
        names = list(THEMES)
        weights = np.array([THEMES[name].weight for name in names])
        name = names[int(rng.choice(len(names), p=weights / weights.sum()))]
        theme = THEMES[name]
        scene = _shell(rng, name, theme)
        self._openings(rng, scene)
        self._along_walls(rng, scene, theme)
        self._tables(rng, scene, theme)
        self._floor(rng, scene, theme)
        self._on_walls(rng, scene)
        self._ceiling(rng, scene)
        return scene

    # ------------------------------------------------------------ steps

    def _openings(self, rng: np.random.Generator, scene: Scene) -> None:
        outer = [i for i, run in enumerate(scene.runs[:4]) if run.length > 1.3]
        for kind, count in (("door", int(rng.integers(1, 3))), ("window", int(rng.integers(0, 5)))):
            for _ in range(count):
                index = int(rng.choice(outer))
                model = self.pick(
                    rng, kind, lambda m: m.size_m[2] + m.elevation_m < scene.size[2] - 0.05
                )
                if model is None:
                    continue
                run = scene.runs[index]
                width, depth, height = model.size_m
                if width > run.length - 0.2:
                    continue
                along = rng.uniform(width / 2 + 0.1, run.length - width / 2 - 0.1)
                z = 0.0 if kind == "door" else model.elevation_m or rng.uniform(0.7, 1.2)
                z = min(z, scene.size[2] - height - 0.02)
                # Most of the frame is inside the wall, the leaf stands a little proud of it.
                out = rng.uniform(0.0, 0.04) - depth * 0.2
                x, y = run.point(along, out)
                front = footprint(*run.point(along, 0.35), width, 0.7, run.yaw, z, z + height)
                clipped = _clip(front, scene.size)
                if any(clipped.overlaps(box) for box in scene.occupied):
                    continue
                scene.occupied.append(
                    Box(*_bounds(clipped), solid=False)
                    if kind == "door"
                    else Box(*_bounds(_clip(footprint(
                        *run.point(along, 0.06), width, 0.12, run.yaw, z, z + height
                    ), scene.size)))
                )  # fmt: skip
                scene.instances.append(
                    Instance(model, (x, y, z), run.yaw, 1.0, int(rng.integers(2**31)))
                )
                scene.openings.append(
                    (index, along - width / 2, z, along + width / 2, z + height, kind)
                )

    def _along_walls(self, rng: np.random.Generator, scene: Scene, theme: Theme) -> None:
        labels = list(theme.along_wall)
        weights = np.array([theme.along_wall[label] for label in labels], np.float64)
        fill = rng.uniform(0.45, 1.0)
        line_up = scene.theme in ("kitchen", "storage") or rng.random() < 0.25
        for run in scene.runs:
            along = rng.uniform(0.0, 0.5)
            while along < run.length - 0.3:
                if rng.random() > fill:
                    along += rng.uniform(0.3, 1.2)
                    continue
                label = labels[int(rng.choice(len(labels), p=weights / weights.sum()))]
                gap = 0.0 if line_up else rng.uniform(0.0, 0.12)
                if label == "shelf" and rng.random() < 0.6:
                    made, size = clutter.shelving(rng, self.bank)
                    if self._stand(scene, rng, run, along, size, gap, made=made):
                        along += size[0] + gap + (0.0 if line_up else rng.uniform(0, 0.6))
                    else:
                        along += 0.3
                    continue
                model = self.pick(
                    rng,
                    "along_wall",
                    lambda m, label=label: m.label == label
                    and m.size_m[2] < scene.size[2]
                    and m.faces < self._faces_left(scene),
                )
                if model is None:
                    along += 0.4
                    continue
                scale = rng.uniform(0.92, 1.08)
                size = tuple(s * scale for s in model.size_m)
                assert len(size) == 3
                if self._stand(scene, rng, run, along, size, gap, model=model, scale=scale):
                    along += size[0] + gap + (0.0 if line_up else rng.uniform(0, 0.8))
                else:
                    along += 0.3

    def _stand(
        self,
        scene: Scene,
        rng: np.random.Generator,
        run: WallRun,
        along: float,
        size: tuple[float, float, float],
        gap: float,
        *,
        model: Model | None = None,
        made: list[Primitive] | None = None,
        scale: float = 1.0,
    ) -> bool:
        """Put a model or drawn object with its back to the wall, its left edge at ``along``."""
        width, depth, height = size
        if along + width > run.length:
            return False
        x, y = run.point(along + width / 2, depth / 2 + 0.01 + gap * 0.5)
        box = footprint(x, y, width, depth, run.yaw, 0.0, height)
        if not scene.fits(box):
            return False
        scene.occupied.append(box)
        if made is not None:
            scene.primitives += clutter.place(made, x, y, 0.0, run.yaw)
            if height < 1.3:
                self._on_surface(scene, rng, x, y, height, run.yaw, width, depth, (0, 5))
            return True
        assert model is not None
        scene.instances.append(
            Instance(model, (x, y, 0.0), run.yaw, scale, int(rng.integers(2**31)))
        )
        if model.is_surface:
            z = model.surface_m * scale
            items = THEMES[scene.theme].surface_items
            self._on_surface(scene, rng, x, y, z, run.yaw, width, depth, items)
        return True

    def _tables(self, rng: np.random.Generator, scene: Scene, theme: Theme) -> None:
        for _ in range(int(rng.integers(theme.tables[0], theme.tables[1] + 1))):
            drawn = rng.random() < theme.desk_share
            if drawn:
                made, size = clutter.desk(rng, self.bank)
                surface = size[2]
                model = None
            else:
                model = self.pick(rng, "table", lambda m: m.faces < self._faces_left(scene))
                if model is None:
                    continue
                made, size, surface = None, model.size_m, model.surface_m
            at_wall = rng.random() < (0.6 if scene.theme in ("office", "bedroom") else 0.25)
            spot = None
            for _ in range(14):
                if at_wall:
                    run = scene.runs[int(rng.integers(len(scene.runs)))]
                    if run.length < size[0]:
                        continue
                    along = rng.uniform(0, run.length - size[0])
                    facing_wall = run.yaw
                    x, y = run.point(along + size[0] / 2, size[1] / 2 + 0.02)
                    yaw = facing_wall
                else:
                    x = rng.uniform(0.4, max(0.5, scene.size[0] - 0.4))
                    y = rng.uniform(0.4, max(0.5, scene.size[1] - 0.4))
                    yaw = rng.choice([0, 1, 2, 3]) * math.pi / 2
                    if rng.random() < 0.3:
                        yaw = rng.uniform(0, 2 * math.pi)
                box = footprint(x, y, size[0], size[1], yaw, 0.0, size[2])
                if scene.fits(box):
                    spot = x, y, yaw, box
                    break
            if spot is None:
                continue
            x, y, yaw, box = spot
            scene.occupied.append(box)
            if made is not None:
                scene.primitives += clutter.place(made, x, y, 0.0, yaw)
            elif model is not None:
                scene.instances.append(
                    Instance(model, (x, y, 0.0), yaw, 1.0, int(rng.integers(2**31)))
                )
            if made is not None or (model is not None and model.is_surface):
                self._on_surface(
                    scene, rng, x, y, surface, yaw, size[0], size[1], theme.surface_items
                )
            self._seats(rng, scene, x, y, yaw, size, (1, 3) if at_wall else (1, 7))

    def _seats(
        self,
        rng: np.random.Generator,
        scene: Scene,
        x: float,
        y: float,
        yaw: float,
        size: tuple[float, float, float],
        count: tuple[int, int],
    ) -> None:
        """Chairs around a table, facing it, some pushed under, some pulled away."""
        chair = self.pick(rng, "seat", lambda m: m.faces < self._faces_left(scene))
        if chair is None or size[2] < 0.4:
            return
        same = rng.random() < 0.7
        seed = int(rng.integers(2**31))
        for _ in range(int(rng.integers(*count))):
            if not same:
                chair = self.pick(rng, "seat", lambda m: m.faces < self._faces_left(scene)) or chair
            assert chair is not None
            if chair.faces > self._faces_left(scene):
                return
            side = int(rng.choice([0, 1, 2, 3], p=[0.4, 0.3, 0.15, 0.15]))
            reach = chair.size_m[1] / 2 + rng.uniform(0.0, 0.5)
            if side < 2:
                dx = rng.uniform(-0.4, 0.4) * size[0]
                dy = (size[1] / 2 + reach) * (1 if side == 0 else -1)
                turn = math.pi if side == 0 else 0.0
            else:
                dx = (size[0] / 2 + reach) * (1 if side == 2 else -1)
                dy = rng.uniform(-0.3, 0.3) * size[1]
                turn = math.pi / 2 if side == 2 else -math.pi / 2
            c, s = math.cos(yaw), math.sin(yaw)
            px, py = x + c * dx - s * dy, y + s * dx + c * dy
            chair_yaw = yaw + turn + rng.normal(0, 0.35)
            box = footprint(
                px, py, chair.size_m[0] * 0.9, chair.size_m[1] * 0.9, chair_yaw, 0, chair.size_m[2]
            )
            if scene.fits(box):
                scene.occupied.append(box)
                if not same:
                    seed = int(rng.integers(2**31))
                scene.instances.append(Instance(chair, (px, py, 0.0), chair_yaw, 1.0, seed))

    def _on_surface(
        self,
        scene: Scene,
        rng: np.random.Generator,
        x: float,
        y: float,
        z: float,
        yaw: float,
        width: float,
        depth: float,
        count: tuple[int, int],
    ) -> None:
        """Small things on a table top; they may not overlap each other."""
        taken: list[Box] = []
        c, s = math.cos(yaw), math.sin(yaw)
        for _ in range(int(rng.integers(count[0], count[1] + 1))):
            model = None
            made: list[Primitive] | None = None
            if rng.random() < 0.5:
                model = self.pick(
                    rng,
                    "small",
                    lambda m: m.faces < self._faces_left(scene) and m.label != "animal",
                )
                if model is None:
                    continue
                size = model.size_m
            else:
                made, size = clutter.pick(rng, clutter.ON_SURFACE)(rng, self.bank)
            if size[0] > width or size[1] > depth or z + size[2] > scene.size[2]:
                continue
            for _ in range(4):
                dx = rng.uniform(-1, 1) * (width - size[0]) / 2 * 0.97
                dy = rng.uniform(-1, 1) * (depth - size[1]) / 2 * 0.97
                turn = rng.normal(0, 0.3) if rng.random() < 0.7 else rng.uniform(0, 6.28)
                box = footprint(dx, dy, size[0], size[1], turn, 0, 1)
                if not any(box.overlaps(other) for other in taken):
                    break
            else:
                continue
            taken.append(box)
            px, py = x + c * dx - s * dy, y + s * dx + c * dy
            if made is not None:
                scene.primitives += clutter.place(made, px, py, z, yaw + turn)
            elif model is not None:
                seed = int(rng.integers(2**31))
                scene.instances.append(Instance(model, (px, py, z), yaw + turn, 1.0, seed))
            scene.occupied.append(
                footprint(px, py, size[0], size[1], yaw + turn, z, z + size[2])
            )

    def _floor(self, rng: np.random.Generator, scene: Scene, theme: Theme) -> None:
        if rng.random() < 0.3:
            self._rug(rng, scene)
        people = rng.random() < 0.15
        for _ in range(int(rng.integers(theme.floor_items[0], theme.floor_items[1] + 1))):
            made: list[Primitive] | None = None
            model: Model | None = None
            kind = rng.random()
            if kind < 0.35:
                made, size = clutter.pick(rng, clutter.ON_FLOOR)(rng, self.bank)
            elif kind < 0.4:
                made, size = clutter.partition(rng, self.bank)
            else:
                placement = str(rng.choice(["free", "free", "seat", "small"]))
                model = self.pick(
                    rng,
                    placement,
                    lambda m: m.faces < self._faces_left(scene)
                    and (people or m.label != "person"),
                )
                if model is None:
                    continue
                size = model.size_m
            for _ in range(8):
                x, y = rng.uniform(0, scene.size[0]), rng.uniform(0, scene.size[1])
                if rng.random() < 0.5:  # against a wall or in a corner
                    if rng.random() < 0.5:
                        x = float(rng.choice([size[0] / 2, scene.size[0] - size[0] / 2]))
                    else:
                        y = float(rng.choice([size[1] / 2, scene.size[1] - size[1] / 2]))
                yaw = rng.uniform(0, 2 * math.pi) if rng.random() < 0.6 else rng.choice(4) * 1.5708
                box = footprint(x, y, size[0], size[1], yaw, 0.0, size[2])
                if scene.fits(box):
                    break
            else:
                continue
            scene.occupied.append(box)
            if made is not None:
                scene.primitives += clutter.place(made, x, y, 0.0, yaw)
            elif model is not None:
                seed = int(rng.integers(2**31))
                scene.instances.append(Instance(model, (x, y, 0.0), yaw, 1.0, seed))

    def _rug(self, rng: np.random.Generator, scene: Scene) -> None:
        w, d = rng.uniform(0.8, 2.8), rng.uniform(0.6, 2.0)
        if w > scene.size[0] - 0.2 or d > scene.size[1] - 0.2:
            return
        x = rng.uniform(w / 2, scene.size[0] - w / 2)
        y = rng.uniform(d / 2, scene.size[1] - d / 2)
        if rng.random() < 0.5:
            image = textures.recolour(
                self.bank.pick("object", rng), textures.object_colour(rng), 0.8
            )
        else:
            image = np.clip(textures.wallpaper(rng, 192, 192, 100), 0, 1)
        texture = (image * 255).astype(np.uint8)
        scene.primitives.append(
            Primitive(
                "box", (w / 2, d / 2, 0.006), (x, y, 0.006), 0.0, (1, 1, 1), "rug", texture, 0, 0
            )
        )

    def _on_walls(self, rng: np.random.Generator, scene: Scene) -> None:
        for run in scene.runs:
            for _ in range(int(rng.poisson(min(run.length, 6) * 0.6))):
                kind = rng.random()
                model: Model | None = None
                made: list[Primitive] | None = None
                if kind < 0.45:
                    made, size = self._picture(rng)
                    z = rng.uniform(0.9, 1.7)
                elif kind < 0.52:
                    made, size = _wall_board(rng)
                    z = rng.uniform(0.8, 1.2)
                elif kind < 0.66:
                    w = rng.uniform(0.4, 1.2)
                    made, _ = clutter.books(rng, self.bank, w * rng.uniform(0.3, 0.9), 0.3)
                    rgb = textures.object_colour(rng)
                    board = Primitive(
                        "box", (w / 2, 0.12, 0.012), (0, 0, -0.012), 0.0,
                        (float(rgb[0]), float(rgb[1]), float(rgb[2])), "shelf",
                    )  # fmt: skip
                    made = [board, *made]
                    size = (w, 0.26, 0.35)
                    z = rng.uniform(1.1, 1.8)
                else:
                    model = self.pick(rng, "wall", lambda m: m.faces < self._faces_left(scene))
                    if model is None:
                        continue
                    size, z = model.size_m, model.elevation_m
                width, depth, height = size
                if width > run.length - 0.1 or z + height > scene.size[2] - 0.02:
                    continue
                x, y = run.point(
                    rng.uniform(width / 2 + 0.03, run.length - width / 2 - 0.03), depth / 2 + 0.003
                )
                box = footprint(x, y, width, depth, run.yaw, z, z + height)
                if not scene.fits(box):
                    continue
                scene.occupied.append(box)
                if made is not None:
                    scene.primitives += clutter.place(made, x, y, z, run.yaw)
                elif model is not None:
                    seed = int(rng.integers(2**31))
                    scene.instances.append(Instance(model, (x, y, z), run.yaw, 1.0, seed))

    def _picture(
        self, rng: np.random.Generator
    ) -> tuple[list[Primitive], tuple[float, float, float]]:
        image = self.bank.pick("picture", rng) if rng.random() < 0.5 else textures.poster(rng)
        w = rng.uniform(0.2, 1.0)
        h = w * rng.uniform(0.6, 1.6)
        frame = textures.object_colour(rng)
        rgb = (float(frame[0]), float(frame[1]), float(frame[2]))
        picture = (np.clip(image, 0, 1) * 255).astype(np.uint8)
        edge = rng.uniform(0.0, 0.04)
        parts = [
            Primitive("box", (w / 2 + edge, 0.01, h / 2 + edge), (0, 0, h / 2), 0, rgb, "picture"),
            Primitive(
                "box", (w / 2, 0.003, h / 2), (0, 0.01, h / 2), 0, (1, 1, 1), "picture", picture
            ),
        ]
        return parts, (w + 2 * edge, 0.03, h + edge)

    def _ceiling(self, rng: np.random.Generator, scene: Scene) -> None:
        x_m, y_m, z_m = scene.size
        if rng.random() < 0.55:  # light panels in a grid
            nx, ny = max(1, round(x_m / 2.4)), max(1, round(y_m / 2.4))
            w, d = [(0.3, 0.3), (0.6, 0.15), (0.15, 0.6), (0.08, 0.08)][int(rng.integers(4))]
            on = rng.random() < 0.75
            for i in range(nx):
                for j in range(ny):
                    at = ((i + 0.5) * x_m / nx, (j + 0.5) * y_m / ny, z_m - 0.01)
                    scene.primitives.append(
                        Primitive(
                            "box", (w, d, 0.015), at, 0, (1, 1, 0.97), "lamp",
                            emission=0.9 if on else 0.1,
                        )
                    )  # fmt: skip
        else:
            for _ in range(int(rng.integers(1, 4))):
                model = self.pick(
                    rng,
                    "ceiling",
                    lambda m: m.faces < self._faces_left(scene) and m.size_m[2] < z_m - 1.7,
                )
                if model is None:
                    break
                x, y = rng.uniform(0.3, x_m - 0.3), rng.uniform(0.3, y_m - 0.3)
                z = z_m - model.size_m[2]
                box = footprint(x, y, model.size_m[0], model.size_m[1], 0.0, z, z_m)
                if scene.fits(box):
                    scene.occupied.append(box)
                    seed = int(rng.integers(2**31))
                    scene.instances.append(Instance(model, (x, y, z), 0.0, 1.0, seed))
        if rng.random() < 0.2:  # beams, ducts and pipes under the ceiling
            rgb = textures.wall_colour(rng)
            for _ in range(int(rng.integers(1, 4))):
                r = rng.uniform(0.04, 0.18)
                y = rng.uniform(0.2, y_m - 0.2)
                scene.primitives.append(
                    Primitive(
                        "box", (x_m / 2, r, r), (x_m / 2, y, z_m - r), 0.0,
                        (float(rgb[0]), float(rgb[1]), float(rgb[2])), "ceiling",
                    )
                )  # fmt: skip

    @staticmethod
    def _faces_left(scene: Scene) -> int:
        used = sum(instance.model.faces for instance in scene.instances)
        return min(MAX_OBJECT_FACES, MAX_ROOM_FACES - used)


# ---------------------------------------------------------------- the shell


def _shell(rng: np.random.Generator, name: str, theme: Theme) -> Scene:
    """Room size, outer walls, sometimes a column, a chimney breast, a corner cut or a stub wall."""
    x_m = rng.uniform(*theme.side_m)
    y_m = min(12.0, x_m * rng.uniform(*theme.stretch))
    if rng.random() < 0.5:
        x_m, y_m = y_m, x_m
    z_m = float(np.clip(rng.normal(2.6, 0.25), 2.25, 3.6))
    if name == "hall":
        z_m = rng.uniform(2.6, 3.8)
    scene = Scene((x_m, y_m, z_m), name)
    scene.runs = [
        WallRun((0, 0), (x_m, 0), (0, 1)),
        WallRun((x_m, 0), (x_m, y_m), (-1, 0)),
        WallRun((x_m, y_m), (0, y_m), (0, -1)),
        WallRun((0, y_m), (0, 0), (1, 0)),
    ]
    count = int(rng.choice([0, 1, 2, 3], p=[0.45, 0.3, 0.15, 0.1]))
    for _ in range(count):
        kind = rng.random()
        if kind < 0.3:  # corner cut: an L-shaped room
            w, d = rng.uniform(0.2, 0.45) * x_m, rng.uniform(0.2, 0.45) * y_m
            x0 = float(rng.choice([0.0, x_m - w]))
            y0 = float(rng.choice([0.0, y_m - d]))
        elif kind < 0.65:  # stub wall
            thick, reach = rng.uniform(0.08, 0.25), rng.uniform(0.25, 0.6)
            if rng.random() < 0.5:
                w, d = thick, reach * y_m
                x0, y0 = rng.uniform(0.25, 0.75) * x_m, float(rng.choice([0.0, y_m - d]))
            else:
                w, d = reach * x_m, thick
                x0, y0 = float(rng.choice([0.0, x_m - w])), rng.uniform(0.25, 0.75) * y_m
        elif kind < 0.85:  # pilaster or chimney breast
            w, d = rng.uniform(0.2, 1.2), rng.uniform(0.1, 0.4)
            x0 = rng.uniform(0, max(0.01, x_m - w))
            y0 = float(rng.choice([0.0, y_m - d]))
        else:  # free column
            w = d = rng.uniform(0.2, 0.45)
            x0, y0 = rng.uniform(0.2, 0.8) * x_m - w / 2, rng.uniform(0.2, 0.8) * y_m - d / 2
        if min(x_m, y_m) < 2.4 and kind < 0.65:
            continue
        block = Box(x0, y0, 0.0, x0 + w, y0 + d, z_m)
        if scene.fits(block):
            scene.blocks.append(block)
            scene.occupied.append(block)
            scene.runs += block_runs(block, scene.size)
    return scene


def block_runs(block: Box, size: tuple[float, float, float]) -> list[WallRun]:
    """The sides of a floor-to-ceiling block that face the room, as wall runs."""
    x0, y0, x1, y1 = block.x0, block.y0, block.x1, block.y1
    runs = []
    if y1 < size[1] - 1e-6:
        runs.append(WallRun((x0, y1), (x1, y1), (0, 1)))
    if y0 > 1e-6:
        runs.append(WallRun((x1, y0), (x0, y0), (0, -1)))
    if x1 < size[0] - 1e-6:
        runs.append(WallRun((x1, y1), (x1, y0), (1, 0)))
    if x0 > 1e-6:
        runs.append(WallRun((x0, y0), (x0, y1), (-1, 0)))
    return runs


def _wall_board(
    rng: np.random.Generator,
) -> tuple[list[Primitive], tuple[float, float, float]]:
    """A whiteboard or pin board."""
    w, h = rng.uniform(0.8, 2.4), rng.uniform(0.6, 1.2)
    white = rng.random() < 0.6
    rgb = textures.hsv(0.1, 0.0, 0.93) if white else textures.hsv(0.08, 0.45, 0.6)
    edge = (0.7, 0.7, 0.72) if white else (0.5, 0.38, 0.25)
    parts = [
        Primitive("box", (w / 2, 0.012, h / 2), (0, 0, h / 2), 0.0, edge, "picture"),
        Primitive(
            "box", (w / 2 - 0.02, 0.004, h / 2 - 0.02), (0, 0.012, h / 2), 0.0,
            (float(rgb[0]), float(rgb[1]), float(rgb[2])), "picture",
        ),
    ]  # fmt: skip
    for _ in range(int(rng.integers(0, 7))):
        image = (np.clip(textures.poster(rng, 64), 0, 1) * 255).astype(np.uint8)
        at = (rng.uniform(-0.4, 0.4) * w, 0.017, h / 2 + rng.uniform(-0.3, 0.3) * h)
        parts.append(Primitive("box", (0.1, 0.002, 0.14), at, 0, (1, 1, 1), "picture", image))
    return parts, (w, 0.04, h)


def _bounds(box: Box) -> tuple[float, float, float, float, float, float]:
    return box.x0, box.y0, box.z0, box.x1, box.y1, box.z1


def _clip(box: Box, size: tuple[float, float, float]) -> Box:
    return Box(
        max(box.x0, 0.0),
        max(box.y0, 0.0),
        max(box.z0, 0.0),
        min(box.x1, size[0]),
        min(box.y1, size[1]),
        min(box.z1, size[2]),
    )
