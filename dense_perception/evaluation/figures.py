"""What can be measured: every figure by name, and what one frame contributes to them.

A figure's name is read from the left: what is judged (``depth``, ``labels``, ...), in depth how it
was brought to the truth's scale (``metric``: as answered, ``scaled``: by the ratio of the medians,
``aligned``: by the best scale and shift of inverse depth), and the measure. ``NAME@AXIS=BIN`` is
the same figure on a slice of the pixels: ``depth.metric.absrel@distance=1-2``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.core.json_text import json_text, parse_json
from dense_perception.metrics.average_precision import SIZES, Matches

Better = Literal["lower", "higher", "one"]
"""Which values are good; ``one`` is a ratio that should be 1."""
How = Literal["mean", "ratio", "root", "confusion", "calibration", "ranking", "segments"]
"""How the figure of many frames comes about.

``mean``: of the frames' values, each counting once. ``ratio``: the sum of the numerators over the
sum of the denominators. ``root``: the square root of that. ``confusion``: from the counts of
(true, predicted) class. ``calibration``: from the bins of the confidence. ``ranking``: from the
found things of all frames, by score. ``segments``: the mean over classes of a ratio of sums.
"""

IOU = "labels.iou."
"""Followed by the name of a class: its intersection over union."""
SAID, RIGHT = "confidence.said", "confidence.right"
"""Sums of a bin of the confidence, with ``@bin=NUMBER``: what was said and how often it was right,
each over the number of pixels."""
KINDS = ("boxes", "masks")
"""What average precision judges things by; of a class it is ``boxes.ap.CLASS``."""
SIZED = {f"{kind}@{size}": f"{kind}.ap_{size}" for kind in KINDS for size in SIZES}
"""Of things of one size: what they are kept under, and the figure."""
PANOPTIC = "panoptic."
"""Begins the figures of segments; of a class ``panoptic.things.pq.CLASS``, or ``stuff``. As sums,
``pq`` is the overlap of its pairs and ``rq`` their number, both over the weight of the class."""
ThingMatches = Mapping[str, Mapping[str, Matches]]
"""What was found by each of :data:`KINDS`, and of :data:`SIZED`, of each class that is in view or
was found."""
_OF_CLASSES = (
    IOU,
    *(f"{kind}.ap." for kind in KINDS),
    *(f"{PANOPTIC}{group}.{n}." for group in ("things", "stuff") for n in ("pq", "sq", "rq")),
)


@dataclass(frozen=True, slots=True)
class Figure:
    """A name, its unit ("" for none), and what it means, in one sentence with its origin.

    ``revision`` goes up where the same answers to the same frames get another value than before.
    """

    name: str
    unit: str
    better: Better
    how: How
    definition: str
    revision: int = 1

    @property
    def rests_on_depth(self) -> bool:
        """Whether it depends on which true depth counts (``--max-depth``, ``--crop``)."""
        return self.name.partition(".")[0] in ("depth", "temporal", "normals", "reshading")

    def improves(self, before: float, after: float) -> bool:
        """Whether ``after`` is the better of two values."""
        if self.better == "one":
            return abs(after - 1) < abs(before - 1)
        return after < before if self.better == "lower" else after > before


@dataclass(frozen=True, slots=True)
class FrameScore:
    """What one contestant's answer to one frame contributes, as plain numbers.

    ``recording`` and ``key`` name the frame, ``stamp_ns`` says when it was taken (0 = unknown).

    * ``values``: figures that are averaged over frames; a figure without a value here has no entry.
    * ``sums``: numerator and denominator of what is added up over frames: slices by distance or
      class, pairs of successive frames, bins of the confidence.
    * ``confusion``: pixels by (true, predicted) class, from 0; ``len(classes)`` is "no class".
      None where labels were not compared.
    * ``things``: what was found of each class; None where things were not compared.
    * ``tags``: what the frame is like, for slices over frames: numbers or texts.
    """

    contestant: str
    recording: str
    key: str
    stamp_ns: int = 0
    values: Mapping[str, float] = field(default_factory=dict)
    sums: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    confusion: Mapping[tuple[int, int], int] | None = None
    tags: Mapping[str, str | float] = field(default_factory=dict)
    things: ThingMatches | None = None

    def to_line(self) -> str:
        """One line of JSON, without a newline; :meth:`from_line` gives the same numbers again."""
        counts = None
        if self.confusion is not None:
            counts = [[*pair, count] for pair, count in sorted(self.confusion.items())]
        data = {
            "contestant": self.contestant,
            "recording": self.recording,
            "key": self.key,
            "stamp_ns": self.stamp_ns,
            "values": dict(self.values),
            "sums": {name: list(pair) for name, pair in self.sums.items()},
            "confusion": counts,
            "tags": dict(self.tags),
        }
        if self.things is not None:
            data["things"] = {
                kind: {name: _plain(matches) for name, matches in found.items()}
                for kind, found in self.things.items()
            }
        return json_text(data, sort_keys=True, compact=True)

    @classmethod
    def from_line(cls, line: str) -> FrameScore:
        """
        :raises InputError: if it is no line that :meth:`to_line` wrote.
        """
        try:
            data = parse_json(line)
            counts, things = data["confusion"], data.get("things")
            return cls(
                str(data["contestant"]),
                str(data["recording"]),
                str(data["key"]),
                int(data["stamp_ns"]),
                {name: float(value) for name, value in data["values"].items()},
                {
                    name: (float(above), float(below))
                    for name, (above, below) in data["sums"].items()
                },
                None if counts is None else {(t, p): count for t, p, count in counts},
                dict(data["tags"]),
                None
                if things is None
                else {
                    kind: {name: _matches(plain) for name, plain in found.items()}
                    for kind, found in things.items()
                },
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"this is no line of a frame's scores: {line[:80]!r}") from error


def _plain(matches: Matches) -> list[object]:
    """Scores as short as they are the same ``float32`` again."""
    scores = [float(str(np.float32(score))) for score in matches.scores_n]
    return [matches.true, scores, matches.hits_n.tolist(), matches.ignored_n.tolist()]


def _matches(plain: list[Any]) -> Matches:
    true, scores, hits, ignored = plain
    return Matches(
        int(true),
        np.array(scores, np.float32).astype(np.float64),
        np.array(hits, np.int64),
        np.array(ignored, np.int64),
    )


@cache
def catalogue() -> Mapping[str, Figure]:
    """Every figure by its name but those of single classes, in the order of a table."""
    figures = [
        *_depth_errors("metric", "Depth as answered"),
        *_depth_errors("scaled", "Depth times median(truth) / median(prediction), as Zhou 2017"),
        *_depth_errors("aligned", "Depth after the best scale and shift of 1 / z, as MiDaS 2020"),
        *_depth_figures(),
        *_normal_figures("depth.normals", "the normals of predicted and true depth", 2),
        *_normal_figures("normals", "the predicted and the true normals"),
        *(
            Figure(f"{name}.l1", "", "lower", "mean", f"Mean absolute error of {what}, from 0 to 1")
            for name, what in (
                ("edges", "the texture edges (Taskonomy 2018, MulT 2022)"),
                ("keypoints", "the strength of 2D keypoints (Taskonomy 2018, MulT 2022)"),
                ("reshading", "the reshading (Taskonomy 2018, MulT 2022)"),
            )
        ),
        Figure(
            "labels.miou", "", "higher", "confusion",
            "Mean over the classes that occur of intersection over union, from the pixels of all "
            "frames together (PASCAL VOC, Everingham 2015)",
        ),
        Figure(
            "labels.accuracy", "", "higher", "confusion",
            "Share of the labelled pixels that got their class (Long 2015)",
        ),
        Figure(
            "confidence.ece", "", "lower", "calibration",
            "Expected calibration error: mean over pixels of |share right - confidence| in 15 bins "
            "of equal width (Guo 2017)",
        ),
        *_thing_figures(),
        *_panoptic_figures(),
        Figure(
            "temporal.scale_jitter", "", "lower", "root",
            "Root mean square of the change, from one frame to the next, of the median of "
            "ln p - ln t: 0.01 is a scale that jumps by 1 %",
            revision=2,
        ),
        Figure(
            "temporal.flicker", "", "lower", "ratio",
            "Mean change of ln p - ln t of a surface from one frame to the next, followed by "
            "optical flow or poses and where it is seen in both",
        ),
    ]  # fmt: skip
    return {each.name: each for each in figures}


def figure(name: str) -> Figure:
    """The figure of that name, of a class, or of a slice.

    :raises InputError: if there is none; the message has the closest names.
    """
    base, _, part = name.partition("@")
    if base in catalogue() and (not part or "=" in part):
        return catalogue()[base]
    for start in _OF_CLASSES:
        label = base.removeprefix(start)
        if label and label != base:
            return _of_class(start, label)
    close = difflib.get_close_matches(
        base, [*catalogue(), *(f"{start}CLASS" for start in _OF_CLASSES)], n=3, cutoff=0.4
    )
    meant = f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(catalogue())}"
    raise InputError(f"there is no figure {name!r}: {meant}")


def is_of_class(name: str) -> bool:
    """Whether it is the figure of a single class."""
    return name.startswith(_OF_CLASSES)


def class_of(name: str) -> tuple[str, str]:
    """The figure over all classes and the class, of one for which :func:`is_of_class` is true."""
    start = next(start for start in _OF_CLASSES if name.startswith(start))
    return start.removesuffix("."), name.removeprefix(start)


def _of_class(start: str, label: str) -> Figure:
    if start == IOU:
        text = f"Intersection over union of {label} over all frames"
        return Figure(start + label, "", "higher", "confusion", text)
    whole = catalogue()[start.removesuffix(".")]
    text = f"{whole.name} of {label} alone"
    return Figure(start + label, "", "higher", whole.how, text, whole.revision)


def in_order(names: Iterable[str]) -> list[str]:
    """Names of figures in the order of a table: as in the catalogue, then classes and slices."""
    place = {name: number for number, name in enumerate(catalogue())}
    return sorted(set(names), key=lambda name: (place.get(name, len(place)), name))


def _depth_errors(kind: str, how: str) -> list[Figure]:
    rows: list[tuple[str, str, Better, str]] = [
        ("absrel", "", "lower", "mean of |p - t| / t (Eigen 2014)"),
        ("sqrel", "m", "lower", "mean of (p - t)^2 / t (Eigen 2014)"),
        ("rmse", "m", "lower", "root of the mean of (p - t)^2 (Eigen 2014)"),
        ("rmselog", "", "lower", "root of the mean of (ln p - ln t)^2 (Eigen 2014)"),
        ("log10", "", "lower", "mean of |log10 p - log10 t| (Saxena 2009)"),
        ("silog", "", "lower", "100 times the standard deviation of ln p - ln t (KITTI)"),
        *(
            (f"d{n}", "", "higher", f"share of pixels with max(p/t, t/p) < {limit} (Eigen 2014)")
            for n, limit in ((1, "1.25"), (2, "1.25^2"), (3, "1.25^3"))
        ),
    ]
    return [
        Figure(f"depth.{kind}.{name}", unit, better, "mean", f"{how}: {text}")
        for name, unit, better, text in rows
    ]


def _depth_figures() -> list[Figure]:
    return [
        Figure(
            "depth.scale", "", "one", "mean",
            "Median of the prediction over the median of the truth; on a slice of the pixels the "
            "mean of prediction / truth",
        ),
        Figure(
            "depth.coverage", "", "higher", "mean",
            "Share of the pixels with true depth that were answered",
        ),
        Figure(
            "depth.boundary.f1", "", "higher", "mean",
            "F-score of the occluding contours over depth ratios from 1.05 to 1.25 (Depth Pro, "
            "Bochkovskii 2024)",
        ),
        Figure(
            "depth.edge.within_4px", "", "higher", "mean",
            "How much of the true steps in ln z is made within four pixels, 0 to 1",
        ),
    ]  # fmt: skip


def _normal_figures(prefix: str, what: str, revision: int = 1) -> list[Figure]:
    angle = f"angle between {what} (Fouhey 2013)"
    return [
        Figure(f"{prefix}.mean_deg", "deg", "lower", "mean", f"Mean {angle}", revision),
        Figure(f"{prefix}.median_deg", "deg", "lower", "mean", f"Median {angle}", revision),
        *(
            Figure(
                f"{prefix}.within_{int(limit)}", "", "higher", "mean",
                f"Share of pixels with less than {limit:g} degrees of {angle}",
                revision,
            )
            for limit in (11.25, 22.5, 30.0)
        ),
    ]  # fmt: skip


def _thing_figures() -> list[Figure]:
    rules = "by COCO's rules (Lin 2014), of at most 100 in a frame"
    rows = (
        ("ap", "Average precision of {}, mean over classes and overlaps of .50, .55, ... .95"),
        ("ap50", "Average precision of {} at an overlap of .50, mean over classes"),
        ("ap75", "Average precision of {} at an overlap of .75, mean over classes"),
        *(
            (
                f"ap_{size}",
                f"Average precision of {{}} of {of} pixels of the frame, mean over classes and "
                "overlaps",
            )
            for size, of in (
                ("small", "up to 32 x 32"),
                ("medium", "32 x 32 to 96 x 96"),
                ("large", "96 x 96 and more"),
            )
        ),
        ("recall", "Share of the true {} that are found, mean over classes and these overlaps"),
    )
    return [
        Figure(
            f"{kind}.{name}", "", "higher", "ranking", f"{text.format(kind)}, {rules}", revision=2
        )
        for kind in KINDS
        for name, text in rows
    ]


def _panoptic_figures() -> list[Figure]:
    rows = (
        ("pq", "Panoptic quality SQ x RQ"),
        ("sq", "Segmentation quality, the mean overlap of the segments that are found"),
        ("rq", "Recognition quality, the F1 score of finding segments"),
    )
    return [
        Figure(
            f"{PANOPTIC}{group}{name}", "", "higher", "segments",
            f"{text}, mean over the classes{of} that occur (Kirillov 2019)",
        )
        for group, of in (("", ""), ("things.", " of things"), ("stuff.", " of stuff"))
        for name, text in rows
    ]  # fmt: skip
