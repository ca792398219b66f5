"""How frames are altered in training: a frozen dataclass with ranges."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def number(default: float, low: float, high: float, text: str) -> Any:
    """A dataclass field with its allowed range; ``text`` says what it is."""
    return field(default=default, metadata={"low": low, "high": high, "help": text})


@dataclass(frozen=True)
class AugmentConfig:
    """How a rendered frame is made to look like one from an unknown camera.

    ``*_p`` are probabilities, the others strengths; 0 turns each one off.
    """

    flip_p: float = number(0.5, 0, 1, "mirror left and right")
    zoom_min: float = number(0.65, 0.1, 1, "smallest crop, as a share of the largest that fits")
    zoom_p: float = number(0.75, 0, 1, "crop at all")
    aspect_low: float = number(1.15, 0.3, 4, "narrowest crop, width / height")
    aspect_high: float = number(1.95, 0.3, 4, "widest crop, width / height")
    roll_deg: float = number(10, 0, 45, "largest camera roll added, degrees")
    roll_p: float = number(0.3, 0, 1, "roll at all")
    exposure_stops: float = number(0.9, 0, 3, "stops either way of metered exposure")
    gamma: float = number(0.35, 0, 2, "log of the tone curve's exponent, either way")
    contrast: float = number(0.35, 0, 1, "contrast change about the mean, either way")
    white_balance: float = number(0.18, 0, 1, "log gain of red and blue, either way")
    saturation_p: float = number(0.7, 0, 1, "change the saturation, mostly down")
    gray_p: float = number(0.12, 0, 1, "remove all colour")
    hue_deg: float = number(12, 0, 180, "hue rotation, degrees either way")
    vignette_p: float = number(0.3, 0, 1, "darken the corners")
    light_field_p: float = number(0.35, 0, 1, "multiply by a smooth random illumination")
    texture_p: float = number(0.25, 0, 1, "filter with a random kernel, which alters textures")
    blur_p: float = number(0.45, 0, 1, "defocus or motion blur")
    low_resolution_p: float = number(0.2, 0, 1, "down and up again")
    sharpen_p: float = number(0.25, 0, 1, "unsharp mask, as camera pipelines apply")
    noise_p: float = number(0.6, 0, 1, "shot and read noise")
    jpeg_p: float = number(0.5, 0, 1, "JPEG artefacts")
    erase_p: float = number(0.3, 0, 1, "hide rectangles")
