"""``dense-perception evaluate``: depth against a bag's, labels against annotated pictures."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from dense_perception.commands.arguments import (
    add_json,
    add_model,
    add_model_options,
    model_options,
)
from dense_perception.commands.output import print_problems, show
from dense_perception.core.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from dense_perception.core.card import ModelCard
    from dense_perception.evaluation.segmentation import Labeller


_ROWS = ("abs_rel", "rmse", "d1", "d2", "d3")

HELP = "Compare a model's depth with a ROS 2 bag's, or its labels with annotated pictures."
EXAMPLES = """\
examples:
  dense-perception evaluate dpt_tiny_indoor --bag recording/
  dense-perception evaluate dpt_tiny_indoor --bag recording/ --precision int8 --json
  dense-perception evaluate dpt_tiny_indoor --bag recording/ --topic /camera/color/image_raw \\
      --depth-topic /camera/aligned_depth_to_color/image_raw
  dense-perception evaluate segmenter_small_mask_ade20k --images ADE/images/validation \\
      --labels ADE/annotations/validation
  dense-perception evaluate segmenter_small_mask_ade20k --images ADE/images/validation \\
      --labels ADE/annotations/validation --multi-scale --flip

Depth must be aligned with (seen from) the colour camera. Each metric is the mean over frames:
`metric` as predicted, `aligned` after the best scale and shift in inverse depth of each frame,
`row prior` for knowing the pixel row alone (each row's mean over this bag), aligned: what to beat.

Labels are compared at the picture's size. The exported file is fed as its card says; a published
network as its authors feed it: short side scaled, aspect kept, windows sliding. With --multi-scale,
--flip or --weights the network runs in PyTorch, each scale made from the picture itself.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    truth = parser.add_mutually_exclusive_group(required=True)
    truth.add_argument("--bag", type=Path, help="depth: bag folder, .mcap or .db3 file")
    truth.add_argument("--images", type=Path, metavar="DIR", help="labels: folder of pictures")
    parser.add_argument("--limit", type=int, metavar="N", help="stop after N frames or pictures")
    add_model_options(parser)
    add_json(parser)
    depth = parser.add_argument_group("depth")
    depth.add_argument("--topic", help="colour topic (default: the only one)")
    depth.add_argument("--depth-topic", help="depth topic (default: the only one)")
    depth.add_argument(
        "--tolerance-ms", type=float, default=5.0, help="stamps of a pair may differ by this much"
    )
    depth.add_argument(
        "--max-depth", type=float, default=20.0, metavar="M", help="leave out truth beyond this"
    )
    depth.add_argument(
        "--hfov", type=float, default=60.0, metavar="DEG", help="where there is no calibration"
    )
    depth.add_argument("--per-frame", action="store_true", help="in the JSON, each frame too")
    labels = parser.add_argument_group("labels")
    labels.add_argument(
        "--labels", type=Path, metavar="DIR", help="PNGs of classes, named as the pictures"
    )
    labels.add_argument(
        "--multi-scale", action="store_true", help="average over scales 0.5 to 1.75"
    )
    labels.add_argument("--flip", action="store_true", help="average over the mirror image too")
    labels.add_argument(
        "--weights", type=Path, metavar="FILE", help="the published checkpoint, if not fetched"
    )


def main(options: argparse.Namespace) -> int:
    """Returns 0, or 1 if something could not be compared."""
    return (_evaluate_depth if options.bag is not None else _evaluate_labels)(options)


def _evaluate_depth(options: argparse.Namespace) -> int:
    from dense_perception.evaluation.bags import PairSource, evaluate_pairs
    from dense_perception.runtime.perceiver import Perceiver

    source = PairSource(
        options.bag,
        topic=options.topic,
        depth_topic=options.depth_topic,
        tolerance_ms=options.tolerance_ms,
    )
    try:
        with Perceiver.load(
            options.model,
            **model_options(options),
            default_hfov_deg=options.hfov,
            max_output_side=8192,
        ) as perceiver:
            if perceiver.card.depth is None:
                raise InputError(
                    f"model {perceiver.card.name} gives labels, no depth: choose a depth model"
                )
            pairs = itertools.islice(source, options.limit)
            bar = tqdm(pairs, total=source.total, unit="frame", disable=None, file=sys.stderr)
            report = evaluate_pairs(perceiver, source, iter(bar), options.max_depth)
            summary: dict[str, Any] = {
                "model": perceiver.card.name,
                "precision": perceiver.selection.precision,
                "backend": perceiver.backend.description,
                "bag": str(options.bag),
                "topic": report.topic,
                "depth_topic": report.depth_topic,
                "frames": len(report.frames),
                "unmatched": report.unmatched,
                "intrinsics_assumed": report.intrinsics_assumed,
                "means": _rounded(report.means()),
                "row_prior": _rounded(report.row_prior_means()),
                "problems": report.problems,
            }
            if options.per_frame:
                summary["per_frame"] = [
                    {"stamp_ns": stamp, **_rounded(metrics)}
                    for stamp, metrics in zip(report.stamps_ns, report.frames, strict=True)
                ]
    finally:
        source.close()
    print_problems(summary["problems"])
    show(summary, _depth_table, options.json)
    return 1 if summary["problems"] else 0


def _rounded(metrics: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 5) for name, value in metrics.items()}


