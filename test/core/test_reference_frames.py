"""Reference frames: the same bytes everywhere, and worth comparing on."""

from __future__ import annotations

import hashlib

import numpy as np

from dense_perception.core.reference_frames import reference_feeds
from test.support.artefacts import red_card


def test_same_bytes_everywhere() -> None:
    feeds = reference_feeds(red_card(), frames=3, seed=0)
    digest = hashlib.sha256(feeds["image"].tobytes()).hexdigest()
    assert digest[:16] == "b2512a8f61191f0b"
    np.testing.assert_allclose(feeds["focal_px"], [64.0, 38.4, 89.6], rtol=1e-6)


def test_shapes_and_contents() -> None:
    feeds = reference_feeds(red_card(height=50, width=70), frames=4, seed=1)
    assert feeds["image"].shape == (4, 50, 70, 3)
    assert feeds["image"].dtype == np.uint8
    assert feeds["focal_px"].shape == (4,)
    for frame_hwc in feeds["image"]:
        assert frame_hwc.std() > 20
    for frame_hwc in feeds["image"][:2].astype(int):
        steps = np.abs(np.diff(frame_hwc, axis=1)).max(-1)
        assert (steps <= 4).mean() > 0.8, "surfaces, not noise"
        assert (steps > 40).mean() > 0.01, "and edges"
    other = reference_feeds(red_card(height=50, width=70), frames=4, seed=2)
    assert not np.array_equal(feeds["image"], other["image"])
