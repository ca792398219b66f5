"""Detectors: boxes, scores, classes and masks of things, with all that follows the heads inside."""
