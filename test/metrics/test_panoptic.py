"""Panoptic quality against a case done by hand and against sets of pixels."""

from __future__ import annotations

import numpy as np
import pytest

from dense_perception.core.errors import InputError
from dense_perception.metrics.panoptic import PanopticQuality, Segments


def painted(*rows: str) -> np.ndarray:
    """Ids as digits, 0 as a dot."""
    return np.array([[0 if c == "." else int(c) for c in row] for row in rows])


def test_a_case_by_hand() -> None:
    """Class 0 is a thing, 1 is stuff, 2 occurs nowhere."""
    true = Segments(painted("11112222", "11112222", "3333..44"), {1: 0, 2: 0, 3: 1, 4: 0})
    found = Segments(painted("55566666", "555.6666", "7777..88"), {5: 0, 6: 0, 7: 1, 8: 1})
    quality = PanopticQuality(3)
    quality.add(found, true)
    # 5 covers 6 of the 8 pixels of 1 (one more is said to be 6, one nothing): 6 / 8.
    # 6 covers all 8 of 2 and one of 1: 8 / 9. 7 is 3. 8 is of another class than 4.
    assert quality.found.tolist() == [2, 1, 0]
    assert quality.missed.tolist() == [1, 0, 0]
    assert quality.false.tolist() == [0, 1, 0]
    figures = quality.by_class()
    assert figures[0] == pytest.approx([(6 / 8 + 8 / 9) / 2.5, (6 / 8 + 8 / 9) / 2, 2 / 2.5])
    assert figures[1] == pytest.approx([1 / 1.5, 1, 1 / 1.5])
    assert np.isnan(figures[2]).all()
    mean = quality.mean()
    assert mean.pq == pytest.approx(figures[:2, 0].mean())
    assert mean.classes == 2
    assert quality.mean([1]).rq == pytest.approx(1 / 1.5)
    assert np.isnan(quality.mean([2]).pq)


def test_void_and_crowds_excuse_what_is_found_there() -> None:
    true = Segments(painted("......1111", "2222223333"), {1: 0, 2: 0, 3: 1}, frozenset([2]))
    found = Segments(painted("44444.....", "5555556677"), {4: 0, 5: 0, 6: 0, 7: 1})
    quality = PanopticQuality(2)
    quality.add(found, true)
    # 4 lies in void, 5 in a crowd of its class; 6 in a thing of another class; 7 is half of 3.
    assert quality.false.tolist() == [1, 1]
    assert quality.missed.tolist() == [1, 1], "the crowd itself is not missed"
    assert quality.found.tolist() == [0, 0]


def naive(quality: list[list[float]], found: Segments, true: Segments) -> None:
    """Adds overlap, hits, misses and false alarms by class, with sets of pixels."""

    def pixels(segments: Segments, number: int) -> set[tuple[int, ...]]:
        return {tuple(place) for place in np.argwhere(segments.ids_hw == number).tolist()}

    void = pixels(true, 0)
    ours = {n: pixels(found, n) for n in found.classes}
    theirs = {n: pixels(true, n) for n in true.classes}
    hit_true, hit_found = set(), set()
    for a, first in ours.items():
        for b, second in theirs.items():
            same = found.classes[a] == true.classes[b] and b not in true.crowds
            if same and first and len(first & second) / len((first - void) | second) > 0.5:
                row = quality[true.classes[b]]
                row[0] += len(first & second) / len((first - void) | second)
                row[1] += 1
                hit_true.add(b)
                hit_found.add(a)
    for b, label in true.classes.items():
        quality[label][2] += b not in hit_true and b not in true.crowds
    for a, first in ours.items():
        label = found.classes[a]
        crowds = [theirs[b] for b in true.crowds if true.classes[b] == label]
        excused = first & (void | (crowds[0] if crowds else set()))
        quality[label][3] += bool(first) and a not in hit_found and len(excused) / len(first) <= 0.5


def test_generated_pictures_count_as_sets_of_pixels_do() -> None:
    generator = np.random.default_rng(5)
    quality, want = PanopticQuality(3), [[0.0] * 4 for _ in range(3)]
    for _ in range(12):
        ids_hw = generator.integers(0, 7, (4, 5)).repeat(4, axis=0).repeat(4, axis=1)
        noisy_hw = np.roll(ids_hw, generator.integers(0, 3, 2), (0, 1)) * 11
        noisy_hw[generator.random(ids_hw.shape) < 0.1] = 0
        true = Segments(ids_hw, {n: n % 3 for n in range(1, 7)}, frozenset([5]))
        found = Segments(noisy_hw, {11 * n: (n + (n == 4)) % 3 for n in range(1, 7)})
        quality.add(found, true)
        naive(want, found, true)
    got = np.stack([quality.overlap, quality.found, quality.missed, quality.false], axis=1)
    np.testing.assert_allclose(got, want, atol=1e-9)
    assert (got > 0).sum() > 9, "the case would show nothing"


def test_what_does_not_fit_is_named() -> None:
    quality = PanopticQuality(2)
    one = Segments(painted("11"), {1: 0})
    with pytest.raises(InputError, match=r"shape \(1, 2\), the truth \(1, 3\)"):
        quality.add(one, Segments(painted("111"), {1: 0}))
    with pytest.raises(InputError, match=r"found segments \[7\] have no class"):
        quality.add(Segments(painted("17"), {1: 0}), one)
    with pytest.raises(InputError, match=r"true segments have the classes \[2\], expected 0 to 1"):
        quality.add(one, Segments(painted("11"), {1: 2}))
