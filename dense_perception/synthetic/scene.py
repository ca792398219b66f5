"""The description of one room: what stands where. Numpy only; rendering is elsewhere.

World frame: x and y along the floor, z up, metres; the room's floor is [0, X] x [0, Y] at z = 0.
Yaw turns counter-clockwise seen from above; at yaw 0 the front of an object faces +y.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from dense_perception.synthetic.furniture import FurnitureModel


@dataclass(frozen=True)
class Instance:
    """A furniture model standing at ``position`` (middle of its underside).

    ``thing`` numbers what it is or belongs to among the scene's things, from 1 on; 0 for none.
    """

    model: FurnitureModel
    position: tuple[float, float, float]
    yaw: float
    scale: float = 1.0
    tint_seed: int = 0
    thing: int = 0


@dataclass(frozen=True)
class Primitive:
    """A box, cylinder or ellipsoid given by half sizes, centred at ``position``.

    ``thing`` is that of :class:`Instance`: all parts of one object have one number.
    """

    shape: str
    half: tuple[float, float, float]
    position: tuple[float, float, float]
    yaw: float
    rgb: tuple[float, float, float]
    label: str
    texture_hwc: np.ndarray | None = None
    emission: float = 0.0
    specular: float = 0.1
    thing: int = 0

    def moved(self, x: float, y: float, z: float, yaw: float) -> Primitive:
        """Turned by ``yaw`` about the z axis, then shifted."""
        c, s = math.cos(yaw), math.sin(yaw)
        px, py, pz = self.position
        position = (x + c * px - s * py, y + s * px + c * py, z + pz)
        return replace(self, position=position, yaw=self.yaw + yaw)


@dataclass(frozen=True)
class Item:
    """Something to place: a catalogue model or drawn primitives, standing on z = 0, front to +y.

    ``size`` is width, depth, height in metres; ``surface_m`` the height of a top that small things
    may lie on, None where there is none.
    """

    size: tuple[float, float, float]
    model: FurnitureModel | None = None
    made: tuple[Primitive, ...] = ()
    scale: float = 1.0
    surface_m: float | None = None

    @classmethod
    def of(cls, model: FurnitureModel, scale: float = 1.0) -> Item:
        """A catalogue model, scaled."""
        w, d, h = model.size_m
        top = model.surface_m * scale if model.is_surface else None
        return cls((w * scale, d * scale, h * scale), model, (), scale, top)


@dataclass(frozen=True)
class Surface:
    """A rectangle of the shell: corner, two edge vectors in metres, what is painted on it.

    The visible side is the one ``cross(edge_u, edge_v)`` points to. Texture row 0 lies along
    ``origin + t * edge_u``; rows run along ``edge_v``. ``texture_hwc`` uint8 RGB.
    ``emission`` stands for light thrown back from the rest of the room.
    """

    origin: np.ndarray
    edge_u: np.ndarray
    edge_v: np.ndarray
    label: str
    texture_hwc: np.ndarray
    specular: float = 0.0
    emission: float = 0.0


@dataclass(frozen=True)
class Light:
    """A lamp: position, direction, RGB intensity; at most one per scene throws shadows."""

    position: tuple[float, float, float]
    direction: tuple[float, float, float]
    rgb: tuple[float, float, float]
    shadow: bool


@dataclass(frozen=True)
class WallRun:
    """A straight piece of wall from ``start`` to ``end`` (x, y) with the room along ``normal``."""

    start: tuple[float, float]
    end: tuple[float, float]
    normal: tuple[float, float]

    @property
    def length(self) -> float:
        return math.hypot(self.end[0] - self.start[0], self.end[1] - self.start[1])

    @property
    def yaw(self) -> float:
        """Yaw of an object whose back is to the wall."""
        return math.atan2(-self.normal[0], self.normal[1])

    def point(self, along: float, out: float) -> tuple[float, float]:
        """The (x, y) ``along`` metres from the start and ``out`` metres into the room."""
        ux = (self.end[0] - self.start[0]) / self.length
        uy = (self.end[1] - self.start[1]) / self.length
        return (
            self.start[0] + ux * along + self.normal[0] * out,
            self.start[1] + uy * along + self.normal[1] * out,
        )


@dataclass(frozen=True)
class Box:
    """An axis-aligned occupied volume; ``solid`` is False for room kept free (before doors)."""

    x0: float
    y0: float
    z0: float
    x1: float
    y1: float
    z1: float
    solid: bool = True

    def overlaps(self, other: Box, slack: float = 0.01) -> bool:
        return (
            self.x0 < other.x1 - slack
            and other.x0 < self.x1 - slack
            and self.y0 < other.y1 - slack
            and other.y0 < self.y1 - slack
            and self.z0 < other.z1 - slack
            and other.z0 < self.z1 - slack
        )


def footprint(
    x: float, y: float, width: float, depth: float, yaw: float, z0: float, z1: float
) -> Box:
    """The box around a rotated object centred at (x, y)."""
    c, s = abs(math.cos(yaw)), abs(math.sin(yaw))
    hx, hy = (width * c + depth * s) / 2, (width * s + depth * c) / 2
    return Box(x - hx, y - hy, z0, x + hx, y + hy, z1)


class Opening(NamedTuple):
    """A door or a window in the wall of that run: metres along it and above the floor."""

    run: int
    along0: float
    z0: float
    along1: float
    z1: float
    kind: str
    thing: int


@dataclass
class Scene:
    """One room: its shell, contents, light, and the volumes a camera cannot be in."""

    size: tuple[float, float, float]
    theme: str
    runs: list[WallRun] = field(default_factory=list)
    blocks: list[Box] = field(default_factory=list)
    openings: list[Opening] = field(default_factory=list)
    surfaces: list[Surface] = field(default_factory=list)
    instances: list[Instance] = field(default_factory=list)
    primitives: list[Primitive] = field(default_factory=list)
    lights: list[Light] = field(default_factory=list)
    ambient: tuple[float, float, float] = (0.4, 0.4, 0.4)
    occupied: list[Box] = field(default_factory=list)
    things: int = 0
    """How many things there are; each is a number from 1 on."""

    def fits(self, box: Box, ignore: Box | None = None) -> bool:
        """Whether the box lies inside the room and overlaps nothing but ``ignore``."""
        x, y, z = self.size
        inside = (
            box.x0 >= -1e-6
            and box.y0 >= -1e-6
            and box.z0 >= -1e-6
            and box.x1 <= x + 1e-6
            and box.y1 <= y + 1e-6
            and box.z1 <= z + 1e-6
        )
        return inside and not any(
            box.overlaps(other) for other in self.occupied if other is not ignore
        )

    def new_thing(self) -> int:
        """The number of one more thing."""
        self.things += 1
        return self.things

    def add(self, parts: Iterable[Primitive], thing: int | None = None) -> None:
        """Add the parts of one thing; of a new one, if its number is not given."""
        number = self.new_thing() if thing is None else thing
        self.primitives += [replace(part, thing=number) for part in parts]

    def put(
        self, item: Item, x: float, y: float, z: float, yaw: float, seed: int, shrink: float = 1.0
    ) -> Box:
        """Add an item standing at (x, y, z); returns the volume it occupies.

        ``shrink`` scales the occupied footprint, for things that may stand close.
        """
        width, depth, height = item.size
        box = footprint(x, y, width * shrink, depth * shrink, yaw, z, z + height)
        self.occupied.append(box)
        thing = self.new_thing()
        if item.model is not None:
            self.instances.append(Instance(item.model, (x, y, z), yaw, item.scale, seed, thing))
        self.add((primitive.moved(x, y, z, yaw) for primitive in item.made), thing)
        return box

    def clip(self, box: Box) -> Box:
        """The part of a box inside the room."""
        x, y, z = self.size
        return replace(
            box,
            x0=max(box.x0, 0.0),
            y0=max(box.y0, 0.0),
            z0=max(box.z0, 0.0),
            x1=min(box.x1, x),
            y1=min(box.y1, y),
            z1=min(box.z1, z),
        )
