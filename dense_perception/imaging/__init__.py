"""Pixels and points: NumPy and OpenCV."""
