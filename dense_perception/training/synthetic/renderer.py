"""Renders a room with MuJoCo: RGB, planar depth in metres and class labels, without a display.

MuJoCo's depth is planar z from the camera plane, exact to 1e-6 relative; this module only builds
the model and reads the buffers.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import BackendError
from dense_perception.training.synthetic.furniture import load_model
from dense_perception.training.synthetic.scene import Instance, Primitive, Scene, Surface
from dense_perception.training.synthetic.taxonomy import CLASS_ID

SUPERSAMPLE = 2  # squared samples a pixel; software OpenGL does this faster than multisampling
SHADOW_SIZE = 1024
SAME_SURFACE = 1.02  # ratio of depths within a pixel above which it straddles an edge
FACET_M = 0.35  # light is computed per vertex: large faces need many
_BOX_FACES = (
    # corner signs of the four vertices, counter-clockwise seen from outside
    ((1, -1, -1), (1, 1, -1), (1, 1, 1), (1, -1, 1)),
    ((-1, 1, -1), (-1, -1, -1), (-1, -1, 1), (-1, 1, 1)),
    ((1, 1, -1), (-1, 1, -1), (-1, 1, 1), (1, 1, 1)),
    ((-1, -1, -1), (1, -1, -1), (1, -1, 1), (-1, -1, 1)),
    ((-1, -1, 1), (1, -1, 1), (1, 1, 1), (-1, 1, 1)),
    ((-1, 1, -1), (1, 1, -1), (1, -1, -1), (-1, -1, -1)),
)


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


@dataclass(frozen=True)
class View:
    """One rendered frame: uint8 RGB HxWx3, float32 planar depth HxW (0 = none), uint8 labels."""

    rgb_hwc: np.ndarray
    depth_m: np.ndarray
    labels_hw: np.ndarray


class RoomRenderer:
    """Renders views of one scene; use as a context manager.

    :raises BackendError: when MuJoCo or an OpenGL library cannot be loaded.
    """

    def __init__(self, scene: Scene, width: int, height: int, cache: Path) -> None:
        mujoco = load_mujoco()
        self._mujoco = mujoco
        self._builder = _Builder(mujoco, scene, Path(cache))
        width, height = width * SUPERSAMPLE, height * SUPERSAMPLE
        self._model = self._builder.model(width, height)
        self._data = mujoco.MjData(self._model)
        self._samples = np.zeros((height, width), np.float32)
        self._labels = np.array(self._builder.labels, np.uint8)
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

    def labels(self) -> np.ndarray:
        """Class indices, uint8, HxW, of the samples the last :meth:`depth` chose."""
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
        labels = np.where(picked >= 0, self._labels[np.clip(picked, 0, None)], 0)
        return labels.astype(np.uint8)

    def rgb(self) -> np.ndarray:
        """Shaded image, uint8, HxWx3, supersampled."""
        import cv2

        self._renderer.update_scene(self._data, camera=0)
        image = self._renderer.render()
        size = image.shape[1] // SUPERSAMPLE, image.shape[0] // SUPERSAMPLE
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def _cells(samples: np.ndarray) -> list[np.ndarray]:
    """The s*s samples of each pixel of an (H*s, W*s) array, as views of shape (H, W)."""
    s = SUPERSAMPLE
    return [samples[row::s, column::s] for row in range(s) for column in range(s)]


def pixel_depth(samples: np.ndarray) -> np.ndarray:
    """Depth at each pixel's centre from its samples.

    Inverse planar depth is affine over a plane, so its mean over the samples is exact at the
    centre; a pixel that straddles an edge takes its nearest sample instead of a mixture.
    """
    cells = _cells(samples)
    low, high = cells[0], cells[0]
    inverse = np.zeros(cells[0].shape, np.float32)
    for cell in cells:
        low, high = np.minimum(low, cell), np.maximum(high, cell)
        inverse += 1.0 / np.maximum(cell, 1e-6)
    centre = len(cells) / inverse
    depth_m: np.ndarray = np.where(high > SAME_SURFACE * low, low, centre).astype(np.float32)
    return depth_m


def load_mujoco() -> Any:
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


class _Builder:
    """Turns a scene into a MuJoCo model; geom k has class ``labels[k]``."""

    def __init__(self, mujoco: Any, scene: Scene, cache: Path) -> None:
        self.mujoco, self.scene, self.cache = mujoco, scene, cache
        self.spec = mujoco.MjSpec()
        self.labels: list[int] = []
        self._meshes: dict[tuple[str, float, int], str] = {}
        self._materials: dict[tuple[str, int, int], str] = {}
        self._count = 0

    def model(self, width: int, height: int) -> Any:
        spec, scene = self.spec, self.scene
        spec.visual.quality.offsamples = 0
        spec.visual.quality.shadowsize = SHADOW_SIZE
        spec.visual.headlight.ambient = scene.ambient
        spec.visual.headlight.diffuse = (0.06, 0.06, 0.06)
        spec.visual.headlight.specular = (0, 0, 0)
        spec.visual.global_.offwidth = width
        spec.visual.global_.offheight = height
        extent = float(np.linalg.norm(scene.size))
        spec.stat.extent = extent
        spec.stat.center = np.array(scene.size) / 2
        spec.visual.map.znear = 0.03 / extent
        spec.visual.map.zfar = 2.0
        for surface in scene.surfaces:
            self._surface(surface)
        for primitive in scene.primitives:
            self._primitive(primitive)
        for instance in scene.instances:
            self._instance(instance)
        for light in scene.lights:
            spec.worldbody.add_light(
                pos=light.position,
                dir=light.direction,
                diffuse=light.rgb,
                specular=(0.3, 0.3, 0.3),
                castshadow=light.shadow,
                cutoff=80 if light.shadow else 90,
                exponent=1,
                attenuation=(1, 0.04, 0.02),
            )
        spec.worldbody.add_camera(name="camera", pos=(1, 1, 1))
        return spec.compile()

    # ------------------------------------------------------------ geometry

    def _name(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count}"

    def _mesh(
        self, vertices_n3: np.ndarray, faces_m3: np.ndarray, uv_n2: np.ndarray | None
    ) -> str:
        name = self._name("mesh")
        mesh = self.spec.add_mesh(name=name, inertia=self.mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL)
        mesh.uservert = np.asarray(vertices_n3, np.float32).ravel()
        mesh.userface = np.asarray(faces_m3, np.int32).ravel()
        if uv_n2 is not None:
            mesh.usertexcoord = np.asarray(uv_n2, np.float32).ravel()
        return name

    def _texture(self, image_hwc: np.ndarray) -> str:
        """Row 0 of the image is at texture coordinate v = 0."""
        name = self._name("texture")
        texture = self.spec.add_texture(name=name, type=self.mujoco.mjtTexture.mjTEXTURE_2D)
        texture.height, texture.width = image_hwc.shape[:2]
        texture.nchannel = 3
        texture.data = np.ascontiguousarray(image_hwc).tobytes()
        return name

    def _material(
        self,
        image_hwc: np.ndarray | None,
        rgb: tuple[float, float, float] = (1, 1, 1),
        specular: float = 0.0,
        emission: float = 0.0,
    ) -> str:
        name = self._name("material")
        material = self.spec.add_material(
            name=name, rgba=(*rgb, 1), specular=specular, shininess=0.4, emission=emission
        )
        if image_hwc is not None:
            slots = ["" for _ in material.textures]
            slots[int(self.mujoco.mjtTextureRole.mjTEXROLE_RGB)] = self._texture(image_hwc)
            material.textures = slots
        return name

    def _geom(self, label: str, **fields: Any) -> None:
        self.spec.worldbody.add_geom(contype=0, conaffinity=0, **fields)
        self.labels.append(CLASS_ID[label])

    def _surface(self, surface: Surface) -> None:
        width = np.linalg.norm(surface.edge_u)
        height = np.linalg.norm(surface.edge_v)
        nu = max(1, math.ceil(width / FACET_M))
        nv = max(1, math.ceil(height / FACET_M))
        fu, fv = np.meshgrid(np.linspace(0, 1, nu + 1), np.linspace(0, 1, nv + 1))
        uv = np.stack([fu.ravel(), fv.ravel()], 1)
        vertices = surface.origin + uv[:, :1] * surface.edge_u + uv[:, 1:] * surface.edge_v
        base = (np.arange(nv)[:, None] * (nu + 1) + np.arange(nu)[None]).ravel()
        faces = np.concatenate(
            [
                np.stack([base, base + 1, base + nu + 2], 1),
                np.stack([base, base + nu + 2, base + nu + 1], 1),
            ]
        )
        mesh = self._mesh(vertices, faces, uv)
        material = self._material(surface.texture_hwc, specular=surface.specular)
        self._geom(
            surface.label,
            type=self.mujoco.mjtGeom.mjGEOM_MESH,
            meshname=mesh,
            material=material,
        )

    def _primitive(self, p: Primitive) -> None:
        quaternion = (math.cos(p.yaw / 2), 0, 0, math.sin(p.yaw / 2))
        if p.shape == "box" and p.texture_hwc is not None:
            vertices, faces, uv = _box_mesh(np.array(p.half))
            self._geom(
                p.label,
                type=self.mujoco.mjtGeom.mjGEOM_MESH,
                meshname=self._mesh(vertices, faces, uv),
                material=self._material(p.texture_hwc, p.rgb, p.specular, p.emission),
                pos=p.position,
                quat=quaternion,
            )
            return
        kinds = self.mujoco.mjtGeom
        kind, size = {
            "box": (kinds.mjGEOM_BOX, p.half),
            "cylinder": (kinds.mjGEOM_CYLINDER, (p.half[0], p.half[2], 0)),
            "ellipsoid": (kinds.mjGEOM_ELLIPSOID, p.half),
        }[p.shape]
        self._geom(
            p.label,
            type=kind,
            size=np.maximum(size, 1e-4),
            material=self._material(None, p.rgb, p.specular, p.emission),
            pos=p.position,
            quat=quaternion,
        )

    def _instance(self, instance: Instance) -> None:
        rng = np.random.default_rng(instance.tint_seed)
        tint = _Tint(rng)
        half = instance.yaw / 2
        for index, part in enumerate(load_model(instance.model, self.cache)):
            mesh_key = (instance.model.key, round(instance.scale, 4), index)
            colours, palette_index = None, None
            if part.rgb_n3 is not None:
                packed = part.rgb_n3.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
                values, palette_index = np.unique(packed, return_inverse=True)
                colours = np.stack([values >> 16, values >> 8 & 255, values & 255], 1).astype(
                    np.uint8
                )
            if mesh_key not in self._meshes:
                uv = part.uv_n2
                if palette_index is not None and colours is not None:
                    u = (palette_index.ravel() + 0.5) / len(colours)
                    uv = np.stack([u, np.full(len(u), 0.5)], 1)
                self._meshes[mesh_key] = self._mesh(
                    part.vertices_n3 * instance.scale, part.faces_m3, uv
                )
            material_key = (instance.model.key, instance.tint_seed, index)
            if material_key not in self._materials:
                if colours is not None:
                    image = colours[None]
                else:
                    assert part.texture_hwc is not None
                    image = part.texture_hwc[::-1]
                self._materials[material_key] = self._material(
                    tint(image), specular=float(rng.choice([0.0, 0.1, 0.4]))
                )
            self._geom(
                instance.model.label,
                type=self.mujoco.mjtGeom.mjGEOM_MESH,
                meshname=self._meshes[mesh_key],
                material=self._materials[material_key],
                pos=instance.position,
                quat=(math.cos(half), 0, 0, math.sin(half)),
            )


class _Tint:
    """Mutes catalogue colours, sometimes paints the whole object anew; fixed per instance."""

    def __init__(self, rng: np.random.Generator) -> None:
        from dense_perception.training.synthetic.textures import object_colour

        self.saturation = rng.uniform(0.15, 0.95)
        self.gain = rng.uniform(0.65, 1.15)
        self.colour = object_colour(rng) if rng.random() < 0.35 else None

    def __call__(self, image_hwc: np.ndarray) -> np.ndarray:
        image = image_hwc.astype(np.float32) / 255
        grey = image.mean(-1, keepdims=True)
        if self.colour is not None:
            image = (0.35 + 0.65 * grey / max(float(grey.mean()), 0.1)) * self.colour
        else:
            image = grey + (image - grey) * self.saturation
        return (np.clip(image * self.gain, 0.02, 0.98) * 255 + 0.5).astype(np.uint8)


def _box_mesh(half: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A box with the whole texture on each side, upright on the vertical ones."""
    vertices = np.array([corner for face in _BOX_FACES for corner in face], np.float64) * half
    uv = np.tile(np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64), (6, 1))
    uv[:, 1] = 1 - uv[:, 1]
    quads = np.arange(6)[:, None] * 4
    faces = np.concatenate([quads + [0, 1, 2], quads + [0, 2, 3]])
    return vertices, faces, uv
