"""``dense-perception evaluate``: a model against a bag, annotated pictures or a data set."""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from dense_perception.commands.arguments import (
    add_camera_matrix,
    add_json,
    add_model,
    add_model_options,
    add_reading,
    at_least_one,
    image_reader,
    model_options,
)
from dense_perception.commands.output import print_problems, show
from dense_perception.core.errors import InputError
from dense_perception.core.registry import find_card

if TYPE_CHECKING:
    from dense_perception.runtime.perceiver import Perceiver

HELP = "Compare a model with a ROS 2 bag's depth, annotated pictures, a corpus or a data set."
EXAMPLES = """\
examples:
  dense-perception evaluate dpt_tiny_indoor --bag recording/
  dense-perception evaluate dpt_tiny_indoor --bag recording/ --precision int8 --json
  dense-perception evaluate dpt_tiny_indoor --bag recording/ --topic /camera/color/image_raw \\
      --depth-topic /camera/aligned_depth_to_color/image_raw
  dense-perception evaluate dpt_tiny_indoor --data corpora/office_val
  dense-perception evaluate dpt_tiny_indoor --data nyu_test:nyu_depth_v2_labeled.mat --max-depth 10
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
    truth.add_argument("--bag", type=Path, help="depth: bag folder, .mcap, .db3 or .bag file")
    truth.add_argument("--images", type=Path, metavar="DIR", help="labels: folder of pictures")
    truth.add_argument("--data", metavar="CORPUS", help="depth, labels or both: corpus or SET:PATH")
    parser.add_argument(
        "--limit", type=at_least_one, metavar="N", help="stop after N frames or pictures"
    )
    add_model_options(parser)
    add_reading(parser)
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
    add_camera_matrix(depth)
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
    if options.data is not None:
        return _data(options)
    return (_depth if options.bag is not None else _labels)(options)


def _depth(options: argparse.Namespace) -> int:
    from dense_perception.evaluation.bags import PairSource, evaluate_pairs
    from dense_perception.evaluation.report import depth_summary, depth_table

    source = PairSource(
        options.bag,
        topic=options.topic,
        depth_topic=options.depth_topic,
        tolerance_ms=options.tolerance_ms,
        reader=image_reader(options),
        matrix=options.camera_matrix,
    )
    with closing(source), _load(options) as perceiver:
        report = evaluate_pairs(
            perceiver, source, options.max_depth, limit=options.limit, progress=True
        )
        summary = depth_summary(perceiver, options.bag, report, per_frame=options.per_frame)
    print_problems(summary["problems"])
    show(summary, depth_table, options.json)
    return int(bool(summary["problems"]))


def _labels(options: argparse.Namespace) -> int:
    from dense_perception.evaluation import segmentation
    from dense_perception.evaluation.report import label_summary, label_table

    if options.labels is None:
        raise InputError("--images needs --labels with the folder of their label PNGs")
    pairs, left_out = segmentation.picture_pairs(options.images, options.labels)
    pairs, reader = pairs[: options.limit], image_reader(options)
    averaged = {"multi_scale": options.multi_scale, "flip": options.flip}
    if any(averaged.values()) or options.weights is not None:
        card = find_card(options.model)
        label = segmentation.network_labeller(card, options.weights, **averaged)
        report = segmentation.evaluate_labels(card, label, pairs, reader=reader, progress=True)
    else:
        with _load(options) as perceiver:
            card, label = perceiver.card, segmentation.perceiver_labeller(perceiver)
            report = segmentation.evaluate_labels(card, label, pairs, reader=reader, progress=True)
    report.problems.extend([left_out] if left_out else [])
    summary = label_summary(card, options.images, report, **averaged)
    print_problems(summary["problems"])
    show(summary, label_table, options.json)
    return int(bool(summary["problems"]))


def _data(options: argparse.Namespace) -> int:
    from dense_perception.data.sources import open_frames
    from dense_perception.evaluation import corpora, report
    from dense_perception.evaluation.bags import evaluate_pairs
    from dense_perception.evaluation.segmentation import perceiver_labeller

    frames = open_frames(options.data)
    found: dict[str, report.DepthSummary | report.LabelSummary] = {}
    tables: list[str] = []
    problems: list[str] = []
    with _load(options) as perceiver:
        card = perceiver.card
        if card.depth is not None and corpora.has_depth(frames):
            pairs = corpora.FramePairs(frames, options.limit)
            depths = evaluate_pairs(perceiver, pairs, options.max_depth, progress=True)
            depth = report.depth_summary(
                perceiver, Path(options.data), depths, per_frame=options.per_frame
            )
            found["depth"] = depth
            tables.append(report.depth_table(depth))
            problems += depth["problems"]
        if card.segmentation is not None and corpora.has_labels(frames):
            labels = report.label_summary(
                card,
                Path(options.data),
                corpora.evaluate_frame_labels(
                    card, perceiver_labeller(perceiver), frames, options.limit, progress=True
                ),
                multi_scale=False,
                flip=False,
            )
            found["labels"] = labels
            tables.append(report.label_table(labels))
            problems += labels["problems"]
    if not found:
        raise InputError(
            f"{frames.name} has neither depth nor labels that {card.name} gives: choose another "
            "model or data set"
        )
    print_problems(problems)
    show(found, lambda _: "\n\n".join(tables), options.json)
    return int(bool(problems))


def _load(options: argparse.Namespace) -> Perceiver:
    """The exported model; answers have the truth's size, whatever that is."""
    from dense_perception.runtime.perceiver import Perceiver

    hfov = options.hfov
    return Perceiver.load(
        options.model, **model_options(options), default_hfov_deg=hfov, max_output_side=8192
    )
