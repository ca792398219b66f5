"""Rooms drawn from a fake stock: all inside, nothing through anything, same seed same room."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dense_perception.synthetic import clutter, litter, surfaces
from dense_perception.synthetic.furnish import draw_room
from dense_perception.synthetic.scene import Scene
from dense_perception.synthetic.taxonomy import CLASSES
from test.synthetic.miniature import FlatBank, fake_stock

STOCK = fake_stock()
SEEDS = range(16)


def draw(seed: int) -> Scene:
    return draw_room(np.random.default_rng(seed), STOCK)


@pytest.fixture(scope="module")
def rooms() -> list[Scene]:
    return [draw(seed) for seed in SEEDS]


def test_rooms_are_plausible_in_size(rooms: list[Scene]) -> None:
    for scene in rooms:
        x, y, z = scene.size
        assert 1.4 <= min(x, y) <= max(x, y) <= 12.5
        assert 2.2 <= z <= 3.8
    assert len({scene.theme for scene in rooms}) >= 4
    assert np.median([len(s.instances) + len(s.primitives) for s in rooms]) > 25


def test_furniture_stands_inside_on_the_floor_or_on_something(rooms: list[Scene]) -> None:
    for scene in rooms:
        x, y, z = scene.size
        for instance in scene.instances:
            if instance.model.placement in ("door", "window"):
                continue
            px, py, pz = instance.position
            assert -1e-6 <= px <= x + 1e-6
            assert -1e-6 <= py <= y + 1e-6
            assert pz >= 0
            assert pz + instance.model.size_m[2] * instance.scale <= z + 1e-6


def test_large_furniture_does_not_overlap(rooms: list[Scene]) -> None:
    for scene in rooms:
        tall = [b for b in scene.occupied if b.solid and b.z0 == 0 and b.z1 > 1.5]
        for k, box in enumerate(tall):
            for other in tall[k + 1 :]:
                # chairs may stand under tables, never in one another or in cupboards and walls
                assert not box.overlaps(other, slack=0.02)


def test_backs_are_to_a_wall(rooms: list[Scene]) -> None:
    checked = 0
    for scene in rooms:
        for instance in scene.instances:
            if instance.model.placement != "along_wall":
                continue
            back = -instance.model.size_m[1] * instance.scale / 2
            px = instance.position[0] - math.sin(instance.yaw) * back
            py = instance.position[1] + math.cos(instance.yaw) * back
            gaps = []
            for run in scene.runs:
                nx, ny = run.normal
                gaps.append(abs((px - run.start[0]) * nx + (py - run.start[1]) * ny))
            assert min(gaps) < 0.1
            checked += 1
    assert checked > 25


def test_doors_can_be_reached(rooms: list[Scene]) -> None:
    for scene in rooms:
        for free in (b for b in scene.occupied if not b.solid):
            for box in scene.occupied:
                if box.solid and box.z1 - box.z0 < 1.99:  # an open leaf stands before its own door
                    assert not box.overlaps(free, slack=0.02)


def test_things_lie_on_tops(rooms: list[Scene]) -> None:
    tops = {0.75, 0.8}
    raised = [
        i.position[2]
        for scene in rooms
        for i in scene.instances
        if i.model.key == "cup" and i.position[2] > 0
    ]
    on_models = [
        z for z in raised if any(abs(z - top * s) < 0.08 for top in tops for s in (0.92, 1, 1.08))
    ]
    assert len(raised) > 10
    assert len(on_models) > len(raised) * 0.5


def test_same_seed_same_room() -> None:
    first, second, other = draw(3), draw(3), draw(4)
    assert first.instances == second.instances
    assert first.occupied == second.occupied
    assert [p.position for p in first.primitives] == [p.position for p in second.primitives]
    assert first.size != other.size


def test_labels_are_classes(rooms: list[Scene]) -> None:
    for scene in rooms:
        assert {p.label for p in scene.primitives} <= set(CLASSES)


@pytest.mark.parametrize(
    "maker",
    [
        clutter.shelving,
        clutter.carton,
        clutter.desk,
        clutter.monitor,
        clutter.keyboard,
        clutter.papers,
        clutter.cup,
        clutter.partition,
        clutter.bag,
        clutter.bin_,
        litter.cable,
        litter.pot_plant,
        litter.laptop,
        litter.crockery,
        litter.heap,
        litter.shoes,
    ],
    ids=lambda maker: maker.__name__,
)
def test_drawn_objects_stay_within_their_size(maker: clutter.Maker) -> None:
    for seed in range(10):
        item = maker(np.random.default_rng(seed), FlatBank())  # type: ignore[arg-type]
        width, depth, height = item.size
        for part in item.made:
            c, s = abs(math.cos(part.yaw)), abs(math.sin(part.yaw))
            hx = part.half[0] * c + part.half[1] * s
            hy = part.half[0] * s + part.half[1] * c
            x, y, z = part.position
            slack = 0.06  # sheets of paper lie a little askew
            assert abs(x) + hx <= width / 2 + slack
            assert abs(y) + hy <= depth / 2 + slack
            sunk = 0.06 * part.half[2] if part.shape == "ellipsoid" else 0.0
            sunk += 0.004 if maker is clutter.keyboard else 0.0
            assert z - part.half[2] >= -2 * sunk - 1e-6
            assert z + part.half[2] <= height + 0.02


def test_paint_and_light() -> None:
    rng = np.random.default_rng(5)
    scene = draw_room(rng, STOCK)
    surfaces.finish(rng, scene, STOCK.bank)
    assert len(scene.surfaces) == 2 + len(scene.runs)
    assert [s.label for s in scene.surfaces[:2]] == ["floor", "ceiling"]
    for surface in scene.surfaces:
        texture = surface.texture_hwc
        assert texture.dtype == np.uint8
        assert texture.shape[2] == 3
        assert 16 <= min(texture.shape[:2]) <= max(texture.shape[:2]) <= surfaces.MAX_SIDE
        aspect = np.linalg.norm(surface.edge_u) / np.linalg.norm(surface.edge_v)
        assert texture.shape[1] / texture.shape[0] == pytest.approx(aspect, rel=0.35)
    assert 1 <= len(scene.lights) <= 5
    assert sum(light.shadow for light in scene.lights) <= 1


def test_daylight_outshines_walls() -> None:
    panes = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        scene = draw_room(rng, STOCK)
        surfaces.finish(rng, scene, STOCK.bank)
        windows = [o for o in scene.openings if o.kind == "window"]
        mine = [p for p in scene.primitives if p.label == "window"]
        assert len(mine) == len(windows)
        for pane in mine:
            assert pane.emission == 1.0
            assert pane.half[1] < 0.002, "it must not stand out of its wall"
            gaps = [
                abs(
                    (pane.position[0] - run.start[0]) * run.normal[0]
                    + (pane.position[1] - run.start[1]) * run.normal[1]
                )
                for run in scene.runs
            ]
            assert min(gaps) < 0.005
            assert pane.texture_hwc is not None
            panes.append(pane.texture_hwc.mean())
    assert len(panes) > 10
    assert np.mean(np.array(panes) > 150) > 0.5
    assert np.mean(np.array(panes) < 60) < 0.4, "few are windows at night"
