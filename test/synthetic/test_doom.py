"""Doom maps: reading a WAD the test writes, ray casting against a naive march, one real game."""

from __future__ import annotations

import math
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import InputError
from dense_perception.synthetic import doom, doom_depth, doom_map
from test.support.processes import is_running

NONE = 0xFFFF


def wad(path: Path, lumps: list[tuple[str, bytes]], magic: bytes = b"PWAD") -> Path:
    body, directory = b"", b""
    for name, data in lumps:
        directory += struct.pack("<ii8s", 12 + len(body), len(data), name.encode())
        body += data
    header = magic + struct.pack("<ii", len(lumps), 12 + len(body))
    path.write_bytes(header + body + directory)
    return path


def two_rooms(path: Path, middle: str = "-") -> Path:
    """Two rooms 256 units deep, joined by a 128-unit opening in a wall 16 units thick.

    West, x < 272 with the opening: floor 0, ceiling 128. East: floor 24, ceiling 96, a sky.
    """
    west, east = 0, 1
    xy = [(0, 0), (0, 256), (256, 256), (256, 192), (272, 192), (272, 64), (256, 64), (256, 0)]
    xy += [(272, 256), (512, 256), (512, 0), (272, 0)]
    # (start, end, sector on the right, on the left, action): rooms are walked clockwise.
    lines = [(k, (k + 1) % 8, west, east if k == 4 else None, int(k == 4)) for k in range(8)]
    lines += [(4, 8, east, None, 0), (8, 9, east, None, 0), (9, 10, east, None, 0)]
    lines += [(10, 11, east, None, 0), (11, 5, east, None, 0)]
    sides, defs = b"", b""
    count = 0
    for v1, v2, right, left, action in lines:
        numbers = []
        for sector in (right, left):
            if sector is None:
                numbers.append(NONE)
                continue
            wall = middle if left is not None else "STONE2"
            sides += struct.pack("<hh8s8s8sH", 0, 0, b"-", b"-", wall.encode(), sector)
            numbers.append(count)
            count += 1
        defs += struct.pack("<7H", v1, v2, 0, action, 0, *numbers)
    sectors = struct.pack("<hh8s8sHHH", 0, 128, b"NUKAGE1", b"CEIL1_1", 160, 0, 0)
    sectors += struct.pack("<hh8s8sHHH", 24, 96, b"FLOOR0_1", b"F_SKY1", 160, 0, 0)
    return wad(
        path,
        [
            ("MAP01", b""),
            ("THINGS", struct.pack("<hhHHH", 100, 110, 90, 1, 7)),
            ("LINEDEFS", defs),
            ("SIDEDEFS", sides),
            ("VERTEXES", b"".join(struct.pack("<hh", *p) for p in xy)),
            ("SECTORS", sectors),
        ],
    )


def test_reading_a_map(tmp_path: Path) -> None:
    path = two_rooms(tmp_path / "a.wad")
    assert doom_map.map_names(path) == ["MAP01"]
    level = doom_map.read_map(path, "MAP01")
    assert level.start_n2.shape == (13, 2)
    assert level.floor_s.tolist() == [0, 24]
    assert level.ceiling_s.tolist() == [128, 96]
    assert level.sky_s.tolist() == [False, True]
    assert level.liquid_s.tolist() == [True, False]
    assert np.flatnonzero(level.door_n).tolist() == [4]
    assert not level.grating_n.any()
    assert level.left_n.tolist() == [-1] * 4 + [1] + [-1] * 8
    assert level.things_t2.tolist() == [[100, 110]]


def naive_view(
    level: doom_map.DoomMap, eye: tuple[float, float, float], ray: np.ndarray
) -> tuple[float, str]:
    """Marches through the two rooms as solids."""
    depth = np.arange(0.05, 2000, 0.05)
    x, y, z = (np.array(eye) + depth[:, None] * ray).T
    side = (x >= 272).astype(int)
    below, above = z < level.floor_s[side], z > level.ceiling_s[side]
    outside = (x <= 0) | (x >= 512) | (y <= 0) | (y >= 256)
    enters = np.r_[False, side[1:] != side[:-1]]
    partition = (x > 256) & (x < 272) & ((y <= 64) | (y >= 192))
    k = int(np.argmax(below | above | outside | partition))
    if outside[k] or partition[k]:
        kind = "wall"
    elif below[k]:  # met head-on as the ray comes in: the front of a step
        kind = "step" if enters[k] else ("liquid", "floor")[side[k]]
    else:
        kind = "door" if enters[k] else ("ceiling", "sky")[side[k]]
    return float(depth[k]), kind


@pytest.mark.parametrize(
    ("x", "y", "angle"), [(60.0, 100.0, 0.1), (128.0, 200.0, -0.6), (400.0, 120.0, 2.8)]
)
def test_depth_and_classes_against_a_march(
    tmp_path: Path, x: float, y: float, angle: float
) -> None:
    level = doom_map.read_map(two_rooms(tmp_path / "a.wad"), "MAP01")
    camera = Intrinsics.from_fov(40, 30, 90)
    eye = (x, y, 65.0)
    depth_m, labels = doom_depth.cast(level, level.floor_s, level.ceiling_s, camera, eye, angle)
    forward = np.array([math.cos(angle), math.sin(angle), 0])
    right = np.array([math.sin(angle), -math.cos(angle), 0])
    mismatches = []
    for v in range(0, 30, 3):
        for u in range(0, 40, 3):
            ray = forward + right * (u - camera.cx) / camera.fx
            ray = ray - np.array([0, 0, (v - camera.cy) / camera.fy])
            depth, kind = naive_view(level, eye, ray)
            got = doom_depth.CLASSES[labels[v, u]]
            if got != kind:
                mismatches.append((v, u, got, kind))
                continue
            if kind == "sky":
                assert depth_m[v, u] == 0
            else:
                assert depth_m[v, u] == pytest.approx(depth / 32, abs=0.01)
    assert len(mismatches) <= 4, mismatches  # rays that graze an edge


