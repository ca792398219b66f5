"""The frames that a report shows: worst, median and best of each contestant, answered again."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from dense_perception.core.boxes import areas, overlaps, shared_areas
from dense_perception.core.errors import DensePerceptionError
from dense_perception.core.labels import VOID, LabelSet, folded
from dense_perception.core.prediction import DepthMap, Instances
from dense_perception.evaluation.contestants import Answer, Entry
from dense_perception.evaluation.depth_answer import judged_metres, restored_depth
from dense_perception.evaluation.document import ShownFrame
from dense_perception.evaluation.figures import FrameScore, figure
from dense_perception.evaluation.judge import Judge
from dense_perception.evaluation.panels import (
    Panels,
    depth_panels,
    label_panels,
    normal_panels,
    thing_panels,
    write_panels,
)
from dense_perception.evaluation.parts import Opened, PartScores
from dense_perception.evaluation.run import Outcome, SourceData
from dense_perception.evaluation.thing_totals import ap50_of_frame
from dense_perception.evaluation.true_things import NAMELESS, TrueThings
from dense_perception.evaluation.truth import Part
from dense_perception.imaging.resize import restore_labels, restore_normals

Rank = Literal["worst", "median", "best"]
_FIGURES = {
    "depth": ("depth.metric.absrel", "depth.aligned.absrel"),
    "labels": ("labels.accuracy",),
    "normals": ("normals.mean_deg",),
    "things": ("boxes.ap50",),
}


@dataclass(frozen=True)
class _Place:
    """A frame of a part, with its value of the figure that ranks it."""

    value: float
    source: SourceData
    part: Part
    recording: str
    key: str
    stamp_ns: int


@dataclass(frozen=True)
class _Wanted:
    entry: Entry
    task: str
    rank: Rank
    figure: str
    place: _Place


def show_frames(outcome: Outcome, folder: Path) -> list[ShownFrame]:
    """Write the pictures of the frames to show below ``folder``, and say what they are.

    :raises OSError: if they cannot be written.
    """
    wanted = [
        each
        for entry in outcome.plan.entries
        if entry.kind != "baseline"
        for each in _ranked(outcome, entry)
    ]
    drawn: dict[int, ShownFrame] = {}
    opened = Opened()
    try:
        for source, part in dict.fromkeys((w.place.source, w.place.part) for w in wanted):
            here = {
                number: each
                for number, each in enumerate(wanted)
                if (each.place.source, each.place.part) == (source, part)
            }
            keys = {each.place.key for each in here.values()}
            for truth in opened.open(source.source, outcome.plan.truth).frames(part):
                if truth.key not in keys:
                    continue
                keys.remove(truth.key)
                judge = Judge(truth, source.protocol)
                for number, each in here.items():
                    if each.place.key == truth.key:
                        shown = _draw(each, judge, opened, folder, number)
                        if shown is not None:
                            drawn[number] = shown
                if not keys:
                    break
    finally:
        opened.close()
    return [drawn[number] for number in sorted(drawn)]


def _ranked(outcome: Outcome, entry: Entry) -> Iterator[_Wanted]:
    """Worst, median and best by the first figure of each task that the contestant has."""
    found: dict[str, list[_Place]] = {}
    paths = iter(outcome.files[entry.name])
    for source in outcome.plan.sources:
        for part in source.parts:
            for score in PartScores.read_scores(next(paths)):
                for name, value in _values(score).items():
                    place = _Place(value, source, part, score.recording, score.key, score.stamp_ns)
                    found.setdefault(name, []).append(place)
    for task, names in _FIGURES.items():
        ranking = next((name for name in names if name in found), None)
        if ranking is None:
            continue
        places = sorted(found[ranking], key=lambda place: place.value)
        if figure(ranking).better == "lower":
            places.reverse()
        ranks: dict[Rank, int] = {"worst": 0, "median": len(places) // 2, "best": len(places) - 1}
        for rank, index in ranks.items():
            if index in list(ranks.values())[: list(ranks).index(rank)]:
                continue  # fewer frames than ranks
            yield _Wanted(entry, task, rank, ranking, places[index])


def _values(score: FrameScore) -> dict[str, float]:
    """The figures that rank a frame."""
    names = [name for each in _FIGURES.values() for name in each]
    values = {name: score.values[name] for name in names if name in score.values}
    if score.confusion:
        right = sum(count for (true, given), count in score.confusion.items() if true == given)
        values["labels.accuracy"] = right / sum(score.confusion.values())
    if score.things is not None and math.isfinite(found := ap50_of_frame(score.things)):
        values["boxes.ap50"] = found
    return values


def _draw(
    wanted: _Wanted,
    judge: Judge,
    opened: Opened,
    folder: Path,
    number: int,
) -> ShownFrame | None:
    try:
        answer = opened.contestant(wanted.entry).answer(judge.truth)
    except DensePerceptionError:
        return None  # it was answered before: a worker of another machine can do what we cannot
    panels = None if answer is None else panels_of(wanted.task, judge, answer)
    if panels is None:
        return None
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", wanted.entry.name)
    paths = write_panels(panels, folder, f"{number:03d}-{name}-{wanted.task}-{wanted.rank}")
    return ShownFrame(
        contestant=wanted.entry.name,
        recording=wanted.place.recording,
        key=wanted.place.key,
        stamp_ns=wanted.place.stamp_ns,
        task=wanted.task,
        rank=wanted.rank,
        figure=wanted.figure,
        value=wanted.place.value,
        near_m=panels.near_m,
        far_m=panels.far_m,
        panels=paths,
    )


def panels_of(task: str, judge: Judge, answer: Answer) -> Panels | None:
    """Pictures of an answer to a task beside its truth; None where either has nothing on it."""
    truth = judge.truth
    rgb_hwc = truth.frame.rgb_hwc
    if task == "depth" and judge.true_m is not None and answer.depth is not None:
        return depth_panels(rgb_hwc, judge.true_m, metres(judge, answer.depth))
    if task == "labels" and truth.labels_hw is not None and answer.labels_hw is not None:
        given = restore_labels(answer.labels_hw, *truth.labels_hw.shape[::-1])
        names = answer.classes or truth.classes
        count = max(int(given.max()), int(truth.labels_hw[truth.labels_hw != VOID].max(initial=0)))
        labels = LabelSet("", names or tuple(f"class {k}" for k in range(count + 1)))
        return label_panels(
            rgb_hwc, truth.labels_hw.astype(np.uint8), given.astype(np.uint8), labels
        )
    if task == "things" and judge.things is not None and answer.instances is not None:
        return _thing_panels(judge, judge.things, answer.instances)
    true_hwc = judge.normals_hwc if task == "normals" else None
    if true_hwc is not None and answer.normals_hwc is not None:
        given = restore_normals(answer.normals_hwc, *true_hwc.shape[1::-1])
        return normal_panels(rgb_hwc, true_hwc, given)
    return None


def metres(judge: Judge, depth: DepthMap) -> np.ndarray:
    """Predicted depth as it was judged: (H, W) float32 metres at the truth's size."""
    assert judge.true_m is not None
    restored_hw = restored_depth(depth, *judge.true_m.shape)
    return judged_metres(restored_hw, depth.kind, judge.true_m, judge.protocol)


