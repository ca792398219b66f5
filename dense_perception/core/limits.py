"""How much an image from outside may claim, unless somebody allows more or less."""

MAX_PIXELS = 96_000_000
"""Larger images are refused by default, from what they claim: a few bytes can claim gigabytes."""

MAX_JPEG_SCANS = 200
"""A progressive picture has about ten scans; each one is decoded over the whole area."""

MAX_SCANNED_PIXELS = 1_200_000_000
"""Pixels times scans of a JPEG: a second of decoding, though the scans be empty."""

HELD_SHARE = {"progressive": 0.35, "animated": 0.2}
"""Of the allowed pixels, how many a picture may have that a decoder holds whole: a progressive JPEG
takes 9 bytes a pixel, an animated WebP 13."""
