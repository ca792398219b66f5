"""What an evaluation found, as JSON and as a table for eyes."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from dense_perception.core.card import ModelCard
from dense_perception.core.printable import counted
from dense_perception.evaluation.bags import BagReport
from dense_perception.evaluation.segmentation import LabelReport
from dense_perception.runtime.perceiver import Perceiver

_ROWS = ("abs_rel", "rmse", "d1", "d2", "d3")


class _DepthFigures(TypedDict):
    model: str
    precision: str
    backend: str
    bag: str
    topic: str
    depth_topic: str
    frames: int
    unmatched: int
    intrinsics_assumed: int
    means: dict[str, float]
    row_prior: dict[str, float]
    problems: list[str]


class DepthSummary(_DepthFigures, total=False):
    """A model's depth on one bag; ``per_frame`` where it was asked for."""

    per_frame: list[dict[str, float]]


class LabelSummary(TypedDict):
    """A model's labels on one folder of pictures, in percent."""

    model: str
    images: str
    pictures: int
    multi_scale: bool
    flip: bool
    miou_percent: float
    pixel_accuracy_percent: float
    iou_percent: dict[str, float]
    problems: list[str]


def depth_summary(
    perceiver: Perceiver, bag: Path, report: BagReport, *, per_frame: bool = False
) -> DepthSummary:
    """The figures of ``report``, with what gave them."""
    summary = DepthSummary(
        model=perceiver.card.name,
        precision=perceiver.selection.precision,
        backend=perceiver.backend.description,
        bag=str(bag),
        topic=report.topic,
        depth_topic=report.depth_topic,
        frames=len(report.frames),
        unmatched=report.unmatched,
        intrinsics_assumed=report.intrinsics_assumed,
        means=_rounded(report.means()),
        row_prior=_rounded(report.row_prior_means()),
        problems=report.problems,
    )
    if per_frame:
        summary["per_frame"] = [
            {"stamp_ns": stamp, **_rounded(metrics)}
            for stamp, metrics in zip(report.stamps_ns, report.frames, strict=True)
        ]
    return summary


def label_summary(
    card: ModelCard, images: Path, report: LabelReport, *, multi_scale: bool, flip: bool
) -> LabelSummary:
    """The figures of ``report``, with what gave them."""
    return LabelSummary(
        model=card.name,
        images=str(images),
        pictures=report.pictures,
        multi_scale=multi_scale,
        flip=flip,
        miou_percent=round(100 * report.mean_iou, 3),
        pixel_accuracy_percent=round(100 * report.pixel_accuracy, 3),
        iou_percent={name: round(100 * iou, 3) for name, iou in report.ious.items()},
        problems=report.problems,
    )


def depth_table(summary: DepthSummary) -> str:
    """Metric, aligned and row prior beside each other."""
    means, prior = summary["means"], summary["row_prior"]
    lines = [
        f"{summary['model']} ({summary['precision']}, {summary['backend']})",
        f"{counted(summary['frames'], 'frame')} of {summary['topic']} against "
        f"{summary['depth_topic']}"
        + (f", {summary['unmatched']} without a partner" if summary["unmatched"] else ""),
        "",
        f"{'':10}{'metric':>10}{'aligned':>10}{'row prior':>11}",
    ]
    for name in _ROWS:
        cells = (means.get(name), means.get(f"aligned_{name}"), prior.get(f"aligned_{name}"))
        texts = ["-" if cell is None else f"{cell:.3f}" for cell in cells]
        lines.append(f"{name:10}{texts[0]:>10}{texts[1]:>10}{texts[2]:>11}")
    if "coverage" in means:
        lines.append(f"\n{100 * means['coverage']:.1f} % of the measured pixels were answered")
    if summary["intrinsics_assumed"]:
        lines.append(
            f"{counted(summary['intrinsics_assumed'], 'frame')} had no calibration: metres are a "
            "guess"
        )
    if "per_frame" in summary:
        metric = any("abs_rel" in frame for frame in summary["per_frame"])
        names = [name if metric else f"aligned_{name}" for name in _ROWS]
        lines += ["", f"{'stamp [ns]':>20}" + "".join(f"{name:>17}" for name in names)]
        for frame in summary["per_frame"]:
            row = "".join(f"{frame[name]:>17.3f}" for name in names)
            lines.append(f"{int(frame['stamp_ns']):>20}{row}")
    return "\n".join(lines)


def label_table(summary: LabelSummary) -> str:
    """Mean IoU, pixel accuracy, the best and the worst classes."""
    averaged = {"multi scale": summary["multi_scale"], "flip": summary["flip"]}
    classes = len(summary["iou_percent"])
    how = " and ".join(name for name, on in averaged.items() if on) or "single scale"
    lines = [
        f"{summary['model']}, {how}, {counted(summary['pictures'], 'picture')} of "
        f"{summary['images']}",
        "",
        f"mean IoU        {summary['miou_percent']:6.2f} %  "
        f"({counted(classes, 'class')} {'occurs' if classes == 1 else 'occur'})",
        f"pixel accuracy  {summary['pixel_accuracy_percent']:6.2f} %",
    ]
    ranked = sorted(summary["iou_percent"].items(), key=lambda item: item[1])
    if len(ranked) > 1:
        worst = ", ".join(f"{name} {iou:.1f}" for name, iou in ranked[:3])
        best = ", ".join(f"{name} {iou:.1f}" for name, iou in ranked[:-4:-1])
        lines += [f"best classes    {best}", f"worst classes   {worst}"]
    return "\n".join(lines)


def _rounded(metrics: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 5) for name, value in metrics.items()}
