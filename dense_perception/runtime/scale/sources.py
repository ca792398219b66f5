"""What the scale of depth may come from, by name."""

SCALE_SOURCES = ("none", "factor", "camera_height", "depth", "points", "scan")
MEASURED_SOURCES = ("depth", "points", "scan")
"""Sources that bring known depths with them."""
