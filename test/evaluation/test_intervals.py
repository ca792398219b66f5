"""Whether intervals hold what they promise, on data whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from dense_perception.evaluation.intervals import (
    ENOUGH_BLOCKS,
    Units,
    drawn_weights,
    interval,
    judged,
    student_quantile,
    units_of,
)

SECOND = 1_000_000_000


def stamps(count: int, apart_s: float) -> list[int]:
    return [SECOND + round(i * apart_s * SECOND) for i in range(count)]


# From a printed table of Student's t.
@pytest.mark.parametrize(
    ("freedom", "expected"), [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (29, 2.045)]
)
def test_students_quantiles(freedom: int, expected: float) -> None:
    assert student_quantile(0.975, freedom) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("units", [6, 12, 30])
def test_nineteen_of_twenty_intervals_hold_the_truth(units: int) -> None:
    rng = np.random.default_rng(units)
    weights = drawn_weights(units, 1000)
    hits = 0
    for _ in range(300):
        ends = interval(weights @ rng.normal(3, 1, units) / units, units)
        assert ends[0] is not None
        assert ends[1] is not None
        hits += ends[0] <= 3 <= ends[1]
    # Five standard deviations of 300 draws at 95 % are 6.3 %.
    assert hits / 300 == pytest.approx(0.95, abs=0.063)


def test_frames_of_few_recordings_are_no_independent_draws() -> None:
    """Eight recordings, each with an error of its own: drawing frames would be far too narrow."""
    rng = np.random.default_rng(0)
    weights = drawn_weights(8, 1000)
    recordings = np.repeat(range(8), 50)
    units = units_of([f"r{n}" for n in recordings], [0] * 400)
    assert units.kind == "recordings"
    frame_weights = drawn_weights(400, 300)
    by_recording = by_frame = 0
    for _ in range(120):
        values = rng.normal(0, 1, 8)[recordings] + rng.normal(0, 1, 400)
        means = np.bincount(units.of_frame, values) / 50
        low, high = interval(weights @ means / 8, 8)
        by_recording += low is not None and high is not None and low <= 0 <= high
        low, high = interval(frame_weights @ values / 400, 400)
        by_frame += low is not None and high is not None and low <= 0 <= high
    assert by_recording >= 0.88 * 120
    assert by_frame < 0.6 * 120


def test_too_few_units_have_no_interval() -> None:
    assert interval(np.ones(100), 2) == (None, None)
    assert interval(np.full(100, np.nan), 9) == (None, None)
    drawn = np.append(np.arange(1000.0), np.nan)
    assert interval(drawn, 1000) == pytest.approx((24.9, 974.1), abs=0.5)


def test_draws_are_whole_numbers_that_add_up_and_come_again() -> None:
    weights = drawn_weights(7, 50, seed=3)
    assert weights.sum(1).tolist() == [7] * 50
    np.testing.assert_array_equal(weights, drawn_weights(7, 50, seed=3))
    assert (weights != drawn_weights(7, 50, seed=4)).any()


@pytest.mark.parametrize(
    ("count", "apart_s", "blocks", "independent"),
    [
        (24, 0.1, 4, 0),  # one walk of two seconds
        (600, 0.1, 12, 12),  # a minute
        (30_000, 0.033, 40, 40),
        (24, 3.0, 6, 6),  # few frames far apart: four to a block
        (3, 10.0, 1, 0),
        (400, 0.0, 40, 40),  # nobody knows the time: frames stand in for it
    ],
)
def test_blocks_of_one_recording(count: int, apart_s: float, blocks: int, independent: int) -> None:
    times = stamps(count, apart_s) if apart_s else [0] * count
    units = units_of(["walk"] * count, times)
    assert len(units.names) == blocks
    assert units.independent == independent
    assert units.kind == ("blocks" if blocks >= 3 else "none")
    assert np.diff(units.of_frame).min(initial=0) >= 0
    assert sorted(set(units.of_frame.tolist())) == list(range(blocks))
    sizes = np.bincount(units.of_frame)
    assert sizes.max() - sizes.min() <= 1
    assert "only" in units.speaks_for


def test_many_recordings_are_drawn_in_groups() -> None:
    units = units_of([f"{n:05}" for n in range(5000)], [0] * 5000)
    assert units.kind == "recordings"
    assert len(units.names) == 200
    assert np.bincount(units.of_frame).tolist() == [25] * 200
    assert units.speaks_for == "other recordings like these 5000"


def judge(ahead: list[float], units: Units, figure: float = 1.0) -> tuple[bool, str]:
    """One with that figure everywhere against one that is ``ahead`` in each unit."""
    first, second = figure + np.array(ahead), np.full(len(ahead), figure)
    drawn = drawn_weights(len(ahead), 2000) @ (first - second) / len(ahead)
    return judged(*interval(drawn, len(ahead)), first, second, units)


def blocks(count: int, independent: int) -> Units:
    return Units("blocks", np.arange(count), tuple(map(str, range(count))), independent, 1)


def recordings(count: int) -> Units:
    return Units("recordings", np.arange(count), tuple(map(str, range(count))), count, count)


def test_a_difference_is_certain_over_recordings_or_enough_time() -> None:
    clear = [0.1, 0.12, 0.02, 0.09, 0.11, 0.13, 0.05, 0.08, 0.1, 0.12]
    assert judge(clear, recordings(10)) == (True, judge(clear, recordings(10))[1])
    assert judge(clear, blocks(10, ENOUGH_BLOCKS))[1].startswith("certain for this recording only")
    certain, why = judge(clear, blocks(10, 2))
    assert not certain
    assert "10 blocks of 5 s would be needed, or better 5 recordings" in why


def test_a_difference_is_not_certain_where_it_is_not() -> None:
    certain, why = judge([0.1, -0.1, 0.2, -0.2, 0.1, -0.1], recordings(6))
    assert not certain
    assert why == "not certain: the interval includes 0"
    assert judge([0.1, 0.2], blocks(2, 0))[1] == "not certain: 2 blocks of time are too few to tell"
    assert judge([0.1], blocks(1, 0))[1] == "not certain: 1 block of time is too few to tell"
    assert judge([0.0] * 6, recordings(6)) == (
        False,
        "no difference: every part of the data gives the same figure",
    )


def test_a_short_walk_convinces_only_where_every_block_is_overwhelming() -> None:
    clear = [0.1, 0.08, 0.09, 0.1]
    assert not judge(clear, blocks(4, 0))[0]
    certain, why = judge(clear, blocks(4, 0), figure=0.15)
    assert certain
    assert "for this recording only" in why
    assert why.endswith("leaves out 0, and it is half or more in each")
    assert judge([-each for each in clear], blocks(4, 0), figure=0.2)[0]
    assert not judge([0.1, 0.02, 0.09, 0.1], blocks(4, 0), figure=0.15)[0]
    assert not judge(clear[:3], blocks(3, 0), figure=0.15)[0]
