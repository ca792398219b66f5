"""How much an image from outside may claim, unless somebody allows more or less."""

MAX_PIXELS = 96_000_000
"""Larger images are refused by default, from what they claim: a few bytes can claim gigabytes."""

MAX_JPEG_SCANS = 200
"""A progressive picture has about ten scans; each one is decoded over the whole area."""

MAX_SCANNED_PIXELS = 1_200_000_000
"""Pixels times scans of a JPEG: a second of decoding, though the scans be empty."""

PROGRESSIVE_SHARE = 0.35
"""Of the allowed pixels, how many a progressive JPEG may have: it takes three times the memory."""
