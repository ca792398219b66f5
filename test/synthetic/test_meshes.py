"""Merging and simplifying meshes of known shape."""

from __future__ import annotations

import numpy as np

from dense_perception.synthetic import meshes
from dense_perception.synthetic.meshes import Part


def grid(n: int, bump: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """An n x n sheet of quads over the unit square, bent by ``bump``."""
    x, y = np.meshgrid(np.linspace(0, 1, n + 1), np.linspace(0, 1, n + 1))
    z = bump * np.sin(np.pi * x) * np.sin(np.pi * y)
    vertices = np.stack([x.ravel(), y.ravel(), z.ravel()], 1)
    base = (np.arange(n)[:, None] * (n + 1) + np.arange(n)[None]).ravel()
    first = np.stack([base, base + 1, base + n + 2], 1)
    second = np.stack([base, base + n + 2, base + n + 1], 1)
    return vertices, np.concatenate([first, second])


def area(part: Part) -> float:
    a, b, c = (part.vertices_n3[part.faces_m3[:, k]] for k in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)


def test_simplifying_keeps_extent_and_area() -> None:
    vertices, faces = grid(60, bump=0.3)
    colours = np.tile(np.array([9, 8, 7], np.uint8), (len(vertices), 1))
    part = Part(vertices, faces, None, None, colours)
    (light,) = meshes.simplify([part], 1500)
    assert len(light.faces_m3) <= 1600 < len(faces)
    np.testing.assert_allclose(light.vertices_n3.min(0), vertices.min(0), atol=0.02)
    np.testing.assert_allclose(light.vertices_n3.max(0), vertices.max(0), atol=0.02)
    assert abs(area(light) / area(part) - 1) < meshes.AREA_CHANGE
    assert light.rgb_n3 is not None
    assert (light.rgb_n3 == [9, 8, 7]).all()
    assert light.faces_m3.max() < len(light.vertices_n3)


def test_texture_coordinates_follow_the_surface() -> None:
    vertices, faces = grid(50, bump=0.2)
    part = Part(vertices, faces, vertices[:, :2].copy(), np.zeros((8, 8, 3), np.uint8), None)
    (light,) = meshes.simplify([part], 800)
    assert light.uv_n2 is not None
    assert len(light.faces_m3) < len(faces)
    # Here texture coordinates equal x and y, before and (to an edge length) after.
    assert np.abs(light.uv_n2 - light.vertices_n3[:, :2]).max() < 0.1


def test_light_models_are_untouched() -> None:
    vertices, faces = grid(5)
    part = Part(vertices, faces, None, None, np.zeros((len(vertices), 3), np.uint8))
    assert meshes.simplify([part], 50)[0] is part


def test_plain_parts_become_one_mesh() -> None:
    red = np.tile(np.array([255, 0, 0], np.uint8), (4, 1))
    blue = np.tile(np.array([0, 0, 255], np.uint8), (6, 1))
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    doubled = square[[0, 1, 2, 3, 0, 2]] + np.array([0, 0, 1])  # two vertices come twice
    doubled_faces = np.array([[0, 1, 2], [4, 5, 3]])
    (merged,) = meshes.merge_plain(
        [Part(square, faces, None, None, red), Part(doubled, doubled_faces, None, None, blue)]
    )
    assert len(merged.vertices_n3) == 8
    assert merged.rgb_n3 is not None
    tops = merged.vertices_n3[:, 2] == 1
    assert (merged.rgb_n3[tops] == [0, 0, 255]).all()
    assert (merged.rgb_n3[~tops] == [255, 0, 0]).all()
    assert area(merged) == 2.0


def test_faces_without_area_go() -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [2, 0, 0]], float)
    faces = np.array([[0, 1, 2], [0, 1, 3], [0, 1, 4]])
    colours = np.zeros((5, 3), np.uint8)
    (part,) = meshes.to_room_axes([Part(vertices, faces, None, None, colours)], (1, 1, 1))
    assert len(part.faces_m3) == 2
