"""Sweet Home 3D furniture libraries (.sh3f) -> meshes in metres, ready to place in a room.

A library is a zip of OBJ models with a property file that gives each model's real size. Every model
becomes one ``.npz`` in a cache folder, and the lot is listed in ``catalogue.json``. Models stand on
z = 0 with the footprint centred on the origin, the front facing +y, in metres.
"""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.core.json_text import json_text, parse_json
from dense_perception.core.storage import atomic_write_text
from dense_perception.synthetic import meshes
from dense_perception.synthetic.taxonomy import classify

SYSTEM_FOLDER = Path("/usr/share/sweethome3d/furniture")
CACHE_VERSION = 8
_PROPERTIES = "PluginFurnitureCatalog.properties"
_LICENCES = {
    "BlendSwap-CC-0": ("CC0-1.0", "BlendSwap contributors"),
    "BlendSwap-CC-BY": ("CC-BY-3.0", "BlendSwap contributors"),
    "KatorLegaz": ("CC-BY-3.0", "Andrew Kator & Jennifer Legaz"),
    "Reallusion": ("CC-BY-3.0", "Reallusion"),
    "Scopia": ("CC-BY-3.0", "Scopia Visual Interfaces Systems, s.l."),
}


@dataclass(frozen=True)
class FurnitureModel:
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
) -> list[FurnitureModel]:
    """Convert the libraries into ``cache`` unless that was done before, and list the models."""
    models: list[FurnitureModel] = []
    for library in libraries:
        folder = Path(cache) / f"furniture_v{CACHE_VERSION}" / Path(library).stem
        listing = folder / "catalogue.json"
        if not listing.exists():
            convert_library(Path(library), folder, progress)
        for record in parse_json(listing.read_text()):
            record["size_m"] = tuple(record["size_m"])
            models.append(FurnitureModel(**record))
    return models


def convert_library(
    library: Path, folder: Path, progress: Callable[[str], None] | None = None
) -> list[FurnitureModel]:
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
    listing = json_text(models, indent=1)
    atomic_write_text(folder / "catalogue.json", listing)
    return models


def _convert_entry(
    library: Path, entry: dict[str, str], scratch: Path, folder: Path
) -> FurnitureModel | None:
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
    parts = meshes.load_parts(
        path, np.array(rotation).reshape(3, 3) if len(rotation) == 9 else None
    )
    if kind.label in ("window", "door"):  # what is behind a pane is painted on the wall
        parts = [part for part in parts if part.alpha > 0.6] or parts
    parts = meshes.to_room_axes(parts, size_m)
    budget = meshes.FACES if max(size_m) >= 0.5 else meshes.FACES_SMALL
    packed = meshes.simplify(meshes.merge_plain(parts), budget)
    faces = sum(len(part.faces_m3) for part in packed)
    if not packed or faces > 3 * budget:  # what does not simplify costs more than it shows
        return None
    key = f"{library.stem}_{entry['index']}"
    meshes.save_parts(folder / f"{key}.npz", packed)
    drop = float(entry.get("dropOnTopElevation") or 0) / 100
    licence, holder = _LICENCES.get(library.stem, ("see the library's LICENSE.TXT", "unknown"))
    return FurnitureModel(
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


def load_model(model: FurnitureModel, cache: Path) -> list[meshes.Part]:
    """The parts of a converted model."""
    stem = Path(model.source).stem
    folder = Path(cache) / f"furniture_v{CACHE_VERSION}" / stem
    return meshes.load_packed(folder / f"{model.key}.npz")
