"""Renders a room with MuJoCo: RGB, planar depth in metres and class labels, without a display.

MuJoCo's depth is planar z from the camera plane, exact to 1e-6 relative; this module only builds
the model and reads the buffers.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import BackendError
from dense_perception.imaging.resize import resample
from dense_perception.synthetic.mujoco_model import RoomModel
from dense_perception.synthetic.scene import Scene

SUPERSAMPLE = 2  # four samples a pixel; software OpenGL does this faster than multisampling
EDGE = 0.01  # relative step of inverse depth inside a pixel that makes it an edge


@dataclass(frozen=True)
class Pose:
    """Camera position in the room and its rotation (columns: right, down, forward; optical)."""

    position: np.ndarray
    rotation_33: np.ndarray

    @classmethod
    def look(cls, position: np.ndarray, yaw: float, pitch: float, roll: float) -> Pose:
        """Yaw from +x counter-clockwise, pitch up positive, roll clockwise positive; radians."""
        forward = np.array(
            [math.cos(yaw) * math.cos(pitch), math.sin(yaw) * math.cos(pitch), math.sin(pitch)]
        )
        right = np.array([math.sin(yaw), -math.cos(yaw), 0.0])
        down = np.cross(forward, right)
        c, s = math.cos(roll), math.sin(roll)
        return cls(
            np.asarray(position, np.float64),
            np.stack([c * right + s * down, -s * right + c * down, forward], 1),
        )


class RoomRenderer:
    """Renders views of one scene; use as a context manager.

    :raises BackendError: when MuJoCo or an OpenGL library cannot be loaded.
    """

    def __init__(self, scene: Scene, width: int, height: int, cache: Path) -> None:
        mujoco = load_mujoco()
        self._mujoco = mujoco
        self._room = RoomModel(mujoco, scene, Path(cache))
        width, height = width * SUPERSAMPLE, height * SUPERSAMPLE
        self._model = self._room.compile(width, height)
        self._data = mujoco.MjData(self._model)
        self._samples = np.zeros((height, width), np.float32)
        self._labels = np.array(self._room.labels, np.uint8)
        self._instances = np.array(self._room.instances, np.uint16)
        self._renderer = mujoco.Renderer(self._model, height, width)
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_CULL_FACE] = 0
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = 0
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_HAZE] = 0
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0

    def __enter__(self) -> RoomRenderer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the OpenGL context."""
        self._renderer.close()

    def aim(self, pose: Pose, intrinsics: Intrinsics) -> None:
        """Put the camera somewhere; ``intrinsics`` must be centred with square pixels."""
        mujoco, model = self._mujoco, self._model
        right, down, forward = pose.rotation_33.T
        quaternion = np.zeros(4)
        mujoco.mju_mat2Quat(quaternion, np.stack([right, -down, -forward], 1).ravel())
        model.cam_pos[0], model.cam_quat[0] = pose.position, quaternion
        model.cam_fovy[0] = 2 * math.degrees(math.atan(intrinsics.height / 2 / intrinsics.fy))
        mujoco.mj_forward(model, self._data)

    def depth(self) -> np.ndarray:
        """Planar depth, float32 metres, HxW."""
        self._renderer.enable_depth_rendering()
        self._renderer.update_scene(self._data, camera=0)
        self._samples = self._renderer.render()
        self._renderer.disable_depth_rendering()
        return pixel_depth(self._samples)

    def identify(self) -> tuple[np.ndarray, np.ndarray]:
        """What the samples that the last :meth:`depth` chose belong to.

        :returns: class indices, uint8, and instances, uint16, both HxW. An instance has one number
            in all views of the scene; 0 is none (walls, floor, ceiling).
        """
        self._renderer.enable_segmentation_rendering()
        self._renderer.update_scene(self._data, camera=0)
        geoms = self._renderer.render()[..., 0]
        self._renderer.disable_segmentation_rendering()
        nearest, picked = None, None
        for depth, geom in zip(_cells(self._samples), _cells(geoms), strict=True):
            if nearest is None or picked is None:
                nearest, picked = depth, geom
                continue
            picked = np.where(depth < nearest, geom, picked)
            nearest = np.minimum(depth, nearest)
        assert picked is not None
        hit, geom = picked >= 0, np.clip(picked, 0, None)
        labels = np.where(hit, self._labels[geom], 0).astype(np.uint8)
        return labels, np.where(hit, self._instances[geom], 0).astype(np.uint16)

    def rgb(self) -> np.ndarray:
        """Shaded image, uint8, HxWx3, supersampled."""
        self._renderer.update_scene(self._data, camera=0)
        image = self._renderer.render()
        return resample(image, image.shape[1] // SUPERSAMPLE, image.shape[0] // SUPERSAMPLE)


def _cells(samples: np.ndarray) -> list[np.ndarray]:
    """The four samples of each pixel of a (2H, 2W) array, as views of shape (H, W)."""
    return [samples[row::2, column::2] for row in range(2) for column in range(2)]


def pixel_depth(samples: np.ndarray) -> np.ndarray:
    """Depth at the centres of HxW pixels from (2H, 2W) samples, float32.

    Inverse planar depth is affine over a plane, so its mean over the samples is exact at the
    centre; a pixel that straddles an edge takes its nearest sample instead of a mixture.
    """
    inverse = 1.0 / np.maximum(samples, 1e-6)
    cells = _cells(inverse)
    centre = sum(cells) / 4
    nearest = np.maximum.reduce(cells)
    jump = _jumps(inverse)
    edge = jump[0::2] | jump[1::2]
    jump = _jumps(inverse.T).T
    edge |= jump[:, 0::2] | jump[:, 1::2]
    return (1.0 / np.where(edge, nearest, centre)).astype(np.float32)


def _jumps(inverse: np.ndarray) -> np.ndarray:
    """(N, 2W) -> (N, W): where the step inside a pixel is out of line with those beside it."""
    step = np.abs(np.diff(inverse, axis=1))
    inside, between = step[:, 0::2], step[:, 1::2]
    before = np.pad(between, ((0, 0), (1, 0)), mode="edge")
    after = np.pad(between, ((0, 0), (0, 1)), mode="edge")
    smooth = np.minimum(before, after)
    jumps: np.ndarray = inside > 2 * smooth + EDGE * inverse[:, 0::2]
    return jumps


def load_mujoco() -> ModuleType:
    """The mujoco module, with a headless OpenGL chosen; says the cure where there is none."""
    os.environ.setdefault("MUJOCO_GL", "egl")
    os.environ.setdefault("LP_NUM_THREADS", "1")  # workers are processes
    try:
        import mujoco

        _ = mujoco.Renderer
    except Exception as error:
        raise BackendError(
            f"rooms cannot be rendered here ({error}): install mujoco and an OpenGL library "
            "(pip install 'dense_perception[synthetic]'; apt-get install libegl1 libgl1-mesa-dri) "
            "or set MUJOCO_GL=osmesa with libosmesa6"
        ) from error
    return mujoco


def finish_picture(
    rgb_hwc: np.ndarray, depth_m: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Darken creases and contacts seen in the depth and expose like a camera; uint8 in and out."""
    light = 1.0 - rng.uniform(0.1, 0.4) * occlusion(depth_m)
    height, width = depth_m.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light = light * (1 - rng.uniform(0.0, 0.12) * (x * x + y * y) / 2)
    image = rgb_hwc * (light / 255).astype(np.float32)[..., None]
    # The renderer adds light in display space, where shadows come out too deep: lift them.
    image **= rng.uniform(0.72, 1.0)
    gain = np.clip(rng.uniform(0.3, 0.56) / max(float(image.mean()), 0.02), 0.6, 2.2)
    image = glare(image * gain, rng.uniform(0.0, 0.35))
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def glare(image_hwc: np.ndarray, strength: float) -> np.ndarray:
    """Light that over-exposed parts (above 0.9 of 1) scatter in the lens, added to the image."""
    over = np.clip(image_hwc - 0.9, 0, 1).astype(np.float32)
    height, width = over.shape[:2]
    small = resample(over, max(1, width // 4), max(1, height // 4))
    wide = cv2.GaussianBlur(small, (0, 0), 0.08 * height / 4 + 0.1)
    near = cv2.GaussianBlur(small, (0, 0), 0.02 * height / 4 + 0.1)
    halo = resample(wide + near, width, height)
    return image_hwc + strength * halo


def occlusion(depth_m: np.ndarray) -> np.ndarray:
    """0..1 per pixel: how much nearer its surroundings are than a smooth surface would be."""
    height = depth_m.shape[0]
    inverse = (1.0 / np.maximum(depth_m, 0.05)).astype(np.float32)
    total = np.zeros_like(inverse)
    for share in (0.012, 0.04):
        # Inverse depth is affine on a plane, so planes of any slant leave no residue.
        residue = cv2.GaussianBlur(inverse, (0, 0), share * height) - inverse
        relative = residue / inverse
        total += np.clip(relative, 0, 0.25) * np.exp(-np.clip(relative, 0, None) * 3)
    return np.clip(total * 5, 0, 1)
