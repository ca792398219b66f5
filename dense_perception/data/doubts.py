"""What looks wrong in a corpus: collected frame by frame, said in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from dense_perception.core.camera import camera_doubt
from dense_perception.core.printable import counted
from dense_perception.data.sample import Sample

# A median beyond this many metres is nothing that a camera on a robot sees.
MILLIMETRES = 300.0
_FLAT = 2.0  # levels of 255: a black, white or covered camera has noise below
_ALIKE = 1.0  # levels: the noise of a camera that stands still is below
_FACTOR = 300.0  # between frames' medians: metres among millimetres are 1000 apart
# Centimetres are 100 apart: the medians of two groups and the gap between these decide. Scenes from
# a table's to a street's leave no such gap, and one odd frame is no group.
_GROUPS_APART = 50.0
_GAP = 10.0
# Models are wrong by a factor of 3 near by; units differ by 10 or more.
_OTHER_UNIT = 7.0
_MOST_DUPLICATES = 0.5
_THUMBNAIL = (16, 12)
_SAME_VIEW = 0.03  # of the ratio of sides: sensors round them to whole pixels
# Whether depth fits its picture is judged on small maps of this many frames.
_SMALL = (96, 72)
_JUDGED = 512
_ENOUGH = 16
_STEP = 0.15  # log depth between neighbours: an outline
_FITTING = 0.66


@dataclass
class Evidence:
    """What was seen in the frames of a corpus of ``classes`` classes; 0 if they are not named."""

    name: str
    classes: int = 0
    keys: list[str] = field(default_factory=list)
    medians_m: list[float] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    flat: list[str] = field(default_factory=list)
    without_truth: list[str] = field(default_factory=list)
    not_finite: list[str] = field(default_factory=list)
    negative: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    above: list[str] = field(default_factory=list)
    void: list[str] = field(default_factory=list)
    no_camera: list[str] = field(default_factory=list)
    camera_doubt: str = ""
    highest: int = 0
    labelled: int = 0
    thumbnails: list[np.ndarray] = field(default_factory=list)
    outlines: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    def add(self, sample: Sample) -> None:
        """Take a frame into account."""
        key = sample.key
        self.keys.append(key)
        gray = cv2.cvtColor(np.ascontiguousarray(sample.rgb_hwc), cv2.COLOR_RGB2GRAY)
        if gray.std() < _FLAT:
            self.flat.append(key)
        small = cv2.resize(gray, _THUMBNAIL, interpolation=cv2.INTER_AREA)
        self.thumbnails.append(small.astype(np.float32).reshape(-1))
        if doubt := camera_doubt(sample.intrinsics):
            self.no_camera.append(key)
            self.camera_doubt = self.camera_doubt or doubt
        depth_m = np.asarray(sample.depth_m, np.float32)
        finite = np.isfinite(depth_m)
        if not finite.all():
            self.not_finite.append(key)
        if (depth_m < 0).any():
            self.negative.append(key)
        known = depth_m[finite & (depth_m > 0)]
        if known.size > _ENOUGH and known.min() == known.max():
            self.stuck.append(key)
        self.medians_m.append(float(np.median(known)) if known.size else 0.0)
        labels_hw = sample.labels_hw
        if labels_hw is not None:
            self.labelled += 1
            highest = int(labels_hw.max(initial=0))
            self.highest = max(self.highest, highest)
            if highest == 0:
                self.void.append(key)
            if self.classes and highest > self.classes:
                self.above.append(key)
        # That there is no thing is truth, too.
        judged = known.size or sample.instances_hw is not None
        if not judged and (labels_hw is None or not labels_hw.any()):
            self.without_truth.append(key)
        if known.size and len(self.outlines) < _JUDGED:
            self.outlines.append(_outlines(gray, np.where(finite, depth_m, 0)))

    def add_unreadable(self, problem: str) -> None:
        """A frame that cannot be read; ``problem`` names it."""
        self.unreadable.append(problem)

    def duplicates(self) -> int:
        """How many frames look like an earlier one."""
        if not self.thumbnails:
            return 0
        views = np.stack(self.thumbnails)
        means = views.mean(axis=1)
        order = np.argsort(means, kind="stable")
        views, means = views[order], means[order]
        is_copy = np.zeros(len(views), bool)
        # Views that are alike have means that are, so only neighbours in brightness are compared.
        ends = np.searchsorted(means, means + _ALIKE, side="right")
        for row, end in enumerate(ends):
            near = np.abs(views[row + 1 : end] - views[row]).mean(axis=1) < _ALIKE
            is_copy[row + 1 : end] |= near
        return int(is_copy.sum())

    def fitting_pairs(self) -> tuple[int, int]:
        """Of how many frames the depth fits the own picture better than that of another frame.

        Returns that and the number of frames that could be judged.
        """
        fits, judged = 0, 0
        for k, (gradient, outline) in enumerate(self.outlines):
            other_gradient, _ = self.outlines[(k + len(self.outlines) // 2) % len(self.outlines)]
            if not _ENOUGH < outline.sum() < 0.3 * outline.size:
                continue
            own = gradient[outline].mean() / (gradient.mean() + 1e-6)
            other = other_gradient[outline].mean() / (other_gradient.mean() + 1e-6)
            if abs(own - other) > 1e-6:
                judged += 1
                fits += int(own > other)
        return fits, judged


def doubts_of(evidence: Evidence) -> list[str]:
    """Sentences about what looks wrong, each with what to do; empty where nothing does."""
    count = len(evidence.keys)
    found: list[str] = []

    def say(keys: list[str], what: str) -> None:
        if keys:
            found.append(f"{len(keys)} of {count} frames {what} (the first: {keys[0]})")

    if evidence.unreadable:
        found.append(
            f"{counted(len(evidence.unreadable), 'frame')} cannot be read; the first: "
            f"{evidence.unreadable[0]}"
        )
    say(evidence.flat, "show nothing but one colour: remove them")
    say(
        evidence.without_truth,
        "have neither depth nor labels nor things: they teach nothing but by a teacher",
    )
    say(evidence.not_finite, "have NaN or infinite depth: write 0 where there is none")
    say(evidence.negative, "have negative depth: check the unit and the sign")
    say(evidence.stuck, "have one and the same depth everywhere: check how it was made")
    above = f"have labels above the {evidence.classes} named classes, up to {evidence.highest}"
    say(evidence.above, f"{above}: the classes and the label images do not belong together")
    if evidence.labelled and len(evidence.void) == evidence.labelled:
        found.append("all labels are 0 (void): there is nothing to learn from them")
    if evidence.no_camera:
        found.append(
            f"{len(evidence.no_camera)} of {count} frames have the intrinsics of no camera; the "
            f"first, {evidence.no_camera[0]}: {evidence.camera_doubt}"
        )
    found += unit_doubts(evidence.medians_m, evidence.keys)
    copies = evidence.duplicates()
    if copies > _MOST_DUPLICATES * count and count > _ENOUGH:
        found.append(
            f"{copies} of {count} frames look like an earlier one: drop them, or they outweigh the "
            "others"
        )
    fits, judged = evidence.fitting_pairs()
    if judged >= _ENOUGH and fits < _FITTING * judged:
        found.append(
            f"depth fits its picture in {fits} of {judged} frames only, about as often as it fits "
            "that of another frame: check that images and depth are paired rightly, and that depth "
            "is registered to colour"
        )
    return found


def median_depth_m(depth_m: np.ndarray) -> float:
    """The median of (H, W) metres where there is some, of every fourth pixel; 0 without any."""
    thinned = depth_m[::4, ::4]
    known = thinned[np.isfinite(thinned) & (thinned > 0)]
    return float(np.median(known)) if known.size else 0.0


def unit_doubts(medians_m: Sequence[float], keys: Sequence[str]) -> list[str]:
    """Whether depth can be in metres by its medians, one a frame (0 without depth); mostly empty.

    :param keys: the names of these frames.
    """
    medians = np.array([median for median in medians_m if median > 0])
    if not len(medians):
        return []
    large = medians > MILLIMETRES
    if large.all():
        return [
            f"the median depth is {np.median(medians):.0f}, expected metres (16-bit images: "
            "millimetres): millimetres must be divided by 1000 before they are written as metres"
        ]
    key = keys[int(np.argmax(medians_m))]
    rest = np.median(medians[~large])
    if large.any() and np.median(medians[large]) > _FACTOR * rest:
        return [
            f"units are mixed: the median depth is over {MILLIMETRES:g} m in {int(large.sum())} "
            f"frames (the most in {key}) and about {rest:.2g} m in the others: some are in "
            "millimetres"
        ]
    ordered = np.sort(medians)
    steps = ordered[1:] / ordered[:-1]
    below = int(np.argmax(steps)) + 1 if steps.size else 0
    if min(below, len(ordered) - below) > 1 and steps[below - 1] > _GAP:
        low, high = np.median(ordered[:below]), np.median(ordered[below:])
        if high > _GROUPS_APART * low:
            return [
                f"units are mixed: the median depth is about {high:.3g} m in "
                f"{len(ordered) - below} frames (the most in {key}) and about {low:.2g} m in the "
                "others, and nothing between: are some in centimetres?"
            ]
    return []


def view_doubt(depth_topic: str, depth_hw: tuple[int, int], topic: str, hw: tuple[int, int]) -> str:
    """Whether a depth image can be aligned with its picture by its shape; mostly empty."""
    height, width = depth_hw
    if abs(width / height * hw[0] / hw[1] - 1) <= _SAME_VIEW:
        return ""
    return (
        f"{depth_topic} is {width}x{height} but {topic} is {hw[1]}x{hw[0]}, another aspect ratio: "
        "the depth is not aligned with the picture and lies at the wrong pixels; record aligned "
        "depth"
    )


def depth_ratio(answer_m: np.ndarray, true_m: np.ndarray) -> float:
    """The median of an answer over that of the truth, where both have depth; NaN if nowhere.

    (H, W) metres each, NaN where there is none.
    """
    both = np.isfinite(answer_m) & np.isfinite(true_m) & (answer_m > 0) & (true_m > 0)
    if not both.any():
        return float("nan")
    return float(np.median(answer_m[both]) / np.median(true_m[both]))


def scale_doubt(ratios: Sequence[float]) -> str:
    """Whether true depth is in another unit than metric answers; mostly empty.

    :param ratios: of each frame, the median of the answer's depth over that of the truth's.
    """
    logs = np.log10([ratio for ratio in ratios if 0 < ratio < np.inf])
    if not len(logs) or abs(np.median(logs)) < np.log10(_OTHER_UNIT):
        return ""
    power = round(float(np.median(logs)))
    factor = f"{10**power} times" if power > 0 else f"1/{10**-power} of"
    return (
        f"metric answers are about {factor} the true depth: is that in another unit? Expected "
        "are metres (32FC1) or millimetres (16UC1, 16-bit PNG)"
    )


def _outlines(gray: np.ndarray, depth_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Small maps: how much the picture changes, and where the depth steps."""
    small = cv2.resize(gray, _SMALL, interpolation=cv2.INTER_AREA).astype(np.float32)
    gradient = cv2.magnitude(cv2.Sobel(small, cv2.CV_32F, 1, 0), cv2.Sobel(small, cv2.CV_32F, 0, 1))
    # Of the strongest changes no more than of clear ones: one lamp must not decide.
    gradient = np.minimum(gradient, 4 * gradient.mean() + 1e-6)
    depth_m = cv2.resize(depth_m, _SMALL, interpolation=cv2.INTER_NEAREST)
    log = np.log(np.where(depth_m > 0, depth_m, np.nan))  # at holes there is no step
    steps = np.zeros(log.shape, np.uint8)
    with np.errstate(invalid="ignore"):
        steps[:, 1:] |= np.abs(np.diff(log, axis=1)) > _STEP
        steps[1:] |= np.abs(np.diff(log, axis=0)) > _STEP
    outline = cv2.dilate(steps, np.ones((3, 3), np.uint8)).astype(bool)
    return cv2.GaussianBlur(gradient, (0, 0), 0.8), outline
