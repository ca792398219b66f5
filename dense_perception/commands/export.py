"""``dense-perception export``: a checkpoint becomes ONNX files and the card that lists them."""

from __future__ import annotations

import argparse
from pathlib import Path

from dense_perception.commands.arguments import add_precision, precision_plan, with_frames
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
  dense-perception export depth_anything_v2_small --size 686x518 --tensorrt 8.6 --output jetpack_6_0
  dense-perception export segmenter_small_mask_ade20k --weights mine.pth --name my_segmenter
  dense-perception export dpt/base --random --size 384x384 --output /tmp/dpt_base

writes NAME_fp32.onnx, what --precision wants beside it, and NAME.yaml. fp32 is compared with eager
PyTorch, the others across the runtimes installed, before anything is written. The layers that hurt
stay in fp32: as few as keep the answer within the drop. The drop is measured against fp32 on frames
kept out of calibration: the mean relative change of metric depth, the mean change over the range of
other depth, the share of changed labels, the mean angle of normals over 90 degrees, the mean change
of other maps, the share of things that no longer agree, by score. The largest of a model counts.
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
    add_precision(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def main(args: argparse.Namespace) -> int:
    from dense_perception.core.errors import InputError
    from dense_perception.export.network import default_folder, open_network
    from dense_perception.export.package import export_model
    from dense_perception.export.report import export_summary, export_table, progress_of

    plan = precision_plan(args)
    if plan.quantised and args.calibration is None and not args.random:
        raise InputError(
            f"--precision {' '.join(plan.quantised)} needs frames: give --calibrate a folder, a "
            "video or a bag"
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
    plan = with_frames(plan, args, card)
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
