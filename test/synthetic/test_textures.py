"""Drawn materials, colours, and the bank of photographs."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from dense_perception.core.errors import InputError
from dense_perception.synthetic import bank, textures
from test.synthetic.miniature import png


@pytest.mark.parametrize("name", sorted(textures.DRAWN))
def test_materials_have_the_asked_size(name: str) -> None:
    for seed in range(4):
        image = textures.DRAWN[name](np.random.default_rng(seed), 90, 130, 60.0)
        assert image.shape == (90, 130, 3)
        assert np.isfinite(image).all()
        assert -0.5 < image.min() <= image.max() < 2.0
        assert 0.02 < image.mean() < 1.1


def test_most_walls_are_pale() -> None:
    rng = np.random.default_rng(0)
    colours = np.array([textures.wall_colour(rng) for _ in range(500)])
    saturation = 1 - colours.min(1) / colours.max(1)
    assert np.median(saturation) < 0.12
    assert (saturation > 0.3).mean() < 0.12


def test_few_things_are_violet() -> None:
    rng = np.random.default_rng(0)
    hues = np.array([textures.hue(rng) for _ in range(2000)])
    assert ((hues >= 0) & (hues < 1)).all()
    assert ((hues > 0.7) & (hues < 0.95)).mean() < 0.05
    assert ((hues < 0.18) | (hues > 0.97)).mean() > 0.5
    objects = np.array([textures.object_colour(rng) for _ in range(2000)])
    assert (1 - objects.min(1) / objects.max(1) > 0.6).mean() < 0.1
    assert (objects.max(1) < 0.25).mean() > 0.08, "some things are nearly black"


@pytest.mark.parametrize(
    ("hue", "expected"), [(0, (1, 0, 0)), (1 / 3, (0, 1, 0)), (2 / 3, (0, 0, 1)), (1, (1, 0, 0))]
)
def test_hsv(hue: float, expected: tuple[int, int, int]) -> None:
    np.testing.assert_allclose(textures.hsv(hue, 1, 1), expected, atol=1e-6)
    np.testing.assert_allclose(textures.hsv(hue, 0, 0.5), (0.5, 0.5, 0.5), atol=1e-6)


def test_recolouring_keeps_structure_and_sets_the_mean() -> None:
    image = np.tile(np.linspace(0.3, 0.5, 64, dtype=np.float32)[:, None, None], (1, 64, 3))
    colour = np.array([0.6, 0.5, 0.4], np.float32)
    painted = textures.recolour(image, colour, 1.0)
    np.testing.assert_allclose(painted.mean((0, 1)), colour, atol=1e-3)
    np.testing.assert_allclose(painted[..., 0] / painted[..., 2], 1.5, atol=1e-3)
    assert painted[-1, 0, 0] / painted[0, 0, 0] == pytest.approx(5 / 3, rel=1e-3)
    flat = textures.recolour(image, colour, 0.0)
    assert np.ptp(flat[..., 0]) < 1e-6


def test_tiled_photographs_have_no_seams() -> None:
    ramp = np.linspace(0, 1, 40, dtype=np.float32)
    photo = np.stack(
        [np.tile(ramp, (40, 1)), np.tile(ramp[:, None], (1, 40)), np.ones((40, 40))], 2
    )
    image = textures.tile_photo(photo.astype(np.float32), 150, 170, 40, np.random.default_rng(1))
    assert image.shape == (150, 170, 3)
    assert np.abs(np.diff(image, axis=0)).max() < 0.05
    assert np.abs(np.diff(image, axis=1)).max() < 0.05


def test_noise_has_the_asked_grain() -> None:
    rng = np.random.default_rng(2)
    coarse, fine = textures.noise(rng, 64, 64, 32, 1), textures.noise(rng, 64, 64, 2, 1)
    assert coarse.std() == pytest.approx(1, rel=1e-3)
    assert np.abs(np.diff(coarse)).mean() < 0.25 * np.abs(np.diff(fine)).mean()


def test_held_out_is_a_fixed_fifth() -> None:
    held = [bank.held_out(f"asset {k}") for k in range(2000)]
    assert held == [bank.held_out(f"asset {k}") for k in range(2000)]
    assert 0.17 < np.mean(held) < 0.23


def write_wheels(folder: Path) -> list[Path]:
    """Wheels with the listed names, every picture of its own gray."""
    paths = []
    gray = 0
    for wheel in bank.WHEELS:
        name, version = wheel.requirement.split("==")
        path = folder / f"{name}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            stems = dict.fromkeys(stem for stems in wheel.roles.values() for stem in stems)
            for stem in stems:
                for copy in ("a", "b", "c", "d") if stem.endswith("*") else ("",):
                    gray += 1
                    file = wheel.folder + stem.replace("*", copy) + ".png"
                    archive.writestr(file, png((gray, gray, gray), 4))
            archive.writestr(wheel.folder + "wood_1_other.png", png((255, 0, 0), 4))
        paths.append(path)
    return paths


def test_splits_share_nothing(tmp_path: Path) -> None:
    wheels = write_wheels(tmp_path)
    rng = np.random.default_rng(0)

    def grays(split: str) -> set[int]:
        stock = bank.TextureBank(wheels, split)
        return {
            round(float(stock.pick(role, rng).mean()) * 255)
            for role in ("floor", "wall", "object")
            for _ in range(300)
        }

    train, val, everything = grays("train"), grays("val"), grays("all")
    empty_role = {128}  # mid-gray stands in where a split holds nothing of a role
    assert not (train - empty_role) & (val - empty_role)
    assert len(train) > 2 * len(val) > 0
    assert (train | val) - empty_role <= everything


def test_a_wheel_in_the_cache_is_not_downloaded(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "wheels").mkdir()
    expected = write_wheels(tmp_path / "wheels")
    monkeypatch.setattr(bank.subprocess, "run", lambda *a, **k: pytest.fail("called pip"))
    assert bank.fetch_wheels(tmp_path) == expected


def test_no_network_names_the_wheel_and_the_folder(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(bank, "WHEELS", (bank.Wheel("no-such-textures==1.0", "none", "", {}),))
    with pytest.raises(InputError, match=r"no-such-textures==1\.0.*wheels"):
        bank.fetch_wheels(tmp_path)
