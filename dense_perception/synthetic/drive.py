"""A robot that drives through generated rooms, and what its cameras record.

What it drives past is exact; what it records is not: the depth camera has a range, noise and
millimetres, the colour camera has a tint, grain and JPEG.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from dense_perception.core.camera import Intrinsics, calibration_for_output
from dense_perception.core.errors import InputError
from dense_perception.imaging.encode import encode_jpeg
from dense_perception.imaging.transforms import Transform
from dense_perception.media.bag_writer import EPOCH_NS, BagWriter
from dense_perception.synthetic import surfaces
from dense_perception.synthetic.furnish import draw_room
from dense_perception.synthetic.generate import shard_sizes, worker_pool
from dense_perception.synthetic.kept_rooms import KeptRooms, Moment
from dense_perception.synthetic.renderer import Pose, RoomRenderer, finish_picture
from dense_perception.synthetic.rooms import RoomGenerator, load_stock
from dense_perception.synthetic.scene import Scene

FRAMES_PER_ROOM = 25
RATE_HZ = 5
COLOUR = "/camera/color"
ALIGNED_DEPTH = "/camera/aligned_depth_to_color"
DEPTH = "/camera/depth"
COLOUR_FRAME = "camera_color_optical_frame"
DEPTH_FRAME = "camera_depth_optical_frame"

_STEP_M = 0.12
_TURN = math.radians(20)
_RADIUS_M = 0.25
_AHEAD_M = 0.6
_WAY_OUT_M = 1.0
_ROOM_GAP_NS = 3_000_000_000
_ROOM_APART_M = 20.0
_MOST_ROOMS_TRIED = 40
# The depth camera: beside the colour camera and turned a little, with a wider view.
_DEPTH_AT_M = (0.055, -0.004, 0.003)
_DEPTH_TURNED = (0.010, -0.015, 0.006)
_DEPTH_WIDER = 1.12
_RANGE_M = (0.2, 8.0)
_NOISE = 0.002
"""Standard deviation of the depth in metres at one metre; it grows with the square."""


@dataclass(frozen=True)
class Robot:
    """Its camera: pixels, horizontal field of view, height above the floor and pitch, up positive.

    ``depth`` says where depth is seen from: ``beside`` the colour camera, by a camera of its own;
    ``aligned`` with it, as drivers do on request; or ``none``.

    :raises InputError: if the camera cannot be rendered.
    """

    width: int = 640
    height: int = 480
    hfov_deg: float = 70.0
    camera_m: float = 0.3
    pitch_deg: float = 0.0
    depth: str = "beside"

    def __post_init__(self) -> None:
        limits = {
            "--hfov": (self.hfov_deg, 30.0, 120.0),
            "--camera-height": (self.camera_m, 0.1, 1.8),
            "--pitch": (self.pitch_deg, -60.0, 30.0),
        }
        for name, (value, low, high) in limits.items():
            if not low <= value <= high:
                raise InputError(f"{name} is {value:g}, expected {low:g} to {high:g}")

    def colour_camera(self) -> Intrinsics:
        return Intrinsics.from_fov(self.width, self.height, self.hfov_deg)

    def depth_camera(self) -> Intrinsics:
        colour = self.colour_camera()
        if self.depth == "aligned":
            return colour
        wider = math.degrees(
            2 * math.atan(_DEPTH_WIDER * math.tan(math.radians(self.hfov_deg) / 2))
        )
        return Intrinsics.from_fov(self.width, self.height, wider)

    def colour_at(self) -> Transform:
        """Takes points of the colour camera's optical frame to the base: x ahead, z up."""
        pose = Pose.look(
            np.array([0.1, 0.0, self.camera_m]), 0.0, math.radians(self.pitch_deg), 0.0
        )
        return Transform(pose.rotation_33, pose.position)

    def depth_at(self) -> Transform:
        """The same for the depth camera."""
        if self.depth == "aligned":
            return self.colour_at()
        turned = np.asarray(cv2.Rodrigues(np.array(_DEPTH_TURNED))[0], np.float64)
        return self.colour_at().after(Transform(turned, np.array(_DEPTH_AT_M)))


