"""Generates frames of Doom maps (Freedoom, played by ViZDoom) with exact depth.

A second source beside the rooms: other textures, other proportions, stairs and long views. The
picture is ViZDoom's, the depth :mod:`.doom_depth`'s; a frame where the engine's own coarse depth
buffer disagrees is thrown away.
"""

from __future__ import annotations

import functools
import math
import os
import shlex
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import BackendError
from dense_perception.core.storage import scratch_folder
from dense_perception.data.sample import Sample
from dense_perception.imaging.resize import resample
from dense_perception.synthetic.bank import held_out
from dense_perception.synthetic.doom_depth import CLASSES, OBJECT, cast
from dense_perception.synthetic.doom_map import UNITS_PER_M, DoomMap, map_names, read_map
from dense_perception.synthetic.renderer import Pose
from dense_perception.synthetic.rooms import pose_vector

if TYPE_CHECKING:
    import vizdoom

SCREEN = (640, 480)
PIXEL_STRETCH = 1.2  # Doom's pixels are taller than wide on a 4:3 screen
EYE_UNITS = 41.0
FRAMES_PER_SHARD = 100
MAX_DISAGREEMENT = 0.05
_BECOME_ENGINE = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True)
class DoomGenerator:
    """Freedoom maps of one split; see :class:`.generate.Generator`."""

    split: str = "train"

    name = "doom"
    classes = CLASSES
    frames_per_shard = FRAMES_PER_SHARD

    @classmethod
    def prepare(cls, split: str) -> DoomGenerator:
        """Check that ViZDoom is there.

        :raises BackendError: when it is not.
        """
        wads()
        return cls(split)

    def settings(self) -> dict[str, object]:
        """What must be equal for a corpus to be continued."""
        return {"split": self.split}

    def assets(self) -> list[dict[str, str]]:
        """Name, licence and source of everything the pictures are made of."""
        source = "bundled with vizdoom (PyPI)"
        names = [path.name for path in wads()]
        return [
            {"name": f"Freedoom ({', '.join(names)})", "licence": "BSD-3-Clause", "source": source},
            {"name": "ViZDoom", "licence": "MIT", "source": "PyPI"},
        ]

    def make_shard(
        self, seed: int, index: int, frames: int, width: int, height: int
    ) -> list[Sample]:
        """The frames of one shard, all of one map."""
        rng = np.random.default_rng(np.random.SeedSequence([seed, index]))
        maps = _maps(self.split)
        samples: list[Sample] = []
        for _ in range(20):  # a few maps offer too few places to stand
            wad, name = maps[int(rng.integers(len(maps)))]
            scene = int(rng.integers(2**31))
            with Tour(read_map(wad, name), wad, scene) as tour:
                for _ in range(frames * 6):
                    if len(samples) == frames:
                        return samples
                    sample = tour.view(rng, width, height, scene)
                    if sample is not None:
                        samples.append(sample)
        raise BackendError("ViZDoom gave no usable view on twenty maps: reinstall vizdoom")


def wads() -> list[Path]:
    """The WAD files ViZDoom bundles."""
    try:
        import vizdoom
    except ImportError as error:
        raise BackendError(
            f"Doom maps need ViZDoom ({error}): pip install 'dense_perception[synthetic]'"
        ) from error
    folder = Path(vizdoom.__file__).parent
    return [folder / "freedoom1.wad", folder / "freedoom2.wad"]


@functools.lru_cache(maxsize=3)
def _maps(split: str) -> list[tuple[Path, str]]:
    every = [(wad, name) for wad in wads() for name in map_names(wad)]
    if split == "all":
        return every
    return [pair for pair in every if held_out(f"{pair[0].name} {pair[1]}") == (split == "val")]


