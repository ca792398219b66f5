"""Records a walk through one generated room as a small rosbag2 bag: the bag of ``make demo``.

    python -m dense_perception.synthetic.tour dense_perception/demo [SEED]

Held-out furniture and textures only, so no model was trained on what it shows.
"""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import InputError
from dense_perception.core.storage import cache_dir
from dense_perception.imaging.messages import stamp_fields
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
EPOCH_NS = 1_700_000_000_000_000_000
"""Arbitrary, but a plausible time of day for tools that print it."""


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


class TourBag:
    """Colour as JPEG, calibration, and depth as 16UC1 millimetres at half the size."""

    def __init__(self, path: Path) -> None:
        from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
        from rosbags.typesys import Stores, get_typestore

        self._store = get_typestore(Stores.ROS2_HUMBLE)
        self._writer = Writer(path, version=8, storage_plugin=StoragePlugin.MCAP)
        self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._writer.open()
        kinds = {COLOR_TOPIC: "CompressedImage", INFO_TOPIC: "CameraInfo", DEPTH_TOPIC: "Image"}
        self._connections = {
            topic: self._writer.add_connection(
                topic, f"sensor_msgs/msg/{kind}", typestore=self._store
            )
            for topic, kind in kinds.items()
        }

    def write(
        self, index: int, rgb_hwc: np.ndarray, depth_m: np.ndarray, camera: Intrinsics
    ) -> None:
        time_ns = EPOCH_NS + index * 100_000_000
        seconds, nanoseconds = stamp_fields(time_ns)
        stamp = self._type("builtin_interfaces/msg/Time")(sec=seconds, nanosec=nanoseconds)
        header = self._type("std_msgs/msg/Header")(stamp=stamp, frame_id=FRAME_ID)
        _, jpeg = cv2.imencode(".jpg", rgb_hwc[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
        self._send(
            COLOR_TOPIC,
            time_ns,
            header=header,
            format="rgb8; jpeg compressed bgr8",
            data=jpeg.ravel(),
        )
        k = camera.matrix()
        roi = self._type("sensor_msgs/msg/RegionOfInterest")(
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        self._send(
            INFO_TOPIC,
            time_ns,
            header=header,
            height=camera.height,
            width=camera.width,
            distortion_model="plumb_bob",
            d=np.zeros(5),
            k=k.ravel(),
            r=np.eye(3).ravel(),
            p=np.hstack([k, np.zeros((3, 1))]).ravel(),
            binning_x=0,
            binning_y=0,
            roi=roi,
        )
        depth_mm = np.round(depth_m[::2, ::2] * 1000).clip(0, 65535).astype("<u2")
        self._send(
            DEPTH_TOPIC,
            time_ns,
            header=header,
            height=depth_mm.shape[0],
            width=depth_mm.shape[1],
            encoding="16UC1",
            is_bigendian=0,
            step=2 * depth_mm.shape[1],
            data=np.ascontiguousarray(depth_mm).view(np.uint8).ravel(),
        )

    def close(self) -> None:
        self._writer.close()

    def _type(self, name: str) -> type:
        return self._store.types[name]

    def _send(self, topic: str, time_ns: int, **fields: object) -> None:
        connection = self._connections[topic]
        message = self._type(connection.msgtype)(**fields)
        data = self._store.serialize_cdr(message, connection.msgtype)
        self._writer.write(connection, time_ns, data)


def record_tour(
    out: Path, seed: int = 9106, frames: int = 40, size: tuple[int, int] = (640, 480)
) -> None:
    """Record ``frames`` frames at 10 Hz, ``size`` is width and height; the seed draws the room.

    :raises InputError: if ``out`` is there, or the room has no free line.
    """
    if out.exists():
        raise InputError(f"{out} exists: move it away first")
    # The bag's folder names its file, so the unfinished one has the final name elsewhere.
    unfinished = out.with_name(f".{out.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    bag = TourBag(unfinished / out.name)
    walk = render_walk(cache_dir() / "synthetic", seed, frames, *size)
    for index, view in enumerate(tqdm(walk, total=frames, unit="frame")):
        bag.write(index, *view)
    bag.close()
    (unfinished / out.name).rename(out)
    unfinished.rmdir()


if __name__ == "__main__":
    record_tour(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else SEED)
