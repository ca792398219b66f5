"""Sweet Home 3D furniture libraries (.sh3f) -> meshes in metres, ready to place in a room.

A library is a zip of OBJ models with a property file that gives each model's real size. Every model
becomes one ``.npz`` in a cache folder, and the lot is listed in ``catalogue.json``. Models stand on
z = 0 with the footprint centred on the origin, the front facing +y, in metres.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.training.synthetic.taxonomy import classify

SYSTEM_FOLDER = Path("/usr/share/sweethome3d/furniture")
CACHE_VERSION = 4
MAX_FACES = 40_000
MAX_FACES_SMALL = 10_000
TEXTURE_SIZE = 128
_PROPERTIES = "PluginFurnitureCatalog.properties"
_LICENCES = {
    "BlendSwap-CC-0": ("CC0-1.0", "BlendSwap contributors"),
    "BlendSwap-CC-BY": ("CC-BY-3.0", "BlendSwap contributors"),
    "KatorLegaz": ("CC-BY-3.0", "Andrew Kator & Jennifer Legaz"),
    "Reallusion": ("CC-BY-3.0", "Reallusion"),
    "Scopia": ("CC-BY-3.0", "Scopia Visual Interfaces Systems, s.l."),
}


@dataclass(frozen=True)
class Model:
    """One piece of furniture in the cache.

    ``size_m`` is width (x), depth (y), height (z); ``elevation_m`` the usual height of its
    underside; ``label`` and ``placement`` are those of :mod:`.taxonomy`.
    """

    key: str
    name: str
    category: str
    size_m: tuple[float, float, float]
    elevation_m: float
    label: str
    placement: str
    is_surface: bool
    surface_m: float
    faces: int
    licence: str
    creator: str
    source: str


@dataclass(frozen=True)
class Part:
    """One material of a model: a mesh with either a texture or one colour per vertex.

    ``vertices_n3`` float32 metres, ``faces_m3`` int32, ``uv_n2`` float32 or None,
    ``texture_hwc`` uint8 RGB or None, ``rgb_n3`` uint8 vertex colours or None.
    """

    vertices_n3: np.ndarray
    faces_m3: np.ndarray
    uv_n2: np.ndarray | None
    texture_hwc: np.ndarray | None
    rgb_n3: np.ndarray | None


def read_properties(text: str) -> list[dict[str, str]]:
    """The entries of a furniture property file, in order, each with its ``index``."""
    entries: dict[int, dict[str, str]] = {}
    for key, index, value in re.findall(r"^([A-Za-z]+)#(\d+)\s*=[ \t]*(.*?)\s*$", text, re.M):
        entries.setdefault(int(index), {"index": index})[key] = _unescape(value)
    return [entries[index] for index in sorted(entries)]


def _unescape(value: str) -> str:
    return re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m.group(1), 16)), value)


def find_libraries(folder: Path = SYSTEM_FOLDER) -> list[Path]:
    """The .sh3f files of a folder, sorted.

    :raises InputError: when there is none.
    """
    libraries = sorted(Path(folder).glob("*.sh3f"))
    if not libraries:
        raise InputError(
            f"no .sh3f furniture library in {folder}: install Debian's sweethome3d-furniture "
            "(apt-get install sweethome3d-furniture) or give --furniture FOLDER"
        )
    return libraries


def load_catalogue(
    libraries: Iterable[Path], cache: Path, progress: Callable[[str], None] | None = None
) -> list[Model]:
    """Convert the libraries into ``cache`` unless that was done before, and list the models."""
    models: list[Model] = []
    for library in libraries:
        folder = Path(cache) / f"furniture_v{CACHE_VERSION}" / Path(library).stem
        listing = folder / "catalogue.json"
        if not listing.exists():
            convert_library(Path(library), folder, progress)
        for record in json.loads(listing.read_text()):
            record["size_m"] = tuple(record["size_m"])
            models.append(Model(**record))
    return models


def convert_library(
    library: Path, folder: Path, progress: Callable[[str], None] | None = None
) -> list[Model]:
    """Convert every usable model of one .sh3f; unusable ones are left out, never fatal.

    :raises InputError: when the file is not a furniture library at all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        archive = zipfile.ZipFile(library)
        text = archive.read(_PROPERTIES).decode("latin1")
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise InputError(
            f"{library} is not a Sweet Home 3D furniture library ({error}): expected a zip with "
            f"{_PROPERTIES}"
        ) from error
    models = []
    with archive, tempfile.TemporaryDirectory() as scratch:
        archive.extractall(scratch)  # zipfile itself strips absolute paths and '..'
        for entry in read_properties(text):
            try:
                model = _convert_entry(library, entry, Path(scratch), folder)
            except Exception as error:
                if progress:
                    progress(f"{library.name}: {entry.get('name')} left out: {error!r:.120}")
                continue
            if model is not None:
                models.append(model)
    listing = folder / "catalogue.json"
    temporary = listing.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps([asdict(model) for model in models], indent=1))
    os.replace(temporary, listing)
    return models