def record_drive(
    generator: RoomGenerator,
    robot: Robot,
    out: Path,
    frames: int,
    seed: int,
    kinds: tuple[str, ...] = (),
    workers: int = 1,
) -> None:
    """Record ``frames`` images at 5 Hz as the bag ``out``.

    :data:`FRAMES_PER_ROOM` in each room that ``seed`` draws. A room that is done is kept beside
    ``out`` until the bag is whole: whoever is stopped goes on with the same call.

    :param kinds: of rooms, names of :data:`.shell.THEMES`; empty for any.
    :raises InputError: if ``out`` is there, no room can be driven through, or rooms are kept of
        another recording.
    :raises TrainingError: when a worker process dies.
    """
    settings = {**asdict(robot), "seed": seed, "kinds": list(kinds), **generator.settings()}
    info, depth_info = (
        calibration_for_output(None, camera)
        for camera in (robot.colour_camera(), robot.depth_camera())
    )
    depth_topic = ALIGNED_DEPTH if robot.depth == "aligned" else DEPTH
    depth_frame = COLOUR_FRAME if robot.depth == "aligned" else DEPTH_FRAME
    mounted = {COLOUR_FRAME: robot.colour_at(), DEPTH_FRAME: robot.depth_at()}
    time_ns = EPOCH_NS
    with ExitStack() as stack:
        bag = stack.enter_context(BagWriter(out, replace=False, compress=True))
        bar = stack.enter_context(tqdm(total=frames, unit="frame"))
        kept = KeptRooms(out, settings)
        # Closed here: an error that is being handled would keep its worker processes.
        rooms = _rooms(generator, robot, frames, seed, kinds, workers, kept)
        stack.enter_context(closing(rooms))
        bag.send("/tf_static", time_ns, bag.transforms(time_ns, "base_link", mounted))
        for room, moments in enumerate(rooms):
            # Rooms stand in a row, and nothing was recorded on the way from one to the next.
            there = Transform(np.eye(3), np.array([room * _ROOM_APART_M, 0.0, 0.0]))
            for moment in moments:
                base, eye = {"base_link": there.after(moment.base)}, (time_ns, COLOUR_FRAME)
                messages = {
                    "/tf": bag.transforms(time_ns, "map", base),
                    f"{COLOUR}/camera_info": bag.info(eye, info),
                    f"{COLOUR}/image_raw/compressed": bag.jpeg(eye, moment.jpeg),
                }
                if moment.depth_mm is not None:
                    sensor = (time_ns, depth_frame)
                    messages[f"{depth_topic}/camera_info"] = bag.info(sensor, depth_info)
                    messages[f"{depth_topic}/image_raw"] = bag.depth_mm(sensor, moment.depth_mm)
                for topic, message in messages.items():
                    bag.send(topic, time_ns, message)
                time_ns += 1_000_000_000 // RATE_HZ
                bar.update()
            time_ns += _ROOM_GAP_NS
    kept.remove()


def _rooms(
    generator: RoomGenerator,
    robot: Robot,
    frames: int,
    seed: int,
    kinds: tuple[str, ...],
    workers: int,
    kept: KeptRooms,
) -> Generator[list[Moment], None, None]:
    """What is seen in each room, in order; those that are not kept yet are driven through."""
    counts = shard_sizes(frames, FRAMES_PER_ROOM)
    todo = [room for room, count in enumerate(counts) if not kept.has(room, count)]

    def job(room: int) -> Callable[[], None]:
        return partial(_keep_room, kept, generator, robot, counts[room], (seed, room), kinds)

    if workers == 1 or len(todo) <= 1:
        for room, count in enumerate(counts):
            if room in todo:
                job(room)()
            yield kept.read(room, count)
        return
    with worker_pool(min(workers, len(todo)), "finished rooms") as pool:
        jobs = {room: pool.submit(job(room)) for room in todo}
        for room, count in enumerate(counts):
            if room in jobs:
                jobs[room].result()
            yield kept.read(room, count)


def _keep_room(
    kept: KeptRooms,
    generator: RoomGenerator,
    robot: Robot,
    frames: int,
    seed: tuple[int, int],
    kinds: tuple[str, ...],
) -> None:
    kept.write(seed[1], drive_room(generator, robot, frames, seed, kinds))


