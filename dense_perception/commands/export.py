"""``dense-perception export``: a checkpoint becomes ONNX files and the card that lists them."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from dense_perception.commands.arguments import above_zero, add_reading, at_least_one, image_reader
from dense_perception.commands.output import complain, print_json, say

HELP = "turn a checkpoint into fp32, fp16, int8 and fp8 ONNX files with their model card"
EXAMPLES = """\
examples:
  dense-perception export runs/tiny/model.pt --output models
  dense-perception export runs/tiny/model.pt --output models --calibrate corpora/rooms
  dense-perception export runs/tiny/model.pt --output m --calibrate robot.mcap --max-drop 0.01
  dense-perception export depth_anything_v2_small --precision fp32 fp16 int8 --calibrate drive.mp4
  dense-perception export depth_anything_v2_small --precision fp8 --calibrate drive.mp4
  dense-perception export depth_anything_v2_small --size 686x518
  dense-perception export segmenter_small_mask_ade20k --weights mine.pth --name my_segmenter
  dense-perception export dpt/base --random --size 384x384 --output /tmp/dpt_base

writes NAME_fp32.onnx, what --precision wants beside it, and NAME.yaml. fp32 is compared with eager
PyTorch, the others across the runtimes installed, before anything is written. The layers that hurt
stay in fp32: as few as keep the answer within the drop. The drop is measured against fp32 on frames
kept out of calibration: the mean relative change of metric depth, the mean change over the range of
other depth, or the share of changed labels.
fp8 is for NVIDIA GPUs from compute capability 8.9 on, with TensorRT 10 or TensorRT for RTX; a CPU
only emulates it.
The name of a model whose weights were fetched exports it to where models are looked for.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT|NAME",
        help="model.pt of `dense-perception train`, or a model of `dense-perception models`",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to write")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="with NAME: your checkpoint")
    parser.add_argument("--name", metavar="MODEL", help="with NAME: what the export is called")
    parser.add_argument("--card", type=Path, metavar="YAML", help="use it, not the checkpoint's")
    parser.add_argument(
        "--random", action="store_true", help="NAME or FAMILY/VARIANT untrained, to time it"
    )
    parser.add_argument(
        "--size", metavar="WxH", help="with NAME: one fixed size, for TensorRT (default: any)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files of the same name")
    group = parser.add_argument_group("precision")
    group.add_argument(
        "--precision",
        nargs="+",
        choices=("fp32", "fp16", "int8", "fp8"),
        metavar="P",
        help="fp32, fp16, int8, fp8 (default: int8 with --calibrate); fp32 is always made",
    )
    group.add_argument(
        "--calibrate",
        "--calibration",
        dest="calibration",
        type=Path,
        metavar="FOLDER|VIDEO|BAG",
        help="pictures, a generated corpus, a video or a bag of your robot, for int8 and fp8",
    )
    group.add_argument("--topic", help="the bag's colour topic (default: the only one)")
    add_reading(group, limits=False)
    group.add_argument(
        "--max-drop", type=above_zero, default=0.02, help="int8 and fp8 may cost this (%(default)s)"
    )
    group.add_argument(
        "--fp16-drop", type=above_zero, default=0.002, help="fp16 may cost this (%(default)s)"
    )
    group.add_argument(
        "--frames",
        type=at_least_one,
        default=64,
        help="at most so many to calibrate on (%(default)s)",
    )
    group.add_argument(
        "--method",
        default="minmax",
        choices=("minmax", "percentile", "mse"),
        help="how activation ranges are chosen (%(default)s); mse is for int8 alone",
    )
    group.add_argument(
        "--percentile", type=float, default=99.99, help="for --method percentile (%(default)s)"
    )
    group.add_argument(
        "--smooth", type=float, default=0.5, help="SmoothQuant's alpha, 0 to 1 (0.5); -1 for none"
    )
    group.add_argument(
        "--float-attention", action="store_true", help="keep products of activations in float"
    )
    group.add_argument(
        "--full-range", action="store_true", help="all of int8: for GPUs and x86 with VNNI only"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def main(args: argparse.Namespace) -> int:
    from dense_perception.core.errors import InputError
    from dense_perception.export.calibration import frames_from
    from dense_perception.export.network import default_folder, open_network
    from dense_perception.export.package import Plan, export_model
    from dense_perception.export.quantize import BYTES, QuantizeOptions
    from dense_perception.export.report import export_summary, export_table, progress_of

    precisions = args.precision or (["int8"] if args.calibration else [])
    quantised = [kind for kind in BYTES if kind in precisions]
    if quantised and args.calibration is None and not args.random:
        raise InputError(
            f"--precision {' '.join(quantised)} needs frames: give --calibrate a folder, a video "
            "or a bag"
        )
    options = QuantizeOptions(
        method=args.method,
        percentile=args.percentile,
        smooth=None if args.smooth < 0 else args.smooth,
        products=not args.float_attention,
        full_range=args.full_range,
    )
    weights, random = args.weights, args.random
    output = args.output or default_folder(args.checkpoint, weights=weights, random=random)
    network, card, report = open_network(
        args.checkpoint,
        weights=weights,
        card_path=args.card,
        random=random,
        size=args.size,
        called=args.name,
    )
    if report:
        complain(report)
    plan = Plan(precisions, options=options, max_drop=args.max_drop, fp16_drop=args.fp16_drop)
    if args.calibration is not None or quantised:
        frames, source = frames_from(
            args.calibration, card, args.frames, args.topic, image_reader(args)
        )
        plan = replace(plan, frames=frames, source=source)
    with progress_of(plan, quiet=args.quiet) as on_step:
        exported = export_model(
            network, card, output, plan, overwrite=args.overwrite, on_step=on_step
        )
    for warning in exported.warnings:
        complain(warning)
    if args.json:
        print_json(export_summary(exported))
    else:
        say(export_table(exported))
    return 0
