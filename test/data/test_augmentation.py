"""Photometric augmentation: each part does what it says and keeps the image an image."""

from __future__ import annotations

from dataclasses import fields

import cv2
import numpy as np
import pytest

from dense_perception.data import augmentation
from dense_perception.data.augmentation import AugmentConfig

STEPS = [
    augmentation.filter_texture,
    augmentation.light_field,
    augmentation.vignette,
    augmentation.blur,
    augmentation.low_resolution,
    augmentation.sensor_noise,
    augmentation.sharpen,
    augmentation.jpeg,
    augmentation.erase,
]
OFF = AugmentConfig(**{entry.name: 0 for entry in fields(AugmentConfig) if entry.name[-2:] == "_p"})


@pytest.fixture
def photo() -> np.ndarray:
    noise = np.random.default_rng(5).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 20, 230, cv2.NORM_MINMAX)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_every_step_changes_a_copy_and_keeps_the_type(step, photo: np.ndarray) -> None:
    before = photo.copy()
    changed = step(photo, np.random.default_rng(1))
    np.testing.assert_array_equal(photo, before)
    assert changed.dtype == np.uint8
    assert changed.shape == photo.shape
    assert np.abs(changed.astype(int) - photo).max() > 0
    # Still the same picture, not noise.
    correlation = np.corrcoef(changed.ravel(), photo.ravel())[0, 1]
    assert correlation > 0.5


def test_the_same_seed_gives_the_same_picture(photo: np.ndarray) -> None:
    config = AugmentConfig()
    first = augmentation.augment(photo, config, np.random.default_rng(7))
    again = augmentation.augment(photo, config, np.random.default_rng(7))
    other = augmentation.augment(photo, config, np.random.default_rng(8))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_all_strengths_zero_is_nearly_the_identity(photo: np.ndarray) -> None:
    nothing = AugmentConfig(
        **{
            entry.name: 0
            for entry in fields(AugmentConfig)
            if entry.name not in ("zoom_min", "aspect_low", "aspect_high")
        }
    )
    got = augmentation.augment(photo, nothing, np.random.default_rng(0)).astype(int)
    dark = photo.max(axis=-1) < 200  # above, the highlights are compressed on purpose
    assert np.abs(got - photo)[dark].max() <= 1


def test_no_colour_means_equal_channels(photo: np.ndarray) -> None:
    from dataclasses import replace

    gray = augmentation.colour(photo, replace(OFF, gray_p=1.0), np.random.default_rng(0))
    assert np.ptp(gray.astype(int), axis=-1).max() <= 1


def test_light_stays_smooth() -> None:
    flat = np.full((60, 80, 3), 100, np.uint8)
    for seed in range(10):
        lit = augmentation.light_field(flat, np.random.default_rng(seed)).astype(int)
        assert np.abs(np.diff(lit, axis=0)).max() <= 20
        assert np.abs(np.diff(lit, axis=1)).max() <= 20
