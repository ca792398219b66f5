"""How much an image from outside may claim, unless somebody allows more or less."""

MAX_PIXELS = 120_000_000
"""Larger images are refused by default, from what they claim: a few bytes can claim gigabytes."""

MAX_JPEG_SCANS = 200
"""A progressive picture has about ten scans; each one is decoded over the whole area."""
