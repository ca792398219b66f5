"""Average precision from matches against faster-coco-eval, for all pictures and for samples."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from dense_perception.core.boxes import areas, shared_areas
from dense_perception.metrics.average_precision import (
    SIZES,
    THRESHOLDS,
    Matches,
    Ranking,
    match,
    match_of_size,
    shares,
)
from dense_perception.metrics.detection import DetectionScores, FoundThings, TrueThing

CLASSES = ("chair", "table", "person")


@dataclass
class Picture:
    true_m4: np.ndarray
    label_m: np.ndarray
    crowd_m: np.ndarray
    found_n4: np.ndarray
    given_n: np.ndarray
    score_n: np.ndarray


def picture(
    generator: np.random.Generator, found: int = 14, true: int = 5, longest: int = 60
) -> Picture:
    low = generator.integers(0, 100, (true, 2))
    true_m4 = np.concatenate([low, low + generator.integers(10, longest, (true, 2))], axis=1)
    label_m = generator.integers(0, len(CLASSES), true)
    near = generator.integers(0, true, found)
    found_n4 = (true_m4[near] + generator.integers(-6, 7, (found, 4))).astype(np.float32)
    found_n4[:, 2:] = np.maximum(found_n4[:, 2:], found_n4[:, :2] + 1)
    wrong = generator.random(found) < 0.2
    given_n = np.where(wrong, generator.integers(0, len(CLASSES), found), label_m[near])
    score_n = np.sort(generator.random(found).astype(np.float32))[::-1]
    crowd_m = generator.random(true) < 0.15
    return Picture(true_m4.astype(np.float64), label_m, crowd_m, found_n4, given_n, score_n)


def by_library(pictures: Sequence[Picture]) -> DetectionScores:
    scores = DetectionScores(CLASSES)
    for each in pictures:
        rows = zip(each.true_m4.tolist(), each.label_m, each.crowd_m, strict=True)
        true = [TrueThing((a, b, c, d), int(k), bool(crowd)) for (a, b, c, d), k, crowd in rows]
        scores.add(200, 200, FoundThings(each.found_n4, each.score_n, each.given_n), true)
    return scores


def rankings(pictures: Sequence[Picture], units: Sequence[int]) -> list[Ranking]:
    found = []
    for label in range(len(CLASSES)):
        matches = []
        for each in pictures:
            rows, columns = each.given_n == label, each.label_m == label
            boxes, true, crowds = each.found_n4[rows], each.true_m4[columns], each.crowd_m[columns]
            overlaps = shares(shared_areas(boxes, true), areas(boxes), areas(true), crowds)
            matches.append(match(each.score_n[rows], overlaps, crowds))
        found.append(Ranking(matches, units, max(units) + 1))
    return found


def test_all_pictures_count_as_the_library_counts_them() -> None:
    generator = np.random.default_rng(5)
    pictures = [picture(generator) for _ in range(25)]
    expected = by_library(pictures).boxes()
    once = np.ones((1, 25))
    figures = [each.figures(once) for each in rankings(pictures, range(25))]
    precision_ct, recall_ct = (np.array([each[n][0] for each in figures]) for n in (0, 1))
    assert 0.1 < expected.ap < 0.9
    assert precision_ct.mean() == pytest.approx(expected.ap, abs=1e-12)
    assert precision_ct[:, 0].mean() == pytest.approx(expected.ap50, abs=1e-12)
    assert precision_ct[:, 5].mean() == pytest.approx(expected.ap75, abs=1e-12)
    assert recall_ct.mean() == pytest.approx(expected.recall, abs=1e-12)
    by_class = dict(zip(CLASSES, precision_ct.mean(axis=1), strict=True))
    assert by_class == pytest.approx(expected.by_class, abs=1e-12)


def test_things_of_each_size_count_as_the_library_counts_them() -> None:
    """True areas are of masks, so smaller than boxes; some are the very bounds of a size."""
    generator = np.random.default_rng(8)
    scores = DetectionScores(CLASSES)
    matches: dict[tuple[str, int], list[Matches]] = {}
    for _ in range(40):
        each = picture(generator, longest=150)
        area_m = np.round(areas(each.true_m4) * generator.uniform(0.5, 1, len(each.true_m4)))
        area_m[generator.random(len(area_m)) < 0.1] = 96.0**2
        if generator.random() < 0.5:  # a found thing on the bound, too
            each.found_n4[0, 2:] = each.found_n4[0, :2] + 32
        rows = zip(each.true_m4.tolist(), each.label_m, each.crowd_m, area_m, strict=True)
        true = [
            TrueThing((a, b, c, d), int(k), bool(crowd), area=float(area))
            for (a, b, c, d), k, crowd, area in rows
        ]
        scores.add(300, 300, FoundThings(each.found_n4, each.score_n, each.given_n), true)
        for label, size in itertools.product(range(len(CLASSES)), SIZES):
            found, wanted = each.given_n == label, each.label_m == label
            boxes, crowds = each.found_n4[found], each.crowd_m[wanted]
            shared = shared_areas(boxes, each.true_m4[wanted])
            overlaps = shares(shared, areas(boxes), areas(each.true_m4[wanted]), crowds)
            sides = areas(boxes), area_m[wanted]
            one = match_of_size(size, each.score_n[found], overlaps, crowds, *sides)
            matches.setdefault((size, label), []).extend([] if one is None else [one])
    expected = scores.boxes()
    for size in SIZES:
        once = np.ones((1, 1))
        of_class = [matches[size, label] for label in range(len(CLASSES))]
        got = [Ranking(some, [0] * len(some), 1).figures(once)[0].mean() for some in of_class]
        wanted = getattr(expected, f"ap_{size}")
        assert 0.1 < wanted < 0.9
        assert np.mean(got) == pytest.approx(wanted, abs=1e-12), size


def test_a_picture_of_weight_two_counts_as_two_pictures() -> None:
    generator = np.random.default_rng(6)
    pictures = [picture(generator) for _ in range(12)]
    units = [n // 3 for n in range(12)]
    weights = np.array([[2, 0, 1, 1], [0, 4, 0, 0], [1, 1, 0, 2], [0, 0, 0, 0]], np.float64)
    found = np.array([each.figures(weights)[0].mean(axis=1) for each in rankings(pictures, units)])
    for row, sample in enumerate(weights[:3]):
        drawn = [each for n, each in enumerate(pictures) for _ in range(int(sample[units[n]]))]
        expected = by_library(drawn).boxes()
        known = np.isfinite(found[:, row])
        assert found[known, row].mean() == pytest.approx(expected.ap, abs=1e-12)
        assert known.sum() == len(expected.by_class)
    assert np.isnan(found[:, 3]).all(), "nothing is to be found in no picture"


def test_what_lies_in_a_crowd_counts_neither_way() -> None:
    """Two things in a crowd, one beside it; the crowd itself is not to be found."""
    overlap_nm = np.array([[0.0, 0.97], [0.0, 0.72], [0.9, 0.0]])
    found = match(np.array([0.9, 0.8, 0.7]), overlap_nm, np.array([False, True]))
    assert found.true == 1
    names = [f"{least:.2f}" for least in THRESHOLDS]
    ignored = [{n for bit, n in enumerate(names) if mask >> bit & 1} for mask in found.ignored_n]
    assert ignored == [set(names), {"0.50", "0.55", "0.60", "0.65", "0.70"}, set()]
    assert found.hits_n.tolist() == [0, 0, 0b111111111]
    precision_rt, _ = Ranking([found], [0], 1).figures(np.ones((1, 1)))
    # At .50 nothing else counts, at .75 the second in the crowd is false, at .95 nothing is right.
    assert precision_rt[0, [0, 5, 9]].tolist() == [1.0, 0.5, 0.0]


def test_no_picture_and_nothing_found() -> None:
    assert np.isnan(Ranking([], [], 2).figures(np.ones((1, 2)))[0]).all()
    empty = Matches(3, np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64))
    ranking = Ranking([empty], [1], 2)
    precision_rt, recall_rt = ranking.figures(np.eye(2))
    assert np.isnan(precision_rt[0]).all()
    assert (precision_rt[1] == 0).all()
    assert (recall_rt[1] == 0).all()
    assert (ranking.true, ranking.right) == (3, 0)
