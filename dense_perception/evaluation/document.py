"""The types of ``report.json``: what an evaluation says, for programs and for the page.

Everything is plain JSON. A number that could not be had is None (``null``). ``low`` and ``high``
are the ends of a 95 % interval; ``speaks_for`` in :class:`Method` says what it speaks for.
"""

from __future__ import annotations

from typing import Literal, TypedDict

VERSION = 1
"""Of the format: raised when a reader of the old one would misread the new one."""


class Skipped(TypedDict):
    """Something that was left out: a frame, a topic or a whole recording."""

    what: str
    why: str
    count: int


class RecordingData(TypedDict):
    """One recording: where it lies, what kind of data it is, how much of it was used."""

    name: str
    path: str
    kind: str
    frames: int
    scored: int
    skipped: list[Skipped]


class _Latency(TypedDict):
    median: float
    p95: float


class Latency(_Latency, total=False):
    """Milliseconds a frame, reading and scoring left out; ``workers`` shared the machine meanwhile,
    one where it is not said."""

    workers: int


class ContestantData(TypedDict):
    """Who answered, and what it cost on this machine; None where it does not apply.

    ``kind`` is ``artefact``, ``checkpoint``, ``topic`` or ``baseline``.
    """

    name: str
    kind: str
    file: str | None
    sha256: str | None
    precision: str | None
    backend: str | None
    device: str | None
    latency_ms: Latency | None
    memory_mb: float | None
    intrinsics_assumed: int
    frames: int
    failed: list[Skipped]


class FigureValue(TypedDict):
    """A figure over all frames. Without an interval ``low`` and ``high`` are None."""

    value: float | None
    low: float | None
    high: float | None
    n_frames: int
    n_recordings: int


class SliceValue(TypedDict):
    """A figure on one bin of an axis: of the pixels (distance, class) or of the frames.

    ``n`` is the number of frames that contribute.
    """

    bin: str
    figure: str
    value: float | None
    low: float | None
    high: float | None
    n: int


class PairValue(TypedDict):
    """``a`` less ``b`` on the frames both answered.

    ``better`` is the one with the better value, None where they are equal or better means nothing;
    ``certain`` says whether one may rely on it and ``why`` gives the reason in a sentence.
    """

    a: str
    b: str
    figure: str
    difference: float | None
    low: float | None
    high: float | None
    better: str | None
    certain: bool
    why: str
    n_frames: int
    n_recordings: int


class Point(TypedDict):
    """A point of a curve over the bin ``x_low`` to ``x_high``; ``n`` as in its curve's place."""

    x_low: float
    x_high: float
    value: float | None
    low: float | None
    high: float | None
    n: float


class ReliabilityPoint(TypedDict):
    """A bin of the confidence: what was said on average, how often it was right, its pixels."""

    x_low: float
    x_high: float
    said: float | None
    right: float | None
    pixels: float


class Curves(TypedDict):
    """Curves of one contestant; empty where there is nothing to draw.

    ``scale_by_distance``: the mean over frames of the median of prediction / truth where the truth
    lies between ``x_low`` and ``x_high`` metres; ``n`` frames. ``absrel_by_distance``: AbsRel of
    those pixels, metric for a metric model, else aligned. ``reliability``: of the labels.
    """

    scale_by_distance: list[Point]
    absrel_by_distance: list[Point]
    reliability: list[ReliabilityPoint]


class ClassValue(TypedDict):
    """One class: its IoU, its accuracy (recall), its share of the true pixels."""

    name: str
    iou: float | None
    low: float | None
    high: float | None
    accuracy: float | None
    share: float


class Verdict(TypedDict):
    """A sentence, and the number in ``pairs`` of what it rests on; None for no pair."""

    text: str
    pair: int | None


class Change(TypedDict):
    """A figure now against an earlier report: ``difference`` is after less before.

    ``verdict`` is ``better``, ``worse`` or ``same``; only certain changes are better or worse.
    """

    contestant: str
    figure: str
    before: float | None
    after: float | None
    difference: float | None
    low: float | None
    high: float | None
    verdict: Literal["better", "worse", "same"]
    why: str


class ShownFrame(TypedDict):
    """A frame with pictures: the worst, median or best one of a contestant by ``figure``.

    ``panels`` are paths of JPEG or PNG files relative to the report's folder, by ``image``,
    ``truth``, ``prediction`` and ``error``, as ``panels.write_panels`` gives them. ``near_m`` and
    ``far_m`` are the metres at the ends of depth's colours; None for other tasks.
    """

    contestant: str
    recording: str
    key: str
    stamp_ns: int
    task: str
    rank: Literal["worst", "median", "best"]
    figure: str
    value: float
    near_m: float | None
    far_m: float | None
    panels: dict[str, str]


class _Method(TypedDict):
    unit: Literal["recordings", "blocks", "none"]
    units: int
    resamples: int
    seed: int
    level: float
    speaks_for: str
    crop: str | None
    max_depth_m: float | None


class Method(_Method, total=False):
    """How figures and their intervals were made.

    ``unit`` is what was drawn: ``recordings``, ``blocks`` of time, or ``none`` where there are too
    few. ``speaks_for`` is a sentence: what an interval says something about. ``crop`` and
    ``max_depth_m`` are None where the sources differ; ``truth`` says of each way in use which true
    depth counts. ``sampled`` says which figures are of some frames alone. ``revisions`` are those
    of the figures' definitions that are not the first; reports without these three are older.
    """

    truth: list[str]
    sampled: str
    revisions: dict[str, int]


class Machine(TypedDict):
    """What it ran on."""

    system: str
    processor: str
    cores: int
    memory_gb: float | None
    accelerators: list[str]


class _UnitSums(TypedDict):
    units: list[str]
    sums: dict[str, list[float]]


class RankedFigure(TypedDict):
    """A figure of average precision in each unit, and in the resamples in their order; None where
    there is nothing to be found."""

    units: list[float | None]
    drawn: list[float | None]


class Ranked(TypedDict):
    """Average precision, which has no sums, by the names of figures; ``true`` says of how many
    things of each class it is."""

    true: dict[str, int]
    figures: dict[str, RankedFigure]


class UnitSums(_UnitSums, total=False):
    """What an interval is drawn from, kept for later comparisons: sums of each unit.

    ``sums`` has, by the names of quantities, one number for each of ``units``; ``frames`` a digest
    of the frames in each that were answered, which older reports lack, as they do ``ranked``.
    """

    frames: list[str]
    ranked: Ranked


class _Report(TypedDict):
    version: int
    command: list[str]
    created: str
    versions: dict[str, str]
    machine: Machine
    data: list[RecordingData]
    contestants: list[ContestantData]
    method: Method
    figures: dict[str, dict[str, FigureValue]]
    slices: dict[str, dict[str, list[SliceValue]]]
    pairs: list[PairValue]
    curves: dict[str, Curves]
    per_class: dict[str, list[ClassValue]]
    verdict: list[Verdict]
    changes: list[Change]
    compared_with: str | None
    frames_shown: list[ShownFrame]
    problems: list[str]
    units: dict[str, UnitSums]


class Report(_Report, total=False):
    """The whole file; ``things``: by contestant how many things of each class it was judged by,
    which older reports lack."""

    things: dict[str, dict[str, int]]