def drive_room(
    generator: RoomGenerator,
    robot: Robot,
    frames: int,
    seed: tuple[int, int],
    kinds: tuple[str, ...] = (),
) -> list[Moment]:
    """A drive through one room: a pure function of its arguments.

    ``seed`` is the recording's, which the camera's tint and grain depend on, and the room's number.

    :raises InputError: if it finds no room to drive through.
    """
    stock = load_stock(generator.cache, generator.libraries, generator.split)
    rng = np.random.default_rng(seed)
    for _ in range(_MOST_ROOMS_TRIED):
        scene = draw_room(rng, stock, kinds)
        places = plan_drive(rng, scene, frames, robot.camera_m + 0.1)
        if places:
            break
    else:
        raise InputError(
            f"none of {_MOST_ROOMS_TRIED} rooms has space to drive: try another --seed"
        )
    surfaces.finish(rng, scene, stock.bank)
    sensor, look = np.random.default_rng(seed[0]), int(rng.integers(1 << 31))
    tint = sensor.uniform(0.88, 1.12, 3)
    grain, quality = sensor.uniform(1.5, 4.0), int(sensor.integers(75, 92))
    colour, depth_camera = robot.colour_camera(), robot.depth_camera()
    moments: list[Moment] = []
    with RoomRenderer(scene, robot.width, robot.height, generator.cache) as renderer:
        for base in places:
            renderer.aim(_pose(base.after(robot.colour_at())), colour)
            depth_m = renderer.depth()
            # One seed for the whole room: a camera keeps its exposure.
            rgb = finish_picture(renderer.rgb(), depth_m, np.random.default_rng(look))
            noisy = rgb * tint + rng.normal(0, grain, rgb.shape)
            picture = np.clip(noisy, 0, 255).astype(np.uint8)
            measured = None
            if robot.depth == "beside":
                renderer.aim(_pose(base.after(robot.depth_at())), depth_camera)
                depth_m = renderer.depth()
            if robot.depth != "none":
                measured = measured_mm(depth_m, rng)
            moments.append(Moment(base, encode_jpeg(picture, quality), measured))
    return moments


def plan_drive(
    rng: np.random.Generator, scene: Scene, frames: int, clearance_m: float
) -> list[Transform]:
    """Where a robot of that height is at each frame, in the room; empty if it finds no way.

    It goes ahead while it can, swaying a little, and turns to a free direction where it cannot.
    """
    obstacles = np.array(
        [
            (box.x0, box.y0, box.x1, box.y1)
            for box in scene.occupied
            if box.solid and box.z0 < clearance_m
        ]
    ).reshape(-1, 4)
    size = np.array(scene.size[:2])

    def way(place: np.ndarray, yaw: float, most: float) -> float:
        """How far it could go straight on, at most ``most`` metres."""
        along = np.arange(0.0, most + 1e-6, 0.1)
        points = place + along[:, None] * (math.cos(yaw), math.sin(yaw))
        outside = ((points < _RADIUS_M) | (points > size - _RADIUS_M)).any(1)
        x, y = points[:, :1], points[:, 1:]
        x0, y0, x1, y1 = obstacles.T
        near_x = (x > x0 - _RADIUS_M) & (x < x1 + _RADIUS_M)
        near_y = (y > y0 - _RADIUS_M) & (y < y1 + _RADIUS_M)
        hit = outside | (near_x & near_y).any(1)
        return float(along[hit.argmax()] - 0.1) if hit.any() else most

    for _ in range(100):
        place, yaw = rng.uniform((0, 0), size), rng.uniform(-math.pi, math.pi)
        if way(place, yaw, 1.5) > _WAY_OUT_M:
            break
    else:
        return []
    places: list[Transform] = []
    goal = yaw
    while len(places) < frames:
        c, s = math.cos(yaw), math.sin(yaw)
        turned = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
        places.append(Transform(turned, np.array([*place, 0.0])))
        left = math.remainder(goal - yaw, 2 * math.pi)
        if abs(left) > 1e-3:
            yaw += float(np.clip(left, -_TURN, _TURN))
            continue
        if way(place, yaw, _AHEAD_M) >= _AHEAD_M:
            place = place + _STEP_M * np.array([c, s])
            goal = yaw = yaw + rng.normal(0, math.radians(3))
            continue
        headings = rng.uniform(-math.pi, math.pi, 8)
        free = [way(place, float(heading), 3.0) for heading in headings]
        goal = float(headings[int(np.argmax(free))])
    return places


def measured_mm(depth_m: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a stereo depth camera makes of true depth: (H, W) uint16 millimetres, 0 beyond range."""
    known = (depth_m > _RANGE_M[0]) & (depth_m < _RANGE_M[1])
    true_m = np.where(known, depth_m, 0)
    noisy = true_m + _NOISE * true_m**2 * rng.standard_normal(depth_m.shape, np.float32)
    return np.rint(noisy * 1000).astype(np.uint16)


def _pose(at: Transform) -> Pose:
    return Pose(at.translation, at.rotation)