class Tour:
    """Jumps about one map and takes pictures; use as a context manager."""

    def __init__(self, level: DoomMap, wad: Path, seed: int = 0) -> None:
        import vizdoom

        self._level = level
        game = vizdoom.DoomGame()
        game.set_doom_game_path(str(wad))
        game.set_doom_map(level.name)
        game.set_screen_resolution(vizdoom.ScreenResolution.RES_640X480)
        game.set_screen_format(vizdoom.ScreenFormat.RGB24)
        game.set_depth_buffer_enabled(True)
        game.set_labels_buffer_enabled(True)
        game.set_sectors_info_enabled(True)
        for switch in ("hud", "crosshair", "weapon", "decals", "particles", "messages"):
            getattr(game, f"set_render_{switch}")(False)
        game.set_render_screen_flashes(False)
        game.set_window_visible(False)
        game.set_sound_enabled(False)
        game.set_available_buttons([vizdoom.Button.TURN_LEFT_RIGHT_DELTA])
        variables = ("POSITION_X", "POSITION_Y", "POSITION_Z", "ANGLE")
        game.set_available_game_variables([getattr(vizdoom.GameVariable, v) for v in variables])
        game.add_game_args("-nomonsters +sv_cheats 1 +viz_nocheat 0 +con_midtime 0")
        game.set_seed(seed)
        game.set_episode_timeout(0)
        # The engine writes its settings and saves where it is started: give it a place of its own.
        self._stack = ExitStack()
        scratch = scratch_folder(Path(tempfile.gettempdir()), "vizdoom_")
        folder = self._stack.enter_context(scratch)
        game.set_doom_config_path(str(folder / "vizdoom.ini"))
        game.set_vizdoom_path(str(_launcher(Path(vizdoom.__file__).with_name("vizdoom"), folder)))
        here = os.getcwd()
        os.chdir(folder)
        try:
            game.init()
        finally:
            os.chdir(here)
        game.send_game_command("god")
        game.send_game_command("notarget")
        self._game = game

    def __enter__(self) -> Tour:
        return self

    def __exit__(self, *_: object) -> None:
        self._game.close()
        self._stack.close()

    def view(self, rng: np.random.Generator, width: int, height: int, scene: int) -> Sample | None:
        """One frame from a random place, or None when the place or the view will not do."""
        game = self._game
        if game.is_episode_finished():
            game.new_episode()
        fov = float(rng.uniform(75, 100))
        x, y = self._level.things_t2[int(rng.integers(len(self._level.things_t2)))]
        x, y = x + rng.uniform(-160, 160), y + rng.uniform(-160, 160)
        game.send_game_command(f"fov {fov:.3f}")
        game.send_game_command(f"warp {x:.2f} {y:.2f}")
        game.make_action([float(rng.uniform(-180, 180))], 1)
        game.make_action([0.0], 4)
        state: vizdoom.GameState | None = game.get_state()
        if state is None or state.game_variables is None:
            return None
        px, py, pz, angle = (float(value) for value in state.game_variables)
        if abs(px - x) > 1 or abs(py - y) > 1:
            return None  # the place was blocked
        eye = (px, py, pz + EYE_UNITS)
        yaw = math.radians(angle)
        floor = np.array([sector.floor_height for sector in state.sectors])
        ceiling = np.array([sector.ceiling_height for sector in state.sectors])
        full = screen_camera(fov)
        if not self._agrees(state, full, floor, ceiling, eye, yaw):
            return None
        camera, window = square_pixels(full, width, height)
        depth_m, labels = cast(self._level, floor, ceiling, camera, eye, yaw)
        rgb = resample(centred(np.asarray(state.screen_buffer), window), width, height)
        things = cv2.resize(
            centred(np.asarray(state.labels_buffer), window),
            (width, height),
            interpolation=cv2.INTER_NEAREST,
        )
        for label in state.labels or ():
            here = things == label.value
            if label.object_name == "DoomPlayer" or not here.any():
                continue
            # Sprites face the viewer: all of one has the planar depth of its foot.
            ahead = (label.object_position_x - px) * math.cos(yaw)
            ahead += (label.object_position_y - py) * math.sin(yaw)
            depth_m[here] = ahead / UNITS_PER_M
            labels[here] = OBJECT
        if not _is_useful(depth_m, labels):
            return None
        pose = Pose.look(np.array(eye) / UNITS_PER_M, yaw, 0.0, 0.0)
        gain = rng.uniform(0.28, 0.5) * 255 / max(float(rgb.mean()), 8.0)  # the maps are dark
        rgb = np.clip(rgb * np.clip(gain, 0.7, 3.0), 0, 255).astype(np.uint8)
        return Sample(rgb, depth_m, camera, labels, scene, pose_vector(pose))

    def _agrees(
        self,
        state: vizdoom.GameState,
        camera: Intrinsics,
        floor: np.ndarray,
        ceiling: np.ndarray,
        eye: tuple[float, float, float],
        yaw: float,
    ) -> bool:
        """Whether the engine's own 8-bit depth says the same wherever both know."""
        step = 8
        small = Intrinsics(
            SCREEN[0] // step,
            SCREEN[1] // step,
            camera.fx / step,
            camera.fy / step,
            (SCREEN[0] / step - 1) / 2,
            (SCREEN[1] / step - 1) / 2,
        )
        ours, _ = cast(self._level, floor, ceiling, small, eye, yaw)
        half = step // 2
        engine = np.asarray(state.depth_buffer)[half::step, half::step].astype(np.float64)
        things = np.asarray(state.labels_buffer)[half::step, half::step]
        widen = 1 / math.tan(math.radians(_fov(camera)) / 2)
        theirs = (7.15 * engine + 14.4) * widen / UNITS_PER_M  # measured at 640x480
        known = (ours > 0) & (engine < 255) & (things == 0)
        if known.sum() < 0.3 * known.size:
            return False
        wrong = np.abs(ours - theirs)[known] > 0.5 + 0.1 * ours[known]
        return float(wrong.mean()) < MAX_DISAGREEMENT


