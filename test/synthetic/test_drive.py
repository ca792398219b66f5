"""The robot keeps clear of what stands in its way, and its recording is registered right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dense_perception.cli import main
from dense_perception.core.errors import BackendError, InputError
from dense_perception.data.corpus import Corpus
from dense_perception.imaging.encode import encode_jpeg
from dense_perception.imaging.points import organised_xyz
from dense_perception.imaging.transforms import Transform
from dense_perception.synthetic import drive, surfaces
from dense_perception.synthetic.drive import Robot, drive_room, measured_mm, plan_drive
from dense_perception.synthetic.furnish import draw_room
from dense_perception.synthetic.kept_rooms import Moment
from dense_perception.synthetic.renderer import load_mujoco
from dense_perception.synthetic.rooms import RoomGenerator
from dense_perception.synthetic.scene import Primitive, Scene
from dense_perception.synthetic.shell import draw_shell
from test.synthetic.miniature import FlatBank, fake_stock


def test_a_drive_keeps_clear_and_gets_somewhere() -> None:
    found = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        scene = draw_room(rng, fake_stock(), ["office", "hall"])
        assert scene.theme in ("office", "hall")
        places = plan_drive(rng, scene, 60, 0.4)
        if not places:
            continue
        found += 1
        way = np.array([place.translation[:2] for place in places])
        steps = np.linalg.norm(np.diff(way, axis=0), axis=1)
        assert steps.max() < 0.13
        assert np.ptp(way, axis=0).max() > 0.5
        assert (way > 0.2).all()
        assert (way < np.array(scene.size[:2]) - 0.2).all()
        for box in scene.occupied:
            if box.solid and box.z0 < 0.4:
                inside = (way > (box.x0, box.y0)) & (way < (box.x1, box.y1))
                assert not inside.all(1).any()
    assert found > 3


def test_the_depth_camera_has_a_range_and_noise() -> None:
    rng = np.random.default_rng(0)
    near, far = measured_mm(np.full((50, 50), 1.0), rng), measured_mm(np.full((50, 50), 4.0), rng)
    assert near.dtype == np.uint16
    assert near.mean() == pytest.approx(1000, abs=0.3)
    assert near.std() == pytest.approx(2, rel=0.1)
    assert far.std() == pytest.approx(32, rel=0.1)
    assert not measured_mm(np.array([[0.1, 9.0, np.inf]]), rng).any()


@pytest.mark.parametrize(
    "wrong", [{"hfov_deg": 170}, {"camera_m": 0.0}, {"pitch_deg": float("nan")}]
)
def test_a_robot_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected"):
        Robot(**wrong)  # type: ignore[arg-type]


def plain_room(rng: np.random.Generator, stock: object, kinds: object = ()) -> Scene:
    """A bare room with a box in it, which needs no furniture to be installed."""
    scene = draw_shell(rng, "hall")
    place = (scene.size[0] / 2, scene.size[1] / 2, 0.3)
    scene.primitives.append(Primitive("box", (0.3, 0.3, 0.3), place, 0.0, (0.7, 0.1, 0.1), "box"))
    return scene


def test_what_is_recorded_comes_out_of_extract_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The floor of the registered depth is level, at the camera's height below it."""
    try:
        load_mujoco()
    except BackendError as error:
        pytest.skip(f"nothing can be rendered on this machine: {error}")
    finish = surfaces.finish
    monkeypatch.setattr(drive, "draw_room", plain_room)
    monkeypatch.setattr(drive, "load_stock", lambda *_: fake_stock())
    monkeypatch.setattr(surfaces, "finish", lambda rng, scene, _: finish(rng, scene, FlatBank()))
    generator = RoomGenerator(tmp_path / "cache", (), "val")
    monkeypatch.setattr(RoomGenerator, "prepare", lambda *_: generator)
    words = ["data", "synthesize", "drive", "--out", str(tmp_path / "bag"), "--frames", "6"]
    words += ["--size", "96x72", "--camera-height", "0.5", "--pitch", "-20", "--seed", "4"]
    try:
        assert main([*words, "--rooms", "hall", "--workers", "1"]) == 0
    except BackendError as error:
        pytest.skip(f"no OpenGL library on this machine: {error}")
    assert main([*words]) == 2
    assert "exists" in capsys.readouterr().err
    assert main([*words[:4], str(tmp_path / "no"), "--rooms", "castle"]) == 2
    assert "castle" in capsys.readouterr().err
    extract = ["extract", str(tmp_path / "bag"), "--out", str(tmp_path / "c"), "--still", "0"]
    assert main([*extract, "--world", "map", "--workers", "1"]) == 0
    corpus = Corpus(tmp_path / "c")
    assert len(corpus) == 6
    for index in range(6):
        sample = corpus[index]
        assert sample.camera_7 is not None
        assert sample.camera_7[2] == pytest.approx(0.5, abs=1e-6)
        known = sample.depth_m > 0
        assert known.mean() > 0.6, "but for what is beyond the range"
        points = organised_xyz(sample.depth_m, sample.intrinsics)[known]
        down = np.array([0, np.cos(np.radians(20)), np.sin(np.radians(20))])
        below = points @ down
        on_floor = np.abs(below - 0.5) < 0.03
        assert on_floor.mean() > 0.2, "registered depth shows the floor where it is"
        assert np.median(below[on_floor]) == pytest.approx(0.5, abs=0.005)
        assert (below < 0.56).mean() > 0.99, "nothing lies under the floor"


