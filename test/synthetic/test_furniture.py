"""Conversion of a hand-made furniture library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dense_perception.core.errors import InputError
from dense_perception.synthetic import furniture
from test.synthetic.miniature import entry, write_library


def convert(
    tmp_path: Path, entries: list[dict[str, str]]
) -> tuple[list[furniture.FurnitureModel], Path]:
    library = write_library(tmp_path / "Scopia.sh3f", entries)
    return furniture.load_catalogue([library], tmp_path / "cache"), tmp_path / "cache"


def test_size_axes_and_colours(tmp_path: Path) -> None:
    models, cache = convert(tmp_path, [entry("Box", "/box/box.obj", (60, 40, 30))])
    assert [m.name for m in models] == ["Box"]
    assert models[0].size_m == (0.6, 0.4, 0.3)
    (part,) = furniture.load_model(models[0], cache)
    low, high = part.vertices_n3.min(0), part.vertices_n3.max(0)
    np.testing.assert_allclose(low, [-0.3, -0.2, 0.0], atol=1e-6)
    np.testing.assert_allclose(high, [0.3, 0.2, 0.3], atol=1e-6)
    assert part.rgb_n3 is not None
    red = part.vertices_n3[(part.rgb_n3 == [255, 0, 0]).all(1)]
    assert len(red) == 3
    assert np.allclose(red[:, 1], 0.2), "the front of an object faces +y"
    assert (part.rgb_n3 == [51, 102, 153]).all(1).sum() == 8


def test_rotation_is_applied_before_scaling(tmp_path: Path) -> None:
    # Swaps x and z: the knob at the front comes to the side, at -x after the change of axes.
    turn = "0 0 1 0 1 0 -1 0 0"
    models, cache = convert(
        tmp_path, [entry("Box", "/box/box.obj", (60, 40, 30), modelRotation=turn)]
    )
    (part,) = furniture.load_model(models[0], cache)
    assert part.rgb_n3 is not None
    red = part.vertices_n3[(part.rgb_n3 == [255, 0, 0]).all(1)]
    assert np.allclose(red[:, 0], -0.3)


def test_texture_comes_along(tmp_path: Path) -> None:
    models, cache = convert(tmp_path, [entry("Box", "/sheet/sheet.obj", (60, 40, 30))])
    (part,) = furniture.load_model(models[0], cache)
    assert part.texture_hwc is not None
    assert part.texture_hwc.dtype == np.uint8
    assert (part.texture_hwc == [10, 200, 30]).all()
    assert part.uv_n2 is not None
    assert part.uv_n2.shape == (len(part.vertices_n3), 2)


def test_bad_entries_are_left_out_and_the_rest_stays(tmp_path: Path) -> None:
    (tmp_path / "outside.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\nf 3 2 1\n")
    models, _ = convert(
        tmp_path,
        [
            entry("Missing", "/no/such.obj", (50, 50, 50)),
            entry("Broken", "/broken/broken.obj", (50, 50, 50)),
            entry("Escape", "/../../../../../../../../" + str(tmp_path / "outside.obj"), (5, 5, 5)),
            entry("Wide", "/box/box.obj", ("a", 50, 50)),  # type: ignore[arg-type]
            entry("City bus", "/box/box.obj", (50, 50, 50)),
            entry("Chair", "/box/box.obj", (50, 50, 90)),
        ],
    )
    assert [m.name for m in models] == ["Chair"]
    assert models[0].placement == "seat"


def test_the_cache_is_used(tmp_path: Path) -> None:
    first, cache = convert(tmp_path, [entry("Chair", "/box/box.obj", (50, 50, 90))])
    library = tmp_path / "Scopia.sh3f"
    library.write_bytes(b"gone")  # a second conversion would fail
    assert furniture.load_catalogue([library], cache) == first


@pytest.mark.parametrize("content", [b"", b"no zip at all", b"PK\x03\x04broken"])
def test_a_file_that_is_no_library(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.sh3f"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"not a Sweet Home 3D furniture library"):
        furniture.convert_library(path, tmp_path / "out")


def test_no_library_names_the_cure(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sweethome3d-furniture"):
        furniture.find_libraries(tmp_path)


def test_properties_are_read() -> None:
    text = "id#2=b\nname#1=A chair \r\nname#2= Bill 10\\u20ac\nnonsense\nversion=3\n"
    entries = furniture.read_properties(text)
    assert [e["index"] for e in entries] == ["1", "2"]
    assert entries[0]["name"] == "A chair"
    assert entries[1]["name"] == "Bill 10€"


def test_licence_and_creator_are_recorded(tmp_path: Path) -> None:
    models, _ = convert(tmp_path, [entry("Chair", "/box/box.obj", (50, 50, 90))])
    assert models[0].licence == "CC-BY-3.0"
    assert models[0].creator == "A maker"
    assert models[0].source == "Scopia.sh3f"