def _convert_entry(
    library: Path, entry: dict[str, str], scratch: Path, folder: Path
) -> Model | None:
    size_m = tuple(float(entry[key]) / 100 for key in ("width", "depth", "height"))
    assert len(size_m) == 3
    elevation_m = float(entry.get("elevation") or 0) / 100
    kind = classify(entry["name"], entry.get("category", ""), size_m, elevation_m)
    if kind is None:
        return None
    path = (scratch / entry["model"].lstrip("/")).resolve()
    if not path.is_relative_to(scratch.resolve()):
        raise InputError(f"model path {entry['model']!r} leaves the library")
    rotation = [float(value) for value in entry.get("modelRotation", "").split()]
    parts = _load_parts(path, np.array(rotation).reshape(3, 3) if len(rotation) == 9 else None)
    if kind.label in ("window", "door"):  # what is behind a pane is painted on the wall
        parts = [part for part in parts if part["alpha"] > 0.6] or parts
    parts = _to_room_axes(parts, size_m)
    faces = sum(len(part["faces"]) for part in parts)
    if not parts or faces > (MAX_FACES_SMALL if max(size_m) < 0.4 else MAX_FACES):
        return None
    key = f"{library.stem}_{entry['index']}"
    _save_parts(folder / f"{key}.npz", parts)
    drop = float(entry.get("dropOnTopElevation") or 0) / 100
    licence, holder = _LICENCES.get(library.stem, ("see the library's LICENSE.TXT", "unknown"))
    return Model(
        key=key,
        name=entry["name"],
        category=entry.get("category", ""),
        size_m=size_m,
        elevation_m=elevation_m,
        label=kind.label,
        placement=kind.placement,
        is_surface=kind.is_surface and drop >= 0,
        surface_m=drop if drop > 0 else size_m[2],
        faces=faces,
        licence=licence,
        creator=entry.get("creator") or holder,
        source=library.name,
    )


def _load_parts(path: Path, rotation_33: np.ndarray | None) -> list[dict[str, Any]]:
    """The meshes of an OBJ (y up, any unit), by material."""
    import trimesh

    scene = trimesh.load_scene(str(path), process=False)
    parts = []
    for mesh in scene.dump():
        vertices = np.asarray(mesh.vertices, np.float64)
        if rotation_33 is not None:
            vertices = vertices @ rotation_33.T
        material = getattr(mesh.visual, "material", None)
        image = getattr(material, "image", None)
        uv = getattr(mesh.visual, "uv", None)
        diffuse = np.asarray(getattr(material, "diffuse", (180, 180, 180, 255)), np.float64)
        texture = None
        if image is not None and uv is not None:
            side = min(TEXTURE_SIZE, max(16, max(image.size)))
            texture = np.asarray(image.convert("RGB").resize((side, side)), np.uint8)
        parts.append(
            {
                "vertices": vertices,
                "faces": np.asarray(mesh.faces, np.int64),
                "uv": None if texture is None else np.asarray(uv, np.float32),
                "texture": texture,
                "rgb": diffuse[:3].astype(np.uint8),
                "alpha": float(diffuse[3]) / 255 if len(diffuse) > 3 else 1.0,
            }
        )
    return parts


def _to_room_axes(
    parts: list[dict[str, Any]], size_m: tuple[float, float, float]
) -> list[dict[str, Any]]:
    """Scale to the catalogue's size; z up, front to +y, centred, standing on z = 0."""
    if not parts:
        return []
    every = np.concatenate([part["vertices"] for part in parts])
    low, high = every.min(0), every.max(0)
    width, depth, height = size_m
    scale = np.array([width, height, depth]) / np.maximum(high - low, 1e-6)
    kept = []
    for part in parts:
        v = (part["vertices"] - (low + high) / 2) * scale
        v = np.stack([-v[:, 0], v[:, 2], v[:, 1] + height / 2], 1)
        corners = v[part["faces"]]
        area = np.linalg.norm(
            np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
        )
        faces = part["faces"][area > 1e-9]
        if len(faces) >= 2:
            kept.append({**part, "vertices": v, "faces": faces})
    return kept


def _save_parts(path: Path, parts: list[dict[str, Any]]) -> None:
    """Textured parts one by one; all the plain ones merged into one mesh with vertex colours."""
    arrays: dict[str, np.ndarray] = {}
    count = 0
    plain: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    offset = 0
    for part in parts:
        if part["texture"] is not None:
            used, faces = np.unique(part["faces"], return_inverse=True)
            arrays[f"v{count}"] = part["vertices"][used].astype(np.float32)
            arrays[f"f{count}"] = faces.reshape(-1, 3).astype(np.int32)
            arrays[f"uv{count}"] = part["uv"][used]
            arrays[f"tex{count}"] = part["texture"]
            count += 1
            continue
        corners = np.round(part["vertices"][part["faces"]].reshape(-1, 3), 5)
        vertices, inverse = np.unique(corners, axis=0, return_inverse=True)
        colours = np.broadcast_to(part["rgb"], (len(vertices), 3))
        plain.append((vertices, inverse.reshape(-1, 3) + offset, colours))
        offset += len(vertices)
    if plain:
        arrays[f"v{count}"] = np.concatenate([p[0] for p in plain]).astype(np.float32)
        arrays[f"f{count}"] = np.concatenate([p[1] for p in plain]).astype(np.int32)
        arrays[f"rgb{count}"] = np.concatenate([p[2] for p in plain]).astype(np.uint8)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    os.replace(file.name, path)


def load_model(model: Model, cache: Path) -> list[Part]:
    """The parts of a converted model."""
    stem = Path(model.source).stem
    path = Path(cache) / f"furniture_v{CACHE_VERSION}" / stem / f"{model.key}.npz"
    with np.load(path, allow_pickle=False) as arrays:
        count = sum(name.startswith("v") for name in arrays.files)
        return [
            Part(
                arrays[f"v{i}"],
                arrays[f"f{i}"],
                arrays[f"uv{i}"] if f"uv{i}" in arrays else None,
                arrays[f"tex{i}"] if f"tex{i}" in arrays else None,
                arrays[f"rgb{i}"] if f"rgb{i}" in arrays else None,
            )
            for i in range(count)
        ]
