"""``dense-perception evaluate``: depth against a bag's, labels against annotated pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

from dense_perception.commands.run import add_model_arguments

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

Labels are compared at the picture's size. As exported, a picture is stretched to the network's
size; with --multi-scale, --flip or --weights the published network runs in PyTorch as its authors
evaluate it: short side scaled to the window, aspect kept, windows sliding.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a model's name (see `dense-perception models`) or file")
    truth = parser.add_mutually_exclusive_group(required=True)
    truth.add_argument("--bag", type=Path, help="depth: bag folder, .mcap or .db3 file")
    truth.add_argument("--images", type=Path, metavar="DIR", help="labels: folder of pictures")
    parser.add_argument("--limit", type=int, metavar="N", help="stop after N frames or pictures")
    add_model_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
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
    from dense_perception.commands import evaluate_bags as bags_command
    from dense_perception.commands import evaluate_labels as labels_command

    return (bags_command if options.bag is not None else labels_command).main(options)
