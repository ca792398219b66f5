"""A scene as a MuJoCo model: meshes, textures, lamps and one camera, built in memory."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from dense_perception.synthetic.furniture import load_model
from dense_perception.synthetic.scene import Instance, Primitive, Scene, Surface
from dense_perception.synthetic.taxonomy import CLASS_ID
from dense_perception.synthetic.textures import object_colour

if TYPE_CHECKING:
    from mujoco import MjModel

SHADOW_SIZE = 1024
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


class RoomModel:
    """Turns a scene into a MuJoCo model: geom k has the class ``labels[k]`` and is part of the
    instance ``instances[k]``, 0 for none. Parts of one thing with different classes, such as the
    screen and the keys of a laptop, are two instances.
    """

    def __init__(self, mujoco: ModuleType, scene: Scene, cache: Path) -> None:
        self.mujoco, self.scene, self.cache = mujoco, scene, cache
        self.spec = mujoco.MjSpec()
        self.labels: list[int] = []
        self.instances: list[int] = []
        self._numbers: dict[tuple[int, str], int] = {}
        self._meshes: dict[tuple[str, float, int], str] = {}
        self._materials: dict[tuple[str, int, int], str] = {}
        self._count = 0

    def compile(self, width: int, height: int) -> MjModel:
        """The model, with one camera and an off-screen buffer of width x height."""
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

    def _mesh(self, vertices_n3: np.ndarray, faces_m3: np.ndarray, uv_n2: np.ndarray | None) -> str:
        name = self._name("mesh")
        mesh = self.spec.add_mesh(
            name=name, inertia=self.mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL
        )
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

    def _geom(self, label: str, thing: int, **fields: object) -> None:
        self.spec.worldbody.add_geom(contype=0, conaffinity=0, **fields)
        self.labels.append(CLASS_ID[label])
        number = self._numbers.setdefault((thing, label), len(self._numbers) + 1) if thing else 0
        self.instances.append(number)

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
        material = self._material(
            surface.texture_hwc, specular=surface.specular, emission=surface.emission
        )
        self._geom(
            surface.label,
            0,
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
                p.thing,
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
            p.thing,
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
                instance.thing,
                type=self.mujoco.mjtGeom.mjGEOM_MESH,
                meshname=self._meshes[mesh_key],
                material=self._materials[material_key],
                pos=instance.position,
                quat=(math.cos(half), 0, 0, math.sin(half)),
            )


class _Tint:
    """Mutes catalogue colours, sometimes paints the whole object anew; fixed per instance."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.saturation = rng.uniform(0.1, 0.85)
        self.gain = rng.uniform(0.65, 1.15)
        self.colour = object_colour(rng) if rng.random() < 0.35 else None

    def __call__(self, image_hwc: np.ndarray) -> np.ndarray:
        image = image_hwc.astype(np.float32) / 255
        gray = image.mean(-1, keepdims=True)
        if self.colour is not None:
            image = (0.35 + 0.65 * gray / max(float(gray.mean()), 0.1)) * self.colour
        else:
            image = gray + (image - gray) * self.saturation
        return (np.clip(image * self.gain, 0.02, 0.98) * 255 + 0.5).astype(np.uint8)


def _box_mesh(half: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A box with the whole texture on each side, upright on the vertical ones."""
    vertices = np.array([corner for face in _BOX_FACES for corner in face], np.float64) * half
    uv = np.tile(np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64), (6, 1))
    uv[:, 1] = 1 - uv[:, 1]
    first = np.arange(6)[:, None] * 4
    faces = np.concatenate([first + np.array([0, 1, 2]), first + np.array([0, 2, 3])])
    return vertices, faces, uv
