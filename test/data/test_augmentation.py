"""Photometric augmentation: each part does what it says and keeps the image an image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import cv2
import numpy as np
import pytest

from dense_perception.data import augmentation, photometry
from dense_perception.data.augmentation import AugmentConfig

WIDTH, HEIGHT = 80, 60


def blur(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    sigma, kernel = augmentation.draw_blur(rng)
    return photometry.apply(photo, replace(NOTHING, defocus=sigma, motion=kernel))


# What is drawn, and what is done with it.
STEPS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "filter_texture": lambda photo, rng: photometry.filter_texture(
        photo, augmentation.draw_texture(rng)
    ),
    "light_field": lambda photo, rng: photometry.modulate(photo, augmentation.draw_light(rng)),
    "vignette": lambda photo, rng: photometry.modulate(photo, augmentation.draw_vignette(rng)),
    "blur": blur,
    "low_resolution": lambda photo, rng: photometry.low_resolution(
        photo, augmentation.draw_low_resolution(WIDTH, HEIGHT, rng)
    ),
    "sensor_noise": lambda photo, rng: photometry.sensor_noise(photo, augmentation.draw_noise(rng)),
    "sharpen": lambda photo, rng: photometry.sharpen(photo, augmentation.draw_sharpening(rng)),
    "jpeg": lambda photo, rng: photometry.jpeg(photo, int(rng.integers(25, 91))),
    "erase": lambda photo, rng: photometry.erase(
        photo, augmentation.draw_patches(WIDTH, HEIGHT, rng)
    ),
}
OFF = AugmentConfig(**{entry.name: 0 for entry in fields(AugmentConfig) if entry.name[-2:] == "_p"})
STILL = AugmentConfig(
    **{
        entry.name: 0
        for entry in fields(AugmentConfig)
        if entry.name not in ("zoom_min", "aspect_low", "aspect_high")
    }
)
NOTHING = augmentation.draw_appearance(STILL, WIDTH, HEIGHT, np.random.default_rng(0))


def augment(photo: np.ndarray, config: AugmentConfig, seed: int) -> np.ndarray:
    height, width = photo.shape[:2]
    rng = np.random.default_rng(seed)
    return photometry.apply(photo, augmentation.draw_appearance(config, width, height, rng))


@pytest.fixture
def photo() -> np.ndarray:
    noise = np.random.default_rng(5).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 20, 230, cv2.NORM_MINMAX)


@pytest.mark.parametrize("step", list(STEPS))
def test_every_step_changes_a_copy_and_keeps_the_type(step: str, photo: np.ndarray) -> None:
    before = photo.copy()
    changed = STEPS[step](photo, np.random.default_rng(1))
    np.testing.assert_array_equal(photo, before)
    assert changed.dtype == np.uint8
    assert changed.shape == photo.shape
    assert np.abs(changed.astype(int) - photo).max() > 0
    # Still the same picture, not noise.
    correlation = np.corrcoef(changed.ravel(), photo.ravel())[0, 1]
    assert correlation > 0.5


def test_the_same_seed_gives_the_same_picture(photo: np.ndarray) -> None:
    config = AugmentConfig()
    first = augment(photo, config, 7)
    again = augment(photo, config, 7)
    other = augment(photo, config, 8)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_all_strengths_zero_is_nearly_the_identity(photo: np.ndarray) -> None:
    got = augment(photo, STILL, 0).astype(int)
    dark = photo.max(axis=-1) < 200  # above, the highlights are compressed on purpose
    assert np.abs(got - photo)[dark].max() <= 1


def test_no_colour_means_equal_channels(photo: np.ndarray) -> None:
    matrix = augmentation.draw_colours(replace(OFF, gray_p=1.0), np.random.default_rng(0))
    gray = photometry.apply(photo, replace(NOTHING, colours=matrix))
    assert np.ptp(gray.astype(int), axis=-1).max() <= 1


def test_light_stays_smooth() -> None:
    flat = np.full((60, 80, 3), 100, np.uint8)
    for seed in range(10):
        lit = STEPS["light_field"](flat, np.random.default_rng(seed)).astype(int)
        assert np.abs(np.diff(lit, axis=0)).max() <= 20
        assert np.abs(np.diff(lit, axis=1)).max() <= 20