def test_a_drive_is_a_function_of_its_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive, "draw_room", plain_room)
    monkeypatch.setattr(drive, "load_stock", lambda *_: fake_stock())
    generator, robot = RoomGenerator(tmp_path / "cache", (), "val"), Robot(64, 48, depth="aligned")
    try:
        first, again = (drive_room(generator, robot, 2, (3, 1)) for _ in range(2))
    except BackendError as error:
        pytest.skip(f"nothing can be rendered on this machine: {error}")
    for one, other in zip(first, again, strict=True):
        assert one.jpeg == other.jpeg
        np.testing.assert_array_equal(one.depth_mm, other.depth_mm)


def test_a_drive_that_is_stopped_goes_on_with_its_rooms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bag is that of a drive that was never stopped; other settings do not mix into it."""
    driven: list[int] = []
    stop_at: list[int] = [1]

    def room(_: object, robot: Robot, frames: int, seed: tuple[int, int], kinds: object) -> object:
        if seed[1] in stop_at:
            raise KeyboardInterrupt
        driven.append(seed[1])
        rng = np.random.default_rng(seed)
        pictures = rng.integers(0, 256, (frames, 8, 12, 3)).astype(np.uint8)
        depth_mm = rng.integers(0, 1 << 16, (frames, 8, 12)).astype(np.uint16)
        places = [Transform(np.eye(3), rng.normal(size=3)) for _ in range(frames)]
        return [
            Moment(place, encode_jpeg(picture, 90), depth)
            for place, picture, depth in zip(places, pictures, depth_mm, strict=True)
        ]

    monkeypatch.setattr(drive, "drive_room", room)
    generator, robot = RoomGenerator(tmp_path / "cache", (), "val"), Robot(12, 8, depth="aligned")
    out, whole = tmp_path / "a" / "bag", tmp_path / "b" / "bag"
    with pytest.raises(KeyboardInterrupt):
        drive.record_drive(generator, robot, out, 60, 3)
    assert not out.exists()
    assert (driven, stop_at.pop()) == ([0], 1)
    with pytest.raises(InputError, match=r"other settings \(seed\)"):
        drive.record_drive(generator, robot, out, 60, 4)
    drive.record_drive(generator, robot, out, 60, 3)
    assert driven == [0, 1, 2]
    assert [path.name for path in out.parent.iterdir()] == ["bag"]
    drive.record_drive(generator, robot, whole, 60, 3)
    assert (out / "bag.mcap").read_bytes() == (whole / "bag.mcap").read_bytes()