def _launcher(engine: Path, folder: Path) -> Path:
    """A program that becomes the engine, and ends when the process that started it does.

    The engine waits for orders for ever, also of a process that was killed.
    """
    if not sys.platform.startswith("linux") or not engine.is_file():
        return engine
    script = folder / "start_vizdoom"
    words = [sys.executable, "-c", _BECOME_ENGINE, str(os.getpid()), str(engine)]
    script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    script.chmod(0o700)
    return script


def screen_camera(fov_deg: float) -> Intrinsics:
    """Intrinsics of the whole 4:3 screen; the pixels are not square."""
    width, height = SCREEN
    fx = width / 2 / math.tan(math.radians(fov_deg) / 2)
    return Intrinsics(width, height, fx, fx * PIXEL_STRETCH, (width - 1) / 2, (height - 1) / 2)


def _fov(camera: Intrinsics) -> float:
    return 2 * math.degrees(math.atan(camera.width / 2 / camera.fx))


def square_pixels(
    camera: Intrinsics, width: int, height: int
) -> tuple[Intrinsics, tuple[float, float]]:
    """The camera of the largest centred crop that gives width x height square pixels, and the
    crop's size in screen pixels.
    """
    rows_per_column = camera.fy / camera.fx
    crop_w = min(camera.width, camera.height / rows_per_column * width / height)
    scale = width / crop_w
    crop_h = height / scale * rows_per_column
    focal = camera.fx * scale
    square = Intrinsics(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)
    return square, (crop_w, crop_h)


def centred(image: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """The window of that width and height in the middle of an image."""
    w, h = round(window[0]), round(window[1])
    left, top = (image.shape[1] - w) // 2, (image.shape[0] - h) // 2
    return image[top : top + h, left : left + w]


def _is_useful(depth_m: np.ndarray, labels: np.ndarray) -> bool:
    """Not into a wall, not mostly sky or unknown."""
    known = depth_m[depth_m > 0]
    if known.size < 0.6 * depth_m.size or float(np.quantile(known, 0.01)) < 0.3:
        return False
    return float(np.median(known)) > 0.8 and float((labels == OBJECT).mean()) < 0.4