def test_gratings_hide_what_is_behind(tmp_path: Path) -> None:
    level = doom_map.read_map(two_rooms(tmp_path / "a.wad", middle="MIDBARS"), "MAP01")
    assert np.flatnonzero(level.grating_n).tolist() == [4]
    camera = Intrinsics.from_fov(40, 30, 90)
    eye = (60.0, 128.0, 65.0)
    depth_m, _ = doom_depth.cast(level, level.floor_s, level.ceiling_s, camera, eye, 0.0)
    assert depth_m[15, 20] == 0, "not known: the bars or what is behind them"
    assert depth_m[15, 1] > 0


def test_moving_sectors_count(tmp_path: Path) -> None:
    level = doom_map.read_map(two_rooms(tmp_path / "a.wad"), "MAP01")
    camera = Intrinsics.from_fov(40, 30, 60)
    eye = (60.0, 128.0, 65.0)
    shut = np.array([128.0, 24.0])  # the east ceiling has come down: a closed door
    depth_m, labels = doom_depth.cast(level, level.floor_s, shut, camera, eye, 0.0)
    assert doom_depth.CLASSES[labels[14, 20]] == "door"
    assert depth_m[14, 20] == pytest.approx((272 - 60) / 32, rel=1e-5)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a Doom WAD"),
        (b"ZWAD" + bytes(20), "not a Doom WAD"),
        (b"IWAD" + struct.pack("<ii", 5, 12), "cut short"),
        (b"IWAD" + struct.pack("<ii", 1, 12) + struct.pack("<ii8s", 0, 999, b"X"), "cut short"),
    ],
)
def test_broken_wads(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "broken.wad"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message):
        doom_map.map_names(path)


def test_missing_and_inconsistent_maps(tmp_path: Path) -> None:
    path = two_rooms(tmp_path / "a.wad")
    with pytest.raises(InputError, match="no map E1M1; it has MAP01"):
        doom_map.read_map(path, "E1M1")
    lumps = doom_map.read_directory(path.read_bytes(), "a")
    data = path.read_bytes()
    parts = [(name, data[start : start + size]) for name, start, size in lumps]
    without = wad(tmp_path / "b.wad", [part for part in parts if part[0] != "SECTORS"])
    with pytest.raises(InputError, match="lacks SECTORS"):
        doom_map.read_map(without, "MAP01")
    few = [(n, d[:4] if n == "VERTEXES" else d) for n, d in parts]
    with pytest.raises(InputError, match="inconsistent"):
        doom_map.read_map(wad(tmp_path / "c.wad", few), "MAP01")
    few = [(n, d[:26] if n == "SECTORS" else d) for n, d in parts]
    with pytest.raises(InputError, match="sector it does not have"):
        doom_map.read_map(wad(tmp_path / "d.wad", few), "MAP01")


def test_pixels_become_square() -> None:
    screen = doom.screen_camera(90)
    assert screen.fx == pytest.approx(320)
    assert screen.fy == pytest.approx(384)
    camera, (width, height) = doom.square_pixels(screen, 320, 240)
    assert camera.fx == camera.fy
    # The crop's angles are those of the new image, in both directions.
    assert 320 / camera.fx == pytest.approx(width / screen.fx)
    assert 240 / camera.fy == pytest.approx(height / screen.fy)
    assert width <= 640
    assert height == pytest.approx(480)


def test_frames_of_a_real_game(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    generator = doom.DoomGenerator.prepare("val")
    first = generator.make_shard(3, 0, 2, 64, 48)
    again = generator.make_shard(3, 0, 2, 64, 48)
    assert len(first) == 2
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.depth_m, b.depth_m)
        np.testing.assert_array_equal(a.rgb_hwc, b.rgb_hwc)
        assert a.rgb_hwc.shape == (48, 64, 3)
        assert np.isfinite(a.depth_m).all()
        assert a.depth_m.min() >= 0
        assert ((a.depth_m == 0) == np.isin(a.labels_hw, (0, doom_depth.SKY))).mean() > 0.7
    assert not list(tmp_path.iterdir()), "the engine leaves nothing behind"
    assert not np.array_equal(first[0].rgb_hwc, first[1].rgb_hwc)
    assert set(doom._maps("val")).isdisjoint(doom._maps("train"))


def test_the_engine_ends_with_a_killed_parent(tmp_path: Path) -> None:
    script = (
        "import time\n"
        "from dense_perception.synthetic import doom\n"
        "wad, name = doom._maps('val')[0]\n"
        "with doom.Tour(doom.read_map(wad, name), wad):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        children = Path(f"/proc/{parent.pid}/task").glob("*/children")
        engines = [int(pid) for path in children for pid in path.read_text().split()]
        assert engines
    finally:
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 10
    while any(is_running(pid) for pid in engines):
        assert time.monotonic() < deadline, "the engine goes on"
        time.sleep(0.05)
