"""Targets of centres against loops over pixels."""

from __future__ import annotations

import math

import numpy as np

from dense_perception.data.centres import SMALLEST_PX, centre_targets


def test_heights_and_offsets_as_loops_count_them() -> None:
    ids_hw = np.zeros((24, 40), np.uint16)
    ids_hw[2:12, 3:15] = 7
    ids_hw[8:20, 10:30] = 300  # over a part of the first
    ids_hw[22:, :20] = 9  # class 0: counts nowhere
    ids_hw[0, 36:] = 4  # too small
    ids_hw[15:24, 33:] = 5  # stuff
    labels = {7: 2, 300: 3, 9: 0, 4: 2, 5: 1}
    assert (ids_hw == 4).sum() < SMALLEST_PX
    got = centre_targets(ids_hw, labels, stuff=(1,))
    assert got.shape == (24, 40, 3)
    assert got.dtype == np.float32
    centres = {}
    for number in (7, 300):
        places = [(r, c) for r in range(24) for c in range(40) if ids_hw[r, c] == number]
        row = sum(r for r, _ in places) / len(places)
        column = sum(c for _, c in places) / len(places)
        centres[number] = (row, column, min(max(0.12 * math.sqrt(len(places)), 2), 4))
    for r in range(24):
        for c in range(40):
            number = int(ids_hw[r, c])
            if number in centres:
                row, column, _ = centres[number]
                np.testing.assert_allclose(got[r, c, 1:], (row - r, column - c), atol=1e-5)
            else:
                assert np.isnan(got[r, c, 1:]).all()
            if number in (9, 4):
                assert np.isnan(got[r, c, 0])
                continue
            height = max(
                math.exp(-((r - row) ** 2 + (c - column) ** 2) / (2 * sigma**2))
                for row, column, sigma in centres.values()
            )
            # Beyond three standard deviations, at a height of .011, bumps are cut off.
            assert abs(float(got[r, c, 0]) - height) < 0.012, (r, c)


def test_a_frame_without_things_has_no_heights() -> None:
    got = centre_targets(np.zeros((4, 6), np.uint16), {})
    assert not got[..., 0].any()
    assert np.isnan(got[..., 1:]).all()
