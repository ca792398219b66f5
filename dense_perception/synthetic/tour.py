"""Records a walk through one generated room as a small rosbag2 bag: the bag of ``make demo``.

    python -m dense_perception.synthetic.tour dense_perception/demo [SEED]

Held-out furniture and textures only, so no model was trained on what it shows.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dense_perception.core.camera import Intrinsics, calibration_for_output
from dense_perception.core.errors import InputError
from dense_perception.core.storage import cache_dir
from dense_perception.imaging.encode import encode_jpeg
from dense_perception.media.bag_writer import EPOCH_NS, BagWriter
from dense_perception.synthetic import furniture, rooms, surfaces
from dense_perception.synthetic.furnish import draw_room
from dense_perception.synthetic.renderer import Pose, RoomRenderer, finish_picture
from dense_perception.synthetic.scene import Scene
from dense_perception.synthetic.viewpoints import is_free, preview

FRAME_ID = "camera_color_optical_frame"
COLOR_TOPIC = "/camera/color/image_raw/compressed"
INFO_TOPIC = "/camera/color/camera_info"
DEPTH_TOPIC = "/camera/depth/image_raw"
SEED = 9106
"""The room of the bag in the package."""


def plan_walk(rng: np.random.Generator, scene: Scene, frames: int) -> list[Pose]:
    """Poses at eye height that walk straight ahead while looking slowly around.

    :raises InputError: if the room has no free line; another seed has.
    """
    solid = [box for box in scene.occupied if box.solid]
    camera = Intrinsics.from_fov(64, 48, 65)
    best: list[Pose] = []
    best_score = 0.0
    for _ in range(400):
        start = np.array([*rng.uniform(0.4, np.array(scene.size[:2]) - 0.4), rng.uniform(1.2, 1.6)])
        heading, turn = (
            rng.uniform(-math.pi, math.pi),
            rng.choice([-1.0, 1.0]) * rng.uniform(0.4, 0.9),
        )
        step = rng.uniform(0.5, 1.2) / frames * np.array([math.cos(heading), math.sin(heading), 0])
        places = [start + k * step for k in range(frames)]
        inside = all(
            (p[:2] > 0.3).all() and (p[:2] < np.array(scene.size[:2]) - 0.3).all() for p in places
        )
        if not inside or not all(is_free(p, solid, 0.25) for p in places):
            continue
        walk = [
            Pose.look(
                place,
                heading + turn * (k / (frames - 1) - 0.5),
                math.radians(-12 + 2 * math.sin(k / 5)),
                math.radians(1.5 * math.sin(k / 4)),
            )
            for k, place in enumerate(places)
        ]
        # Prefer walks that see many things at many distances.
        views = [preview(scene, pose, camera) for pose in walk[:: max(1, frames // 5)]]
        score = sum(len(np.unique(s)) * float(np.log(d).std()) for d, s in views)
        if score > best_score:
            best, best_score = walk, score
    if not best:
        raise InputError("this room has no free line of half a metre: try another --seed")
    return best


def render_walk(
    cache: Path, seed: int, frames: int, width: int, height: int
) -> Iterator[tuple[np.ndarray, np.ndarray, Intrinsics]]:
    """RGB (uint8, HxWx3), planar depth (float32 metres) and intrinsics of each frame."""
    libraries = tuple(furniture.find_libraries(furniture.SYSTEM_FOLDER))
    stock = rooms.load_stock(cache, libraries, "val")
    rng = np.random.default_rng(seed)
    scene = draw_room(rng, stock)
    surfaces.finish(rng, scene, stock.bank)
    walk = plan_walk(rng, scene, frames)
    intrinsics = Intrinsics.from_fov(width, height, 65)
    look = int(rng.integers(1 << 31))
    with RoomRenderer(scene, width, height, cache) as renderer:
        for pose in walk:
            renderer.aim(pose, intrinsics)
            depth_m = renderer.depth()
            # One seed for all frames: a camera keeps its exposure and its lens.
            rgb = finish_picture(renderer.rgb(), depth_m, np.random.default_rng(look))
            yield rgb, depth_m, intrinsics


def record_tour(
    out: Path, seed: int = 9106, frames: int = 40, size: tuple[int, int] = (640, 480)
) -> None:
    """Record ``frames`` frames at 10 Hz, ``size`` is width and height; the seed draws the room.

    Colour is JPEG, depth 16UC1 millimetres at half the size.

    :raises InputError: if ``out`` is there, or the room has no free line.
    """
    walk = render_walk(cache_dir() / "synthetic", seed, frames, *size)
    with BagWriter(out, replace=False, compress=True) as bag:
        for index, (rgb_hwc, depth_m, camera) in enumerate(tqdm(walk, total=frames, unit="frame")):
            time_ns = EPOCH_NS + index * 100_000_000
            stamp, info = (time_ns, FRAME_ID), calibration_for_output(None, camera)
            depth_mm = np.round(depth_m[::2, ::2] * 1000).clip(0, 65535).astype(np.uint16)
            bag.send(COLOR_TOPIC, time_ns, bag.jpeg(stamp, encode_jpeg(rgb_hwc, 88)))
            bag.send(INFO_TOPIC, time_ns, bag.info(stamp, info))
            bag.send(DEPTH_TOPIC, time_ns, bag.depth_mm(stamp, depth_mm))


if __name__ == "__main__":
    record_tour(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else SEED)
