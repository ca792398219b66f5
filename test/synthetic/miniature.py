"""A miniature furniture library and fake stock that tests write themselves."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np

from dense_perception.synthetic.bank import SIDE
from dense_perception.synthetic.furniture import FurnitureModel
from dense_perception.synthetic.stock import Stock

# A box of 2 x 1 x 4 units (x, y up, z) with a small red knob at its front (+z).
BOX_OBJ = """mtllib box.mtl
v -1 0 -2
v 1 0 -2
v 1 1 -2
v -1 1 -2
v -1 0 2
v 1 0 2
v 1 1 2
v -1 1 2
v -0.1 0.4 2
v 0.1 0.4 2
v 0 0.6 2.0
usemtl body
f 1 2 3
f 1 3 4
f 5 6 7
f 5 7 8
f 1 2 6
f 1 6 5
f 4 3 7
f 4 7 8
usemtl knob
f 9 10 11
f 11 10 9
"""
BOX_MTL = "newmtl body\nKd 0.2 0.4 0.6\nnewmtl knob\nKd 1 0 0\n"
TEXTURED_OBJ = """mtllib sheet.mtl
v 0 0 0
v 1 0 0
v 1 1 0
v 0 1 0
v 0 0 1
vt 0 0
vt 1 0
vt 1 1
vt 0 1
usemtl sheet
f 1/1 2/2 3/3
f 1/1 3/3 4/4
f 1/1 2/2 5/4
"""


def png(colour: tuple[int, int, int], side: int = 16) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(buffer, "PNG")
    return buffer.getvalue()


def properties(entries: list[dict[str, str]]) -> str:
    lines = ["# a catalogue", "version=1.0"]
    for index, entry in enumerate(entries, 1):
        lines += [f"{key}#{index}={value}" for key, value in entry.items()]
    return "\n".join(lines) + "\n"


def entry(
    name: str, model: str, size_cm: tuple[float, float, float], **more: str
) -> dict[str, str]:
    width, depth, height = (str(value) for value in size_cm)
    base = {"name": name, "model": model, "width": width, "depth": depth, "height": height}
    return {**base, "category": "Living room", "creator": "A maker", **more}


def write_library(path: Path, entries: list[dict[str, str]]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", properties(entries))
        archive.writestr("box/box.obj", BOX_OBJ)
        archive.writestr("box/box.mtl", BOX_MTL)
        archive.writestr("sheet/sheet.obj", TEXTURED_OBJ)
        archive.writestr("sheet/sheet.mtl", "newmtl sheet\nKd 1 1 1\nmap_Kd sheet.png\n")
        archive.writestr("sheet/sheet.png", png((10, 200, 30)))
        archive.writestr("broken/broken.obj", "v one two\nf 1 2\n")
    return path


def model(
    key: str,
    placement: str,
    label: str,
    size_m: tuple[float, float, float],
    surface: bool = False,
    elevation_m: float = 0.0,
) -> FurnitureModel:
    return FurnitureModel(
        key, key, "Office", size_m, elevation_m, label, placement, surface, size_m[2], 100,
        "CC0-1.0", "nobody", "fake.sh3f",
    )  # fmt: skip


MODELS = (
    model("door", "door", "door", (0.9, 0.15, 2.05)),
    model("window", "window", "window", (1.1, 0.2, 1.2), elevation_m=0.9),
    model("cupboard", "along_wall", "cabinet", (0.9, 0.5, 1.9)),
    model("sideboard", "along_wall", "cabinet", (1.2, 0.45, 0.8), surface=True),
    model("sofa", "along_wall", "sofa", (1.9, 0.9, 0.8)),
    model("bed", "along_wall", "bed", (1.4, 2.0, 0.6)),
    model("fridge", "along_wall", "appliance", (0.6, 0.6, 1.8)),
    model("basin", "along_wall", "sanitary", (0.6, 0.5, 0.9)),
    model("table", "table", "table", (1.4, 0.8, 0.75), surface=True),
    model("chair", "seat", "chair", (0.5, 0.55, 0.9)),
    model("plant", "free", "plant", (0.4, 0.4, 1.0)),
    model("cup", "small", "small_object", (0.08, 0.08, 0.1)),
    model("socket", "wall", "small_object", (0.08, 0.02, 0.08), elevation_m=0.3),
    model("lamp", "ceiling", "lamp", (0.4, 0.4, 0.5)),
)


class FlatBank:
    """Stands in for a TextureBank: one gray photograph with a bright half."""

    def pick(self, role: str, rng: np.random.Generator) -> np.ndarray:
        image = np.full((SIDE, SIDE, 3), 0.4, np.float32)
        image[:, SIDE // 2 :] = 0.6
        return image


def fake_stock() -> Stock:
    return Stock(MODELS, FlatBank())  # type: ignore[arg-type]
