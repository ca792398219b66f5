"""``dense-perception import``: an ONNX file of others becomes a model of this package."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dense_perception.commands.arguments import add_precision, precision_plan, with_frames
from dense_perception.commands.output import complain, print_json, say

if TYPE_CHECKING:
    from dense_perception.export.foreign.recipe import Facts

HELP = "turn an ONNX file of others into a model that nodes and commands run, without PyTorch"
EXAMPLES = """\
examples:
  dense-perception import depth-anything-small/
  dense-perception import midas.onnx --like dpt --licence MIT
  dense-perception import segformer.onnx --labels ade20k --dry-run
  dense-perception import yolo26n-sem.onnx
  dense-perception import net.onnx --depth-kind metric --depth-range 0.1 20
  dense-perception import unet.onnx --pixels signed --labels classes.txt --size 640x480
  dense-perception import depth-anything-small/ --precision int8 --calibrate drive.mp4

A Hugging Face folder (config.json, preprocessor_config.json, onnx/model.onnx) is taken as it is. Of
other files the graph and its metadata are read, and the rest is guessed. Every choice is printed
with its reason, and has an option. What cannot be guessed and matters is asked for.
The artefact answers as the graph does with its pipeline in NumPy, to 1e-4, or is not written.
--like: depth_anything_v2, dpt, segformer, mmseg, ultralytics-sem, nav2.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="FILE|FOLDER", help="an ONNX file, or a folder with one")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="where to write (default: your models)"
    )
    parser.add_argument("--name", metavar="MODEL", help="what the model is called")
    parser.add_argument("--like", metavar="KIND", help="take what is usual for this kind")
    parser.add_argument("--licence", metavar="TEXT", help="of the weights, for the card")
    parser.add_argument("--overwrite", action="store_true", help="replace files of the same name")
    parser.add_argument("--dry-run", action="store_true", help="show the choices, write nothing")
    _add_picture(parser)
    _add_answers(parser)
    add_precision(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _add_picture(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("picture")
    group.add_argument("--size", metavar="WxH", help="where the graph leaves it free; or: free")
    group.add_argument("--layout", choices=("NCHW", "NHWC"), help="order of the input's sides")
    group.add_argument("--channels", choices=("RGB", "BGR"), help="order of colours")
    group.add_argument(
        "--pixels", choices=("unit", "bytes", "signed"), help="0 to 1, 0 to 255, or -1 to 1"
    )
    for name, what in (("--mean", "subtracted"), ("--std", "divided by")):
        group.add_argument(
            name, nargs=3, type=float, metavar=("R", "G", "B"), help=f"what is {what} then"
        )
    group.add_argument(
        "--resize",
        choices=("stretch", "letterbox", "lower_bound", "minimal"),
        help="how pictures get the size: see docs/model_cards.md",
    )
    group.add_argument("--multiple", type=int, metavar="N", help="sides are multiples of this")
    group.add_argument("--interpolation", choices=("area", "linear", "cubic"))
    group.add_argument("--pad", type=int, metavar="0-255", help="value around a letterbox")
    group.add_argument("--place", choices=("centre", "corner"), help="of a letterbox's picture")


def _add_answers(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("answers")
    group.add_argument(
        "--graph-output", nargs="+", metavar="NAME", help="which of the graph's outputs to take"
    )
    group.add_argument("--task", choices=("depth", "segmentation"))
    group.add_argument(
        "--depth-kind",
        choices=("metric", "relative_inverse", "relative"),
        help="metres, inverse depth up to scale and shift, or depth up to scale",
    )
    group.add_argument("--depth-scale", type=float, metavar="A", help="depth is A * y + B")
    group.add_argument("--depth-shift", type=float, metavar="B", help="see --depth-scale")
    group.add_argument(
        "--depth-inverse", action="store_true", default=None, help="depth is 1 / (A * y + B)"
    )
    group.add_argument(
        "--depth-range", nargs=2, type=float, metavar=("MIN", "MAX"), help="metres that are valid"
    )
    group.add_argument(
        "--restore", choices=("linear", "corners", "cubic"), help="how depth is resized back"
    )
    group.add_argument(
        "--scores",
        choices=("logits", "probabilities", "labels"),
        help="what the graph gives for labels",
    )
    group.add_argument("--activation", choices=("softmax", "sigmoid"), help="of logits")
    group.add_argument(
        "--threshold", type=float, metavar="P", help="labels less certain than this are void"
    )
    group.add_argument(
        "--labels", metavar="FILE|SET|N", help="names by label: .txt, .json, .yaml, or ade20k, ..."
    )
    group.add_argument("--void", nargs="+", type=int, metavar="LABEL", help="labels that mean none")


def main(args: argparse.Namespace) -> int:
    from dense_perception.core.registry import exported_dir
    from dense_perception.core.storage import user_path
    from dense_perception.export.foreign.convert import import_graph, open_foreign, without_own
    from dense_perception.export.report import (
        decisions_table,
        export_summary,
        export_table,
        opening_progress,
        progress_of,
    )

    plan = precision_plan(args)
    given = _given(args)
    with opening_progress(quiet=args.quiet) as on_opening:
        opened = open_foreign(
            user_path(args.path), given, args.like, on_step=on_opening, on_long=complain
        )
    if args.dry_run:
        if args.json:
            print_json({"settled": opened.decisions})
        else:
            say(decisions_table(opened.decisions))
        return 0
    if not args.json:
        say(decisions_table(opened.decisions))
    if args.output is None:
        _refuse_hiding(opened.card.name)
    asked, precision = plan.precisions, opened.graph.precision
    plan = without_own(plan, precision)
    if precision != "fp32" and precision in asked:
        complain(
            f"the graph is {precision} already: it is taken as it is, no layer is chosen and no "
            "frame looked at for it; import the model's fp32 file for that"
        )
    if plan.precisions:
        plan = with_frames(plan, args, opened.card)
    with progress_of(plan, quiet=args.quiet) as on_step:
        exported = import_graph(
            opened,
            args.output or exported_dir(),
            plan,
            overwrite=args.overwrite,
            on_step=on_step,
        )
    for warning in exported.warnings:
        complain(warning)
    if args.json:
        print_json({"settled": opened.decisions, **export_summary(exported)})
    else:
        say(f"\n{export_table(exported)}")
    return 0


def _refuse_hiding(name: str) -> None:
    """
    :raises InputError: if a model of that name has files elsewhere, which this one would hide.
    """
    from dense_perception.core.card import ModelCard
    from dense_perception.core.errors import InputError
    from dense_perception.core.registry import exported_dir, list_models

    known = list_models().get(name)
    if known is None or known.parent == exported_dir():
        return
    if ModelCard.from_yaml(known).files:
        raise InputError(
            f"{name} is the name of a model in {known.parent}, which this one would hide: give "
            "another --name"
        )


def _given(args: argparse.Namespace) -> Facts:
    """What the options say, each with its name as the reason.

    :raises InputError: if one is out of range.
    """
    from dense_perception.export.foreign.labels import read_labels
    from dense_perception.export.foreign.options import checked

    values: dict[str, object] = {
        "size": args.size,
        "layout": args.layout,
        "channels": args.channels,
        "pixels": args.pixels,
        "mean": args.mean,
        "std": args.std,
        "resize": args.resize,
        "multiple": args.multiple,
        "interpolation": args.interpolation,
        "pad": args.pad,
        "place": args.place,
        "outputs": args.graph_output,
        "task": args.task,
        "depth_kind": args.depth_kind,
        "depth_scale": args.depth_scale,
        "depth_shift": args.depth_shift,
        "depth_inverse": args.depth_inverse,
        "depth_range": args.depth_range,
        "restore": args.restore,
        "scores": args.scores,
        "activation": args.activation,
        "threshold": args.threshold,
        "labels": read_labels(args.labels) if args.labels is not None else None,
        "void": args.void,
        "licence": args.licence,
        "name": args.name,
    }
    return checked({name: value for name, value in values.items() if value is not None})
