"""Kinds of rooms: how large they are and what they hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Theme:
    """What a kind of room holds: weights of labels, how full it is, its size in metres."""

    weight: float
    side_m: tuple[float, float]
    stretch: tuple[float, float]
    along_wall: dict[str, float]
    tables: tuple[int, int]
    desk_share: float
    floor_items: tuple[int, int]
    surface_items: tuple[int, int]


THEMES: dict[str, Theme] = {
    "office": Theme(
        0.28, (2.8, 7.5), (1.0, 1.7), {"cabinet": 2, "shelf": 3, "sofa": 0.4, "appliance": 0.4,
        "picture": 0.3}, (2, 8), 0.75, (3, 10), (3, 11)),
    "living": Theme(
        0.2, (3.0, 6.5), (1.0, 1.6), {"sofa": 3, "cabinet": 2, "shelf": 2.5, "other_furniture": 0.7,
        "chair": 1, "appliance": 0.5}, (1, 4), 0.2, (4, 11), (2, 8)),
    "bedroom": Theme(
        0.13, (2.6, 4.8), (1.0, 1.5), {"bed": 3, "cabinet": 3, "shelf": 1, "textile": 0.5,
        "chair": 0.5}, (0, 3), 0.5, (3, 11), (2, 8)),
    "kitchen": Theme(
        0.12, (2.3, 5.0), (1.0, 1.7), {"cabinet": 3, "appliance": 4, "sanitary": 0.6, "shelf": 0.6},
        (0, 3), 0.2, (2, 7), (3, 10)),
    "bathroom": Theme(
        0.06, (1.9, 3.4), (1.0, 1.6), {"sanitary": 5, "appliance": 1, "cabinet": 1, "textile": 0.3},
        (0, 0), 0.0, (0, 4), (1, 4)),
    "corridor": Theme(
        0.09, (1.5, 2.8), (2.5, 5.5), {"cabinet": 1, "shelf": 1, "appliance": 0.5, "chair": 0.5},
        (0, 2), 0.5, (2, 9), (1, 5)),
    "hall": Theme(
        0.06, (6.0, 11.0), (1.0, 1.5), {"sofa": 1.5, "cabinet": 1, "shelf": 1, "chair": 1,
        "appliance": 0.4}, (4, 14), 0.5, (6, 22), (1, 7)),
    "storage": Theme(
        0.06, (2.2, 5.5), (1.0, 2.0), {"shelf": 5, "cabinet": 2, "appliance": 0.6, "textile": 0.2},
        (0, 2), 0.7, (6, 18), (3, 9)),
}  # fmt: skip