def _thing_panels(judge: Judge, true: TrueThings, found: Instances) -> Panels | None:
    truth = judge.truth
    labels = LabelSet("", truth.classes)
    named_m = (true.labels_k >= 0) & (true.labels_k < len(truth.classes))
    things = Instances(
        true.boxes_k4.astype(np.float32),
        np.ones(len(true), np.float32),
        np.where(named_m, true.labels_k, 0).astype(np.uint8),
        labels,
        true.rows_hw.astype(np.uint16),
    ).selected(named_m)
    given_n, true_m = (np.array(folded(each.names), object) for each in (found, things))
    overlap_nm = overlaps(found.boxes_n4, things.boxes_n4)
    near_nm = (overlap_nm >= 0.5) & (given_n[:, None] == true_m)
    counts_n = np.isin(given_n, folded(truth.classes))
    counts_n &= near_nm.any(axis=1) | ~_in_void(judge, found, given_n)
    # Whatever a model's scores are like, a right answer looks right.
    shown_n = counts_n & (np.cumsum(counts_n) <= max(1, len(things)))
    found, overlap_nm, near_nm = found.selected(shown_n), overlap_nm[shown_n], near_nm[shown_n]
    right_n, met_m = np.zeros(len(found), bool), np.zeros(len(things), bool)
    for row in range(len(found)):  # the best scores come first
        free = np.flatnonzero(near_nm[row] & ~met_m)
        if len(free):
            right_n[row] = met_m[free[np.argmax(overlap_nm[row, free])]] = True
    return thing_panels(truth.frame.rgb_hwc, things, found, right_n, met_m)


def _in_void(judge: Judge, found: Instances, given_n: np.ndarray) -> np.ndarray:
    """(n,) bool: whether half of a box or more is in what counts neither way for its class.

    :param given_n: the folded class name of each found thing.
    """
    names = folded(judge.truth.classes)
    classes = set(folded(found.labels.labels))
    every = judge.things_with_void(frozenset(k for k, name in enumerate(names) if name in classes))
    assert every is not None
    void_k4, labels_k = every.boxes_k4[every.void_k], every.labels_k[every.void_k]
    named_k = np.array([names[k] if 0 <= k < len(names) else "" for k in labels_k], object)
    is_inside_nk = shared_areas(found.boxes_n4, void_k4) >= 0.5 * areas(found.boxes_n4)[:, None]
    is_of_class_nk = (labels_k == NAMELESS) | (given_n[:, None] == named_k)
    return np.asarray((is_inside_nk & is_of_class_nk).any(axis=1))
