"""Recordings of a made-up robot with closed-form truth: a camera, a depth camera, a LiDAR, /tf.

The world: a floor, a wall and a box before it. Each sensor sees it from its own place, so that what
is registered can be compared with what the colour camera really sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dense_perception.core.camera import Intrinsics, Lens
from dense_perception.imaging.lenses import pixel_rays
from dense_perception.imaging.transforms import Transform
from test.support import recordings
from test.support.recordings import make

START_NS = 1_700_000_000_000_000_000
# Optical frame (x right, y down, z forward) in the robot's (x forward, y left, z up).
OPTICAL = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], np.float64)
LENS = Lens(False, (-0.15, 0.03, 0.0005, -0.0004, 0.0))


@dataclass(frozen=True)
class World:
    """Heights, distances and sizes in metres; the robot's base stands at the origin."""

    wall_m: float = 4.0
    box_m: float = 2.0
    box_half: float = 0.4
    box_top: float = 0.5

    def depth(self, camera: Intrinsics, base: Transform) -> np.ndarray:
        """(H, W) planar depth of each pixel's ray; ``base`` takes optical points to the base."""
        x, y = np.broadcast_arrays(*pixel_rays(camera))
        rays = np.stack([x, y, np.ones_like(x)], axis=-1).astype(np.float64)
        return self.hit(rays.reshape(-1, 3) @ base.rotation.T, base.translation).reshape(x.shape)

    def hit(self, rays_n3: np.ndarray, origin: np.ndarray) -> np.ndarray:
        """Multiples of the rays (in the base's axes) up to the first surface; inf for none."""
        with np.errstate(divide="ignore", invalid="ignore"):
            floor = np.where(rays_n3[:, 2] < 0, -origin[2] / rays_n3[:, 2], np.inf)
            wall = np.where(rays_n3[:, 0] > 0, (self.wall_m - origin[0]) / rays_n3[:, 0], np.inf)
            front = np.where(rays_n3[:, 0] > 0, (self.box_m - origin[0]) / rays_n3[:, 0], np.inf)
            point = origin + front[:, None] * rays_n3
            on_box = (np.abs(point[:, 1]) < self.box_half) & (point[:, 2] < self.box_top)
            front = np.where(on_box & (point[:, 2] > 0), front, np.inf)
        return np.minimum(np.minimum(floor, wall), front)


@dataclass(frozen=True)
class Robot:
    """Cameras and where they are: transforms from each sensor's frame to the base."""

    colour: Intrinsics
    depth: Intrinsics
    colour_base: Transform
    depth_base: Transform
    lidar_base: Transform

    @classmethod
    def usual(cls, width: int = 320, height: int = 240, lens: bool = True) -> Robot:
        """A depth camera 6 cm beside and 2 cm below the colour camera, turned a little."""
        tilt = cv2.Rodrigues(np.array([0.02, -0.03, 0.01]))[0]
        focal = 0.9 * width
        colour = Intrinsics(
            width, height, focal, focal, width / 2 - 3, height / 2 + 2, LENS if lens else None
        )
        own = 0.75 * width
        depth = Intrinsics(width, height, own, own, width / 2 + 1, height / 2 - 1)
        return cls(
            colour,
            depth,
            Transform(OPTICAL, np.array([0.1, 0.0, 0.5])),
            Transform(OPTICAL @ tilt, np.array([0.1, 0.06, 0.48])),
            Transform(np.eye(3), np.array([0.05, 0.0, 0.7])),
        )

    def cloud(self, world: World, beams: int = 16) -> np.ndarray:
        """(N, 3) points of a spinning LiDAR in its own frame."""
        azimuth = np.radians(np.arange(-60, 60, 0.4))
        elevation = np.radians(np.linspace(-20, 8, beams))
        a, e = (each.reshape(-1) for each in np.meshgrid(azimuth, elevation))
        rays = np.stack([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)], axis=1)
        base = self.lidar_base
        ranges = world.hit(rays @ base.rotation.T, base.translation)
        return rays[np.isfinite(ranges)] * ranges[np.isfinite(ranges)][:, None]

    def transforms(self) -> list[Any]:
        """/tf_static: the sensors on the base."""
        frames = {
            "colour_optical": self.colour_base,
            "depth_optical": self.depth_base,
            "lidar": self.lidar_base,
        }
        return [stamped("base", child, motion, START_NS) for child, motion in frames.items()]


