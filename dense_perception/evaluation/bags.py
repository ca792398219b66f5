"""A perceiver against the depth recorded in a bag."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from tqdm import tqdm

from dense_perception.core.camera import (
    CameraInfoMessage,
    Frame,
    Intrinsics,
    calibration_doubt,
    intrinsics_from_info,
)
from dense_perception.core.errors import BackendError, InputError
from dense_perception.core.prediction import DepthKind
from dense_perception.data.doubts import (
    depth_ratio,
    median_depth_m,
    scale_doubt,
    unit_doubts,
    view_doubt,
)
from dense_perception.data.extraction.matching import Match, Matcher
from dense_perception.evaluation.depth_answer import restored_depth
from dense_perception.imaging.messages import (
    ImageMessage,
    ImageReader,
    message_depth_m,
    takes_projection,
)
from dense_perception.media.bag_images import (
    calibration_topic,
    choose_topic,
    why_unmatched,
)
from dense_perception.media.bag_reader import BagReader
from dense_perception.media.problems import Problems
from dense_perception.metrics.depth import average, evaluate
from dense_perception.runtime.perceiver import Perceiver

# Focal lengths of colour and depth further apart than this: the depth is of another view.
_SAME_VIEW = 0.03
_PRIOR_SIDE = 160
DEFAULT_MAX_M = 20.0
"""Truth beyond this is left out where nobody says otherwise, metres."""


@dataclass(frozen=True)
class Pair:
    """A colour frame and its recorded depth: HxW float32 metres, NaN where there is none."""

    frame: Frame
    true_m: np.ndarray


@dataclass
class BagReport:
    """Metrics by frame, their means, and what could not be compared.

    ``row_prior`` are the same metrics for knowing the pixel row alone: the mean inverse depth of
    each row over this very bag, scale and shift fitted to each frame. What a model has to beat.
    """

    topic: str
    depth_topic: str
    frames: list[dict[str, float]] = field(default_factory=list)
    row_prior: list[dict[str, float]] = field(default_factory=list)
    stamps_ns: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unmatched: int = 0
    intrinsics_assumed: int = 0

    def means(self) -> dict[str, float]:
        return average(self.frames)

    def row_prior_means(self) -> dict[str, float]:
        """Aligned metrics only: the prior knows no metres."""
        means = average(self.row_prior)
        return {name: value for name, value in means.items() if name.startswith("aligned_")}


class Truth(Protocol):
    """Pairs to compare a model with, and what is known of those that could not be given.

    ``total`` is how many there are at most; None where nobody knows.
    """

    topic: str
    depth_topic: str
    unmatched: int
    total: int | None

    @property
    def problems(self) -> list[str]: ...

    def __iter__(self) -> Iterator[Pair]: ...

    def why_none(self) -> str:
        """Why no pair could be compared, where ``problems`` do not say."""


class PairSource:
    """Colour and depth of a bag, matched by their headers' stamps.

    ``matrix`` says which matrix of the calibration describes the colour images.

    :raises InputError: if the bag cannot be read or its topics are not clear; the message lists
        them.
    """

    def __init__(
        self,
        path: Path,
        *,
        topic: str | None = None,
        depth_topic: str | None = None,
        tolerance_ms: float = 5.0,
        reader: ImageReader | None = None,
        matrix: str = "auto",
    ) -> None:
        self._matrix = matrix
        self.reader = reader or ImageReader()
        self.bag = BagReader(path)
        try:
            if depth_topic is not None:  # mono16 counts as a picture, unless somebody says so
                depth_topic = choose_topic(self.bag, depth_topic, "depth", "--depth-topic")
            self.topic = choose_topic(
                self.bag, topic, "picture", "--topic", others=() if topic else (depth_topic or "",)
            )
            self.depth_topic = choose_topic(self.bag, depth_topic, "depth", "--depth-topic")
        except BaseException:
            self.bag.close()
            raise
        self.tolerance_ns = round(tolerance_ms * 1e6)
        counts = {entry.name: entry.count for entry in self.bag.topics}
        self.total = counts[self.topic]
        self.unmatched = 0
        self._problems = Problems()
        self._info_topic = calibration_topic(self.bag, self.topic)
        self.depth_info_topic = calibration_topic(self.bag, self.depth_topic)
        self._info = self._first(self._info_topic)
        self._depth_info = self._first(self.depth_info_topic)

    @property
    def problems(self) -> list[str]:
        """What could not be used so far, a line for each kind."""
        return [*self._problems.lines, *self.reader.doubts]

    def close(self) -> None:
        self.bag.close()

    def why_none(self) -> str:
        why = why_unmatched(self.bag, self.topic, self.depth_topic, self.tolerance_ns / 1e6)
        return f"{self.unmatched} frames of {self.topic} have no depth {why}"

    def __iter__(self) -> Iterator[Pair]:
        self.reader.restart()
        matcher = Matcher(
            self.bag,
            self.topic,
            [self.depth_topic],
            self.tolerance_ns,
            reader=self.reader,
            problems=self._problems,
        )
        for match in matcher:
            depth = match.partners.get(self.depth_topic)
            if depth is None:
                self.unmatched += 1
            elif (pair := self._pair(match, depth)) is not None:
                yield pair

    def _pair(self, match: Match, depth: ImageMessage) -> Pair | None:
        try:
            rgb_hwc = self.reader.rgb(match.colour) if match.rgb_hwc is None else match.rgb_hwc
            true_m = message_depth_m(depth, self.reader.max_pixels)
        except InputError as error:
            self._problems.at(f"{self.topic} at {match.time_ns} ns", error)
            return None
        if rgb_hwc is None:
            return None
        camera = self._camera(self._info, self.topic, rgb_hwc)
        self._check_view(camera, rgb_hwc, true_m)
        return Pair(Frame(rgb_hwc, match.stamp_ns, match.colour.header.frame_id, camera), true_m)

    def _camera(
        self, info: CameraInfoMessage | None, topic: str, array: np.ndarray
    ) -> Intrinsics | None:
        if info is None:
            return None
        is_colour = topic == self.topic
        where = self._info_topic if is_colour else self.depth_info_topic
        matrix = self._matrix if is_colour else "auto"
        rectified = takes_projection(matrix, topic)
        try:
            camera = intrinsics_from_info(info, array.shape[1], array.shape[0], rectified=rectified)
        except InputError as error:
            self._problems.note(f"{where}: {error}")
            return None
        chosen = "P" if rectified else matrix
        if is_colour and (doubt := calibration_doubt(info, chosen, "--camera-matrix")):
            self._problems.note(f"{where}: {doubt}")
        return camera

    def _check_view(
        self, camera: Intrinsics | None, rgb_hwc: np.ndarray, true_m: np.ndarray
    ) -> None:
        height, width = true_m.shape
        doubt = view_doubt(self.depth_topic, true_m.shape, self.topic, rgb_hwc.shape[:2])
        if doubt:
            self._problems.note(doubt)
        depth_camera = self._camera(self._depth_info, self.depth_topic, true_m)
        if camera is None or depth_camera is None:
            return
        expected = camera.resized(width, height)
        if abs(depth_camera.fx / expected.fx - 1) > _SAME_VIEW:
            self._problems.note(
                f"{self.depth_topic} has a focal length of {depth_camera.fx:.0f} pixels where the "
                f"colour camera has {expected.fx:.0f}: it is not aligned with the picture, and the "
                "figures mean little; record aligned depth"
            )

    def _first(self, topic: str) -> CameraInfoMessage | None:
        for message in self.bag.messages([topic]):
            try:
                return self.bag.deserialize(message)
            except InputError:
                continue
        return None


def evaluate_pairs(
    perceiver: Perceiver,
    source: Truth,
    max_depth_m: float = DEFAULT_MAX_M,
    *,
    limit: int | None = None,
    progress: bool = False,
) -> BagReport:
    """Run the perceiver over at most ``limit`` pairs and compare at the recorded depth's size.

    Truth beyond ``max_depth_m`` is left out. A relative model is compared aligned only.
    ``progress`` shows a bar on a terminal.

    :raises InputError: if the model gives no depth, or no pair could be compared.
    """
    if perceiver.card.depth is None:
        raise InputError(
            f"model {perceiver.card.name} gives labels, no depth: choose a depth model"
        )
    known = [count for count in (source.total, limit) if count is not None]
    pairs = tqdm(
        itertools.islice(source, limit),
        total=min(known, default=None),
        unit="frame",
        disable=None if progress else True,
        file=sys.stderr,
    )
    report = BagReport(source.topic, source.depth_topic)
    truths: list[np.ndarray] = []
    medians_m: dict[str, float] = {}
    ratios: list[float] = []
    empty = 0
    for pair in pairs:
        medians_m[f"{pair.frame.stamp_ns} ns"] = median_depth_m(pair.true_m)
        true_m = np.where(pair.true_m <= max_depth_m, pair.true_m, np.float32(np.nan))
        if not np.isfinite(true_m).any():
            empty += 1
            continue
        try:
            prediction = perceiver(pair.frame)
        except (InputError, BackendError) as error:
            report.problems.append(f"frame at {pair.frame.stamp_ns} ns: {error}")
            continue
        assert prediction.depth is not None
        values_hw = restored_depth(prediction.depth, *true_m.shape)
        if prediction.depth.kind is DepthKind.METRIC:
            ratios.append(depth_ratio(values_hw, true_m))
        metrics = evaluate(values_hw, true_m)
        if prediction.depth.kind is not DepthKind.METRIC:
            metrics = {k: v for k, v in metrics.items() if k.startswith("aligned_")}
        report.frames.append(metrics)
        truths.append(_thinned(true_m))
        report.stamps_ns.append(pair.frame.stamp_ns)
        report.intrinsics_assumed += prediction.intrinsics_assumed
    if len({true_m.shape for true_m in truths}) == 1:
        report.row_prior = row_prior_metrics(truths)
    report.problems[:0] = source.problems
    doubts = unit_doubts([*medians_m.values()], [*medians_m])
    if doubt := scale_doubt(ratios):
        doubts.append(doubt)
    report.problems += [f"{source.depth_topic}: {doubt}" for doubt in doubts]
    if empty:
        report.problems.append(
            f"{empty} frames of {source.depth_topic} have no depth from 0 to {max_depth_m:g} m and "
            "were left out: check the sensor, the unit, or --max-depth"
        )
    report.unmatched = source.unmatched
    if not report.frames:
        reasons = "; ".join(report.problems) or source.why_none()
        raise InputError(f"no frame of {source.topic} could be compared: {reasons}")
    return report


def row_prior_metrics(truths: Sequence[np.ndarray]) -> list[dict[str, float]]:
    """Metrics of each truth (all of one size) against the mean inverse depth of its rows."""
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.stack([1 / true_m for true_m in truths]).astype(np.float64)
    known = np.isfinite(inverse)
    total = np.where(known, inverse, 0).sum(axis=(0, 2))
    count = known.sum(axis=(0, 2))
    rows = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    # A row nobody measured says nothing; it must not change the others' metrics.
    prior_m = np.repeat(1 / rows[:, None], inverse.shape[2], axis=1)
    return [evaluate(prior_m, true_m) for true_m in truths]


def _thinned(true_m: np.ndarray) -> np.ndarray:
    """Every n-th row and column, so that a long recording's truths fit into memory."""
    step = max(1, round(max(true_m.shape) / _PRIOR_SIDE))
    return true_m[::step, ::step].copy()
