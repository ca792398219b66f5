"""``dense-perception export``: a checkpoint becomes ONNX files and the card that lists them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dense_perception.commands.output import print_json

if TYPE_CHECKING:
    from dense_perception.export.compare import Arrays
    from dense_perception.export.package import Exported, Row

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
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="with NAME: a checkpoint of that network, the published one or your own",
    )
    parser.add_argument(
        "--name", metavar="MODEL", help="with NAME: what the exported model is called"
    )
    parser.add_argument(
        "--card", type=Path, metavar="YAML", help="use this card, not the one in the checkpoint"
    )
    parser.add_argument(
        "--random",
        action="store_true",
        help="NAME or FAMILY/VARIANT with random weights, to measure its speed",
    )
    parser.add_argument(
        "--size",
        metavar="WxH",
        help="with NAME: one fixed size, for TensorRT (default: every size of the card's rule)",
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
    group.add_argument(
        "--max-drop",
        type=float,
        metavar="X",
        help="what int8 or fp8 may cost (default 0.02 = 2 %%)",
    )
    group.add_argument(
        "--fp16-drop", type=float, metavar="X", help="what fp16 may cost (default 0.002)"
    )
    group.add_argument(
        "--frames", type=int, default=64, metavar="N", help="calibration frames (default 64)"
    )
    group.add_argument(
        "--method",
        default="minmax",
        choices=("minmax", "percentile", "mse"),
        help="how activation ranges are chosen (default minmax); mse is for int8 alone",
    )
    group.add_argument(
        "--percentile", type=float, default=99.99, help="for --method percentile (default 99.99)"
    )
    group.add_argument(
        "--smooth",
        type=float,
        default=0.5,
        metavar="ALPHA",
        help="SmoothQuant's alpha from 0 to 1 (default 0.5); -1 for none",
    )
    group.add_argument(
        "--float-attention",
        action="store_true",
        help="leave attention's products of activations in floating point",
    )
    group.add_argument(
        "--full-range",
        action="store_true",
        help="use all of int8's range: for GPUs and processors with VNNI only",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def main(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from dense_perception.core.errors import InputError
    from dense_perception.core.reference_frames import reference_feeds
    from dense_perception.export.calibration import calibration_frames, check_variety
    from dense_perception.export.network import open_network
    from dense_perception.export.package import BYTES_DROP, FP16_DROP, Plan, export_model
    from dense_perception.export.quantize import BYTES, QuantizeOptions

    if args.frames < 1:
        raise InputError(f"got --frames {args.frames}, expected 1 or more")
    drops = {}
    for name, default in (("max_drop", BYTES_DROP), ("fp16_drop", FP16_DROP)):
        given = getattr(args, name)
        drops[name] = default if given is None else given
        if not drops[name] > 0:
            raise InputError(f"got --{name.replace('_', '-')} {given}, expected more than 0")
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
    output = _output(args)
    network, card, report = open_network(
        args.checkpoint,
        weights=args.weights,
        card_path=args.card,
        random=args.random,
        size=args.size,
        called=args.name,
    )
    if report:
        print(report, file=sys.stderr)
    frames: Sequence[Arrays] = []
    source = ""
    if args.calibration is not None:
        frames = calibration_frames(args.calibration, card, args.frames, args.topic)
        source = args.calibration.resolve().name
        check_variety(frames, str(args.calibration))
    elif quantised:
        feeds = reference_feeds(card, 8)
        frames = [{name: array[i : i + 1] for name, array in feeds.items()} for i in range(8)]
        source = "reference frames"
    plan = Plan(precisions, frames, source, options, **drops)
    total = 2 + 4 * len({*precisions} - {"fp32"}) + bool(quantised)
    with tqdm(total=total, disable=args.quiet, file=sys.stderr) as bar:

        def on_step(step: str, more: int) -> None:
            bar.total = max((bar.total or 0) + more, bar.n + 1)
            bar.set_description(step)
            bar.update()

        exported = export_model(
            network, card, output, plan, overwrite=args.overwrite, on_step=on_step
        )
        bar.total = bar.n  # a search may end sooner than it could have
        bar.refresh()
    _report(exported, args.json)
    return 0


def _output(args: argparse.Namespace) -> Path:
    """Where to write: for a published model, by default where models are looked for."""
    from dense_perception.core.errors import InputError
    from dense_perception.core.registry import exported_dir, list_models

    if args.output is not None:
        return Path(args.output)
    if args.random:
        raise InputError("name a folder with --output: random weights are for measuring only")
    if args.weights is None and args.checkpoint not in list_models():
        raise InputError(f"name a folder for the model of {args.checkpoint} with --output")
    return exported_dir()


def _report(exported: Exported, as_json: bool) -> None:
    made = exported.card.provenance.get("precision", {})
    if as_json:
        files = [_plain(row) for row in exported.rows]
        print_json({"card": exported.card_path, "files": files, "precision": made})
        return
    print(f"{'file':<32} {'MB':>6} {'runtime':<12} {'against':<14} {'max':>9} {'mean':>9}")
    for row in exported.rows:
        print(
            f"{row.file:<32} {row.bytes / 1e6:>6.1f} {row.runtime:<12} {row.against:<14} "
            f"{row.difference.max_of_range:>9.1e} {row.difference.mean_of_range:>9.1e}"
        )
    for precision, entry in made.items():
        kept = len(entry["kept_fp32"])
        print(f"{precision}: drop {entry['drop']:.4f} of {entry['max_drop']:g} allowed, ", end="")
        print(f"{kept} layers kept in fp32" if kept else "everything converted", end="")
        print(f" (without them {entry['drop_if_all']})" if kept else "")
    print(f"differences are shares of the output's range; card: {exported.card_path}")


def _plain(row: Row) -> dict[str, Any]:
    return {
        "file": row.file,
        "bytes": row.bytes,
        "runtime": row.runtime,
        "against": row.against,
        "max_of_range": row.difference.max_of_range,
        "mean_of_range": row.difference.mean_of_range,
    }