def stamped(parent: str, child: str, motion: Transform, time_ns: int) -> Any:
    x, y, z, w = (float(value) for value in motion.quaternion())
    return make(
        "geometry_msgs/msg/TransformStamped",
        header=recordings.header(time_ns, parent),
        child_frame_id=child,
        transform=make(
            "geometry_msgs/msg/Transform",
            translation=make(
                "geometry_msgs/msg/Vector3",
                **dict(zip("xyz", map(float, motion.translation), strict=True)),
            ),
            rotation=make("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w),
        ),
    )


def info_of(camera: Intrinsics, time_ns: int, frame: str) -> Any:
    d = np.array(camera.lens.coefficients if camera.lens else [0.0] * 5)
    return recordings.camera_info(
        camera.width,
        camera.height,
        camera.fx,
        time_ns,
        header=recordings.header(time_ns, frame),
        d=d,
        k=camera.matrix().reshape(-1),
        p=np.hstack([camera.matrix(), np.zeros((3, 1))]).reshape(-1),
    )


def cloud_message(xyz_n3: np.ndarray, time_ns: int, frame: str = "lidar") -> Any:
    data = np.ascontiguousarray(xyz_n3, np.float32)
    fields = [
        recordings.TYPES.types["sensor_msgs/msg/PointField"](name, 4 * k, 7, 1)
        for k, name in enumerate("xyz")
    ]
    return make(
        "sensor_msgs/msg/PointCloud2",
        header=recordings.header(time_ns, frame),
        height=1,
        width=len(data),
        fields=fields,
        is_bigendian=False,
        point_step=12,
        row_step=12 * len(data),
        data=data.view(np.uint8).reshape(-1),
        is_dense=True,
    )


def picture(depth_m: np.ndarray, offset: int) -> np.ndarray:
    """RGB that shows the depth, with a pattern that moves by ``offset`` pixels."""
    shade = np.clip(255 - 45 * np.where(np.isfinite(depth_m), depth_m, 5), 0, 255)
    columns = (np.arange(depth_m.shape[1]) + offset) // 16 % 2 * 24
    gray = np.clip(shade + columns[None, :], 0, 255).astype(np.uint8)
    return np.stack([gray, gray, 255 - gray], axis=-1)


def write_robot_bag(
    path: Path,
    robot: Robot,
    frames: int = 6,
    *,
    world: World | None = None,
    moving: int = 7,
    lidar: bool = True,
    depth: bool = True,
    transforms: bool = True,
    depth_late_ns: int = 3_000_000,
    jpeg: bool = False,
) -> Path:
    """A recording at 10 Hz; the picture's pattern moves by ``moving`` pixels a frame."""
    world = world or World()
    seen = world.depth(robot.colour, robot.colour_base)
    measured = world.depth(robot.depth, robot.depth_base)
    millimetres = np.where(np.isfinite(measured), np.rint(measured * 1000), 0).astype(np.uint16)
    points = robot.cloud(world)
    messages: list[tuple[str, int, Any]] = []
    if transforms:
        tf = make("tf2_msgs/msg/TFMessage", transforms=robot.transforms())
        messages.append(("/tf_static", START_NS, tf))
    for k in range(frames):
        time_ns = START_NS + k * 100_000_000
        rgb_hwc = picture(seen, k * moving)
        image: Any
        if jpeg:
            image = recordings.compressed(rgb_hwc, time_ns)
            image.header.frame_id = "colour_optical"
        else:
            image = recordings.image(
                rgb_hwc, "rgb8", time_ns, header=recordings.header(time_ns, "colour_optical")
            )
        name = "/camera/image/compressed" if jpeg else "/camera/image"
        messages += [
            ("/camera/camera_info", time_ns, info_of(robot.colour, time_ns, "colour_optical")),
            (name, time_ns + 1_000_000, image),
        ]
        late = time_ns + depth_late_ns
        if depth:
            header = recordings.header(late, "depth_optical")
            messages += [
                ("/depth/camera_info", late, info_of(robot.depth, late, "depth_optical")),
                (
                    "/depth/image",
                    late + 1_000_000,
                    recordings.image(millimetres, "16UC1", late, header=header),
                ),
            ]
        if lidar:
            messages.append(("/lidar/points", late + 2_000_000, cloud_message(points, late)))
    return recordings.write_bag(path, messages)
