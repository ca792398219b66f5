"""How numbers, figures and intervals read on the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

from dense_perception.core.printable import counted
from dense_perception.evaluation.document import Method, RecordingData
from dense_perception.evaluation.figures import IOU, class_of, figure, is_of_class

NONE = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"
_MEASURES = {
    "absrel": "AbsRel",
    "sqrel": "SqRel",
    "rmse": "RMSE",
    "rmselog": "RMSElog",
    "log10": "log10",
    "silog": "SILog",
    "d1": "d1",
    "d2": "d2",
    "d3": "d3",
    "mean_deg": "Mean angle",
    "median_deg": "Median angle",
    "within_11": "Within 11.25°",
    "within_22": "Within 22.5°",
    "within_30": "Within 30°",
    "l1": "Mean absolute error",
    "miou": "Mean IoU",
    "accuracy": "Pixel accuracy",
    "ece": "Calibration error (ECE)",
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "AP, small",
    "ap_medium": "AP, medium",
    "ap_large": "AP, large",
    "recall": "Recall",
    "pq": "PQ",
    "sq": "SQ",
    "rq": "RQ",
    "scale": "Scale",
    "coverage": "Coverage",
    "f1": "Boundary F-score",
    "within_4px": "Steps made within 4 px",
    "scale_jitter": "Scale jitter",
    "flicker": "Flicker",
}
_GROUPS = {
    "depth.metric": "Metric depth, as answered",
    "depth.scaled": "Depth, scaled by the medians",
    "depth.aligned": "Depth, best scale and shift",
    "depth.normals": "Normals of the depth",
    "depth": "Depth, other",
    "normals": "Normals",
    "labels": "Labels",
    "boxes": "Things, by their boxes",
    "masks": "Things, by their masks",
    "panoptic.things": "Segments of things",
    "panoptic.stuff": "Segments of stuff",
    "panoptic": "Segments of things and stuff",
    "confidence": "Confidence of the labels",
    "temporal": "From frame to frame",
}
_SHORT = {
    "depth.metric": "metric depth",
    "depth.scaled": "scaled depth",
    "depth.aligned": "aligned depth",
    "depth.normals": "normals of the depth",
    "panoptic": "things and stuff",
    "panoptic.things": "things",
    "panoptic.stuff": "stuff",
    "temporal": "from frame to frame",
}
_HINTS = {
    "d1": "share within 25\u00a0%",
    "d2": "share within 56 %",
    "d3": "share within 95 %",
    "scale": "prediction / truth",
    "ap": "overlaps .50 to .95",
    "ap_small": "up to 32 x 32 pixels",
    "ap_medium": "32 x 32 to 96 x 96",
    "ap_large": "96 x 96 and more",
    "pq": "SQ x RQ",
    "sq": "overlap of what is found",
    "rq": "F1 of finding",
}


def group_of(name: str) -> str:
    """The heading that a figure stands under."""
    parts = name.split("@")[0].split(".")
    for length in (2, 1):
        if title := _GROUPS.get(".".join(parts[:length])):
            return title
    return parts[0].capitalize()


def measure_of(name: str) -> str:
    """What is measured, without what it is measured of: ``AbsRel``."""
    if name.startswith(IOU):
        return f"IoU of {name.removeprefix(IOU)}"
    if is_of_class(name):
        whole, label = class_of(name)
        return f"{measure_of(whole)} of {label}"
    last = name.split("@")[0].rpartition(".")[2]
    return _MEASURES.get(last, last)


def title_of(name: str) -> str:
    """A figure in full: ``AbsRel, metric depth``."""
    base = name.split("@")[0]
    return measure_of(name) if base.startswith(IOU) else f"{measure_of(base)}, {subject_of(base)}"


def subject_of(name: str) -> str:
    """What a figure is measured of: ``metric depth``."""
    if is_of_class(name):
        name = class_of(name)[0]
    prefix = name.split("@")[0].rpartition(".")[0]
    return _SHORT.get(prefix, prefix.split(".")[0])


def hint_of(name: str) -> str:
    """What a measure is, in few words, where its name does not say; or empty."""
    if is_of_class(name):
        return ""
    return _HINTS.get(name.split("@")[0].rpartition(".")[2], "")


def direction_of(name: str) -> str:
    """Which values are good, with the unit: ``m, lower is better``."""
    known = figure(name)
    better = {
        "lower": "lower is better",
        "higher": "higher is better",
        "one": "1 is right",
    }[known.better]
    return f"{known.unit}, {better}" if known.unit else better


def number(value: float | None, name: str = "") -> str:
    """A figure's value at the digits that matter; a dash for none."""
    if value is None or not math.isfinite(value):
        return NONE
    digits = digits_of(name)
    text = f"{value:.{digits}f}"
    if value and not float(text):
        text = f"{value:.1g}"
    elif abs(value) >= 10_000:
        text = f"{value:.3g}"
    return text.replace("-", _MINUS)


def signed(value: float | None, name: str = "") -> str:
    """A difference, with its sign."""
    text = number(value, name)
    return f"+{text}" if value is not None and math.isfinite(value) and value > 0 else text


def interval(low: float | None, high: float | None, name: str = "") -> str:
    """``[0.004, 0.020]``; empty where there is none."""
    if low is None or high is None:
        return ""
    return f"[{number(low, name)}, {number(high, name)}]"


def how_much(data: Sequence[RecordingData]) -> str:
    """``24 frames of 1 recording; 2 others could not be used``."""
    used = [each for each in data if each["scored"]]
    scored = sum(each["scored"] for each in used)
    text = f"{counted(scored, 'frame')} of {counted(len(used), kind_of(used))}"
    others = len(data) - len(used)
    if others:
        text += f"; {others} {'other' if others == 1 else 'others'} could not be used"
    return text


def kind_of(data: Sequence[RecordingData]) -> str:
    """What to call the data: a bag and a folder are one recording each, a corpus is many."""
    single = all(each["kind"] in ("bag", "folder", "unreadable") for each in data)
    return "recording" if single else "source"


def reach(method: Method) -> str:
    """What the intervals, or without any the figures, speak for: a sentence."""
    if not method["speaks_for"]:
        return ""
    what = "Figures" if method["unit"] == "none" else "Intervals"
    return f"{what} speak for {method['speaks_for']}."


def reason(why: str) -> str:
    """Why a difference is certain or not, where that itself stands beside it."""
    for word in ("not certain: ", "certain: ", "certain "):
        if why.startswith(word):
            return why.removeprefix(word)
    return why


def moment(text: str) -> str:
    """``27 November 2026, 02:30 UTC`` of an ISO time; another text as it is."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return text
    zone = f" {when.tzname()}" if when.tzinfo else ""
    return f"{when.day} {when:%B %Y, %H:%M}{zone}"


def digits_of(name: str) -> int:
    """How many decimals of a figure matter; of no name those of a plain ratio."""
    if not name:
        return 3
    return 1 if figure(name).unit == "deg" or name.endswith(".silog") else 3
