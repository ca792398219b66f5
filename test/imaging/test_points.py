"""Points against the pinhole equations, and PLY files read back by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import InputError
from dense_perception.imaging.points import organised_xyz, organised_xyzrgb, write_ply

CAMERA = Intrinsics(8, 6, 7.5, 9.25, 3.1, 2.6)


def random_depth() -> np.ndarray:
    depth = np.random.default_rng(0).uniform(0.5, 8, (6, 8)).astype(np.float32)
    depth[1, 2] = np.nan
    return depth


def test_points_project_back_to_their_pixels() -> None:
    depth = random_depth()
    xyz = organised_xyz(depth, CAMERA)
    assert xyz.shape == (6, 8, 3)
    assert xyz.dtype == np.float32
    for row in range(6):
        for column in range(8):
            point = xyz[row, column].astype(np.float64)
            if np.isnan(depth[row, column]):
                assert np.isnan(point).all()
                continue
            u, v, w = CAMERA.matrix() @ point
            assert u / w == pytest.approx(column, abs=1e-4)
            assert v / w == pytest.approx(row, abs=1e-4)
            assert point[2] == depth[row, column]


def test_packed_cloud_is_what_a_pointcloud2_holds() -> None:
    depth = random_depth()
    rgb = np.random.default_rng(1).integers(0, 256, (6, 8, 3), np.uint8)
    cloud = organised_xyzrgb(depth, CAMERA, rgb)
    raw = np.frombuffer(cloud.tobytes(), np.uint8).reshape(6, 8, 16)
    xyz = np.ascontiguousarray(raw[..., :12]).view("<f4")
    np.testing.assert_array_equal(xyz, organised_xyz(depth, CAMERA))
    assert np.array_equal(raw[..., 12], rgb[..., 2])
    assert np.array_equal(raw[..., 13], rgb[..., 1])
    assert np.array_equal(raw[..., 14], rgb[..., 0])
    assert not raw[..., 15].any()
    # Read as the float that the message declares, no colour is NaN.
    assert np.isfinite(np.ascontiguousarray(raw[..., 12:]).view("<f4")).all()


def test_colours_of_another_size_are_resized() -> None:
    rgb = np.full((60, 80, 3), (10, 20, 30), np.uint8)
    cloud = organised_xyzrgb(random_depth(), CAMERA, rgb)
    assert (cloud["rgb"] == (10 << 16 | 20 << 8 | 30)).all()


def test_cached_rays_do_not_mix_cameras() -> None:
    depth = np.ones((6, 8), np.float32)
    first = organised_xyz(depth, CAMERA)
    other = organised_xyz(depth, Intrinsics(8, 6, 15, 18.5, 3.1, 2.6))
    np.testing.assert_allclose(other[..., :2] * 2, first[..., :2], rtol=1e-6)
    assert np.array_equal(organised_xyz(depth, CAMERA), first)


def test_intrinsics_of_another_size() -> None:
    with pytest.raises(InputError, match=r"\(5, 8\).*8x6.*resized"):
        organised_xyz(np.ones((5, 8), np.float32), CAMERA)


def read_ply(path: Path) -> tuple[list[str], bytes]:
    header, _, body = path.read_bytes().partition(b"end_header\n")
    return header.decode().splitlines(), body


def test_ply_with_colours(tmp_path: Path) -> None:
    depth = random_depth()
    rgb = np.random.default_rng(1).integers(0, 256, (6, 8, 3), np.uint8)
    xyz = organised_xyz(depth, CAMERA)
    path = tmp_path / "cloud.ply"
    assert write_ply(path, xyz, rgb) == 47
    header, body = read_ply(path)
    assert header[:3] == ["ply", "format binary_little_endian 1.0", "element vertex 47"]
    assert [line.split()[-1] for line in header[3:]] == ["x", "y", "z", "red", "green", "blue"]
    rows = np.frombuffer(body, [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    valid = np.isfinite(depth)
    np.testing.assert_array_equal(rows["xyz"], xyz[valid])
    np.testing.assert_array_equal(rows["rgb"], rgb[valid])


def test_ply_without_colours_or_points(tmp_path: Path) -> None:
    path = tmp_path / "cloud.ply"
    assert write_ply(path, np.full((4, 4, 3), np.nan, np.float32)) == 0
    header, body = read_ply(path)
    assert "element vertex 0" in header
    assert body == b""


def test_ply_is_not_overwritten_silently(tmp_path: Path) -> None:
    path = tmp_path / "cloud.ply"
    path.write_text("precious")
    xyz = np.zeros((1, 3), np.float32)
    with pytest.raises(InputError, match="exists already"):
        write_ply(path, xyz)
    assert path.read_text() == "precious"
    assert write_ply(path, xyz, overwrite=True) == 1
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(InputError, match="colours"):
        write_ply(tmp_path / "other.ply", xyz, np.zeros((2, 3), np.uint8))