def _depth_table(summary: dict[str, Any]) -> str:
    means, prior = summary["means"], summary["row_prior"]
    lines = [
        f"{summary['model']} ({summary['precision']}, {summary['backend']})",
        f"{summary['frames']} frames of {summary['topic']} against {summary['depth_topic']}"
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
            f"{summary['intrinsics_assumed']} frames had no calibration: metres are a guess"
        )
    return "\n".join(lines)


def _evaluate_labels(options: argparse.Namespace) -> int:
    from dense_perception.evaluation.segmentation import (
        Confusion,
        compare,
        first_label,
        picture_pairs,
    )

    if options.labels is None:
        raise InputError("--images needs --labels with the folder of their label PNGs")
    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit is {options.limit}, expected 1 or more")
    pairs = picture_pairs(options.images, options.labels)[: options.limit]
    with _labeller(options) as (card, label):
        assert card.segmentation is not None
        names = card.segmentation.label_set.labels
        confusion = Confusion(len(names))
        bar = tqdm(pairs, unit="picture", disable=None, file=sys.stderr)
        problems = list(compare(label, iter(bar), confusion, first_label(card)))
    print_problems(problems)
    if len(problems) == len(pairs):
        raise InputError(f"none of the {len(pairs)} pictures could be compared")
    summary: dict[str, Any] = {
        "model": card.name,
        "images": str(options.images),
        "pictures": len(pairs) - len(problems),
        "multi_scale": options.multi_scale,
        "flip": options.flip,
        "miou_percent": round(100 * confusion.mean_iou, 3),
        "pixel_accuracy_percent": round(100 * confusion.pixel_accuracy, 3),
        "iou_percent": {
            name: round(100 * float(iou), 3)
            for name, iou in zip(names, confusion.iou, strict=True)
            if iou == iou  # NaN: a class that occurs nowhere
        },
        "problems": problems,
    }
    show(summary, _labels_table, options.json)
    return 1 if problems else 0


@contextmanager
def _labeller(options: argparse.Namespace) -> Iterator[tuple[ModelCard, Labeller]]:
    """The card, and labels of the picture's size from the exported or the published network."""
    if options.multi_scale or options.flip or options.weights is not None:
        from dense_perception.core.registry import find_card
        from dense_perception.imaging.resize import views
        from dense_perception.nets.labeller import published_labeller
        from dense_perception.nets.sliding_window import SCALES

        card = _segmenting(find_card(options.model))
        of_views = published_labeller(card, options.weights, flip=options.flip)
        scales = SCALES if options.multi_scale else (1.0,)
        yield card, lambda rgb_hwc: of_views(views(rgb_hwc, card, scales), rgb_hwc.shape[:2])
        return
    from dense_perception.runtime.perceiver import Perceiver

    with Perceiver.load(
        options.model,
        **model_options(options),
        max_output_side=8192,
    ) as perceiver:
        card = _segmenting(perceiver.card)

        def label(rgb_hwc: np.ndarray) -> np.ndarray:
            labels = perceiver(rgb_hwc).labels
            assert labels is not None
            return labels.values_hw

        yield card, label


def _segmenting(card: ModelCard) -> ModelCard:
    if card.segmentation is None:
        raise InputError(f"model {card.name} gives no labels: choose a segmentation model")
    return card


def _labels_table(summary: dict[str, Any]) -> str:
    views = [name for name in ("multi_scale", "flip") if summary[name]]
    how = " and ".join(view.replace("_", " ") for view in views) or "single scale"
    lines = [
        f"{summary['model']}, {how}, {summary['pictures']} pictures of {summary['images']}",
        "",
        f"mean IoU        {summary['miou_percent']:6.2f} %  "
        f"({len(summary['iou_percent'])} classes occur)",
        f"pixel accuracy  {summary['pixel_accuracy_percent']:6.2f} %",
    ]
    ranked = sorted(summary["iou_percent"].items(), key=lambda item: item[1])
    if len(ranked) > 1:
        worst = ", ".join(f"{name} {iou:.1f}" for name, iou in ranked[:3])
        best = ", ".join(f"{name} {iou:.1f}" for name, iou in ranked[:-4:-1])
        lines += [f"best classes    {best}", f"worst classes   {worst}"]
    return "\n".join(lines)
