"""Names to classes and placements."""

from __future__ import annotations

import pytest

from dense_perception.synthetic.taxonomy import CLASSES, PLACEMENTS, classify


@pytest.mark.parametrize(
    ("name", "size", "elevation", "label", "placement"),
    [
        ("Oak table", (1.24, 1.24, 0.74), 0.0, "table", "table"),
        ("Table fan", (0.27, 0.21, 0.40), 0.0, "small_object", "small"),
        ("Corner sofa", (2.3, 1.4, 0.8), 0.0, "sofa", "along_wall"),
        ("Osaka chair", (0.47, 0.52, 0.77), 0.0, "chair", "seat"),
        ("Double-hung window", (0.55, 0.16, 1.28), 0.93, "window", "window"),
        ("Exterior door", (1.0, 0.18, 2.08), 0.0, "door", "door"),
        ("Glass door cabinet", (0.6, 0.41, 0.72), 1.45, "cabinet", "wall"),
        ("Desk lamp", (0.24, 0.24, 0.4), 0.0, "lamp", "small"),
        ("Coffee cup", (0.1, 0.1, 0.05), 0.0, "small_object", "small"),
        ("Hot dog", (0.21, 0.07, 0.06), 0.0, "small_object", "small"),
        ("Dog", (0.35, 0.83, 0.75), 0.0, "animal", "free"),
        ("Oriental rug", (1.85, 2.57, 0.02), 0.0, "rug", "rug"),
        ("Ceiling lamp", (0.3, 0.3, 0.05), 2.4, "lamp", "ceiling"),
        ("Bookcase", (0.9, 0.36, 1.47), 0.0, "shelf", "along_wall"),
        ("Male", (0.6, 0.4, 1.86), 0.0, "person", "free"),
    ],
)
def test_known_names(
    name: str, size: tuple[float, float, float], elevation: float, label: str, placement: str
) -> None:
    kind = classify(name, "Living room", size, elevation)
    assert kind is not None
    assert (kind.label, kind.placement) == (label, placement)
    assert kind.label in CLASSES
    assert kind.placement in PLACEMENTS


@pytest.mark.parametrize(
    ("name", "category", "size"),
    [
        ("Truck", "Vehicles", (2.8, 21.0, 4.0)),
        ("Concept Sedan 01", "Vehicles", (1.8, 4.5, 1.5)),
        ("Palm tree", "Exterior", (3.4, 3.1, 11.5)),
        ("Escalator", "Staircases", (1.2, 8.8, 4.2)),
        ("Ring", "Bedroom", (0.02, 0.02, 0.004)),
    ],
)
def test_what_has_no_place_in_a_room(
    name: str, category: str, size: tuple[float, float, float]
) -> None:
    assert classify(name, category, size, 0.0) is None


def test_tops_that_carry_things() -> None:
    table = classify("Table", "Living room", (1.4, 0.9, 0.75), 0.0)
    wardrobe = classify("Wardrobe", "Bedroom", (1.0, 0.6, 2.1), 0.0)
    assert table is not None
    assert wardrobe is not None
    assert table.is_surface
    assert not wardrobe.is_surface


def test_void_is_zero() -> None:
    assert CLASSES[0] == "void"
    assert len(set(CLASSES)) == len(CLASSES) < 256
