"""Recordings to corpora: matched by stamp, undistorted, registered to the colour camera."""
