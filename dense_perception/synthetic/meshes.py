"""OBJ models -> few, light meshes in metres: loading, axes, merging, simplifying, packing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dense_perception.core.storage import atomic_write

FACES = 7000
FACES_SMALL = 2000
AREA_CHANGE = 0.03  # a simplified part whose area changed more has lost faces that show
TEXTURE_SIZE = 128


@dataclass(frozen=True)
class Part:
    """One material of a model: a mesh with either a texture or one colour per vertex.

    ``vertices_n3`` metres, ``faces_m3`` vertex indices, ``uv_n2`` texture coordinates or None,
    ``texture_hwc`` uint8 RGB or None, ``rgb_n3`` uint8 vertex colours or None.
    """

    vertices_n3: np.ndarray
    faces_m3: np.ndarray
    uv_n2: np.ndarray | None
    texture_hwc: np.ndarray | None
    rgb_n3: np.ndarray | None
    alpha: float = 1.0


def load_parts(path: Path, rotation_33: np.ndarray | None = None) -> list[Part]:
    """The meshes of an OBJ (y up, any unit), by material, turned by ``rotation_33``."""
    import trimesh

    scene = trimesh.load_scene(str(path), process=False)
    parts = []
    for mesh in scene.dump():
        if not isinstance(mesh, trimesh.Trimesh):
            continue  # lines and points have no surface
        vertices = np.asarray(mesh.vertices, np.float64)
        if rotation_33 is not None:
            vertices = vertices @ rotation_33.T
        material = getattr(mesh.visual, "material", None)
        image = getattr(material, "image", None)
        uv = getattr(mesh.visual, "uv", None)
        rgba = np.asarray(getattr(material, "diffuse", (180, 180, 180, 255)), np.float64)
        faces = np.asarray(mesh.faces, np.int64)
        if image is not None and uv is not None:
            side = min(TEXTURE_SIZE, max(16, max(image.size)))
            texture = np.asarray(image.convert("RGB").resize((side, side)), np.uint8)
            uv_n2 = np.asarray(uv, np.float64)
            parts.append(Part(vertices, faces, uv_n2, texture, None, _alpha(material)))
        else:
            colours = np.tile(rgba[:3].astype(np.uint8), (len(vertices), 1))
            parts.append(Part(vertices, faces, None, None, colours, _alpha(material)))
    return parts


def _alpha(material: object) -> float:
    """Opacity of an OBJ material: its ``d``, else 1 - ``Tr``, else 1."""
    fields = {str(k).lower(): v for k, v in (getattr(material, "kwargs", None) or {}).items()}
    for key in ("d", "tr"):
        try:
            value = float(np.ravel(fields[key])[-1])
        except (KeyError, ValueError, IndexError, TypeError):
            continue
        return value if key == "d" else 1.0 - value
    return 1.0


def to_room_axes(parts: list[Part], size_m: tuple[float, float, float]) -> list[Part]:
    """Scale to width, depth, height; z up, front (+z before) to +y, centred, standing on z = 0.

    Faces without area are dropped.
    """
    if not parts:
        return []
    every = np.concatenate([part.vertices_n3 for part in parts])
    low, high = every.min(0), every.max(0)
    width, depth, height = size_m
    scale = np.array([width, height, depth]) / np.maximum(high - low, 1e-6)
    kept = []
    for part in parts:
        v = (part.vertices_n3 - (low + high) / 2) * scale
        v = np.stack([-v[:, 0], v[:, 2], v[:, 1] + height / 2], 1)
        faces = part.faces_m3[_areas(v, part.faces_m3) > 1e-9]
        if len(faces) >= 2:
            kept.append(replace(part, vertices_n3=v, faces_m3=faces))
    return kept


def _areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    corners = vertices[faces]
    edge_a, edge_b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    areas: np.ndarray = np.linalg.norm(np.cross(edge_a, edge_b), axis=1) / 2
    return areas


def merge_plain(parts: list[Part]) -> list[Part]:
    """All untextured parts as one; vertices at the same place and of one colour become one."""
    merged = []
    plain: list[Part] = []
    for part in parts:
        if part.texture_hwc is not None:
            used, faces = np.unique(part.faces_m3, return_inverse=True)
            assert part.uv_n2 is not None
            merged.append(
                replace(
                    part,
                    vertices_n3=part.vertices_n3[used],
                    faces_m3=faces.reshape(-1, 3),
                    uv_n2=part.uv_n2[used],
                )
            )
            continue
        assert part.rgb_n3 is not None
        corners = np.round(part.vertices_n3[part.faces_m3].reshape(-1, 3), 5)
        vertices, inverse = np.unique(corners, axis=0, return_inverse=True)
        colours = np.tile(part.rgb_n3[0], (len(vertices), 1))
        plain.append(Part(vertices, inverse.reshape(-1, 3), None, None, colours))
    if plain:
        offsets = np.cumsum([0, *[len(part.vertices_n3) for part in plain]])
        merged.append(
            Part(
                np.concatenate([part.vertices_n3 for part in plain]),
                np.concatenate(
                    [part.faces_m3 + o for part, o in zip(plain, offsets, strict=False)]
                ),
                None,
                None,
                np.concatenate([part.rgb_n3 for part in plain if part.rgb_n3 is not None]),
            )
        )
    return merged


def simplify(parts: list[Part], faces: int) -> list[Part]:
    """Quadric edge collapse to about ``faces`` triangles in all; light models stay as they are."""
    total = sum(len(part.faces_m3) for part in parts)
    if total <= faces:
        return parts
    lighter = []
    for part in parts:
        target = max(40, round(len(part.faces_m3) * faces / total))
        area = _areas(part.vertices_n3, part.faces_m3).sum()
        best = part
        while target < 0.8 * len(part.faces_m3):
            candidate = _collapse(part, target)
            changed = _areas(candidate.vertices_n3, candidate.faces_m3).sum() / area - 1
            if abs(changed) < AREA_CHANGE:
                best = candidate
                break
            target *= 2
        lighter.append(best)
    return lighter


def _collapse(part: Part, faces: int) -> Part:
    import fast_simplification

    points = np.ascontiguousarray(part.vertices_n3, np.float64)
    triangles = np.ascontiguousarray(part.faces_m3, np.int32)
    _, _, collapses = fast_simplification.simplify(
        points, triangles, target_count=faces, agg=3, return_collapses=True
    )
    vertices, new_faces, mapping = fast_simplification.replay_simplification(
        points, triangles, collapses
    )
    # Each new vertex inherits colour and texture from the nearest of those that became it.
    known = np.flatnonzero((mapping >= 0) & (mapping < len(vertices)))
    distance = np.linalg.norm(points[known] - vertices[mapping[known]], axis=1)
    far_first = known[np.argsort(-distance)]
    origin = np.zeros(len(vertices), np.int64)
    origin[mapping[far_first]] = far_first  # the last assignment, the nearest, stays
    return replace(
        part,
        vertices_n3=vertices,
        faces_m3=new_faces[_areas(vertices, new_faces) > 1e-10],
        uv_n2=None if part.uv_n2 is None else part.uv_n2[origin],
        rgb_n3=None if part.rgb_n3 is None else part.rgb_n3[origin],
    )


def save_parts(path: Path, parts: list[Part]) -> None:
    """Write the parts as one .npz, whole or not at all."""
    arrays: dict[str, np.ndarray] = {}
    for k, part in enumerate(parts):
        arrays[f"v{k}"] = part.vertices_n3.astype(np.float32)
        arrays[f"f{k}"] = part.faces_m3.astype(np.int32)
        if part.uv_n2 is not None and part.texture_hwc is not None:
            arrays[f"uv{k}"] = part.uv_n2.astype(np.float32)
            arrays[f"tex{k}"] = part.texture_hwc
        else:
            assert part.rgb_n3 is not None
            arrays[f"rgb{k}"] = part.rgb_n3
    with atomic_write(path) as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def load_packed(path: Path) -> list[Part]:
    """Read what :func:`save_parts` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        held = {name: arrays[name] for name in arrays.files}
    count = sum(name.startswith("v") for name in held)
    return [
        Part(
            held[f"v{k}"],
            held[f"f{k}"],
            held.get(f"uv{k}"),
            held.get(f"tex{k}"),
            held.get(f"rgb{k}"),
        )
        for k in range(count)
    ]
