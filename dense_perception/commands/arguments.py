"""Options that several commands share, and what they become."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from dense_perception.core.limits import MAX_JPEG_SCANS, MAX_PIXELS

if TYPE_CHECKING:
    from dense_perception.benchmarks.session import StreamOptions
    from dense_perception.core.card import ModelCard
    from dense_perception.export.model_folder import Plan
    from dense_perception.imaging.messages import ImageReader


TRAINED_MS = 30.0
"""A camera that turns by 30 degrees a second turns by one: training averages that out."""
JUDGED_MS = 5.0
"""A degree is ten pixels at depth edges: errors that no model made would be counted as its own."""


class ModelOptions(TypedDict):
    """Keywords of ``Perceiver.load`` that say how a model is run."""

    backend: str
    precision: str
    device: str
    threads: int
    trust_engine: bool


def add_model(parser: argparse.ArgumentParser) -> None:
    """The model itself, the first word of many commands."""
    parser.add_argument("model", help="a model's name (see `dense-perception models`) or file")


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """How it is run; :func:`model_options` reads them."""
    group = parser.add_argument_group("execution")
    group.add_argument("--backend", default="auto", help="auto, onnxruntime, openvino, ...")
    group.add_argument("--precision", default="auto", help="auto, fp32, fp16, int8 or fp8")
    add_device(group)
    group.add_argument(
        "--trust-engine",
        action="store_true",
        help="do not compare the backend with the reference before it is used",
    )


def add_device(parser: argparse._ActionsContainer) -> None:
    """Where a model runs."""
    parser.add_argument(
        "--device",
        default="auto",
        help="cpu, cuda, gpu, ... (default auto: NVIDIA's GPU where it works, else the CPU)",
    )
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default 0: all cores)")


def add_validation(parser: argparse.ArgumentParser, use: str) -> None:
    """The corpora that ``--validation`` names, for ``use``; empty if none."""
    parser.add_argument(
        "--validation", type=Path, action="append", default=[], metavar="DIR", help=use
    )


def model_options(options: argparse.Namespace) -> ModelOptions:
    """What :func:`add_model_options` was given."""
    return ModelOptions(
        backend=options.backend,
        precision=options.precision,
        device=options.device,
        threads=options.threads,
        trust_engine=options.trust_engine,
    )


def add_reading(group: argparse._ActionsContainer, *, limits: bool = True) -> None:
    """How images are read, with ``limits`` also how large they may be; see :func:`image_reader`."""
    group.add_argument(
        "--bits",
        type=int,
        default=0,
        metavar="N",
        help="bits that 16-bit pictures use, 10 or 12 for many cameras (default: all 16)",
    )
    if limits:
        group.add_argument(
            "--max-pixels",
            type=at_least_one,
            metavar="N",
            help=f"refuse images of more pixels (default: {MAX_PIXELS})",
        )
        group.add_argument(
            "--max-jpeg-scans",
            type=at_least_one,
            metavar="N",
            help=f"refuse progressive JPEGs of more scans (default: {MAX_JPEG_SCANS})",
        )


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Which precisions to export, and how; :func:`precision_plan` reads them."""
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
        "--tensorrt",
        choices=("8.5", "8.6"),
        help="write graphs that this old version reads (JetPack 5.1, 6.0); int8 files grow",
    )
    group.add_argument(
        "--full-range", action="store_true", help="all of int8: for GPUs and x86 with VNNI only"
    )


def precision_plan(args: argparse.Namespace) -> Plan:
    """What :func:`add_precision` was given, without its frames.

    :raises InputError: if a number is out of range.
    """
    from dense_perception.export.model_folder import Plan
    from dense_perception.export.quantize import QuantizeOptions

    options = QuantizeOptions(
        method=args.method,
        percentile=args.percentile,
        smooth=None if args.smooth < 0 else args.smooth,
        products=not args.float_attention,
        full_range=args.full_range,
    )
    precisions = args.precision or (["int8"] if args.calibration else [])
    return Plan(
        precisions,
        options=options,
        max_drop=args.max_drop,
        fp16_drop=args.fp16_drop,
        tensorrt=args.tensorrt or "",
    )


def with_frames(plan: Plan, args: argparse.Namespace, card: ModelCard) -> Plan:
    """``plan`` with the frames of ``--calibrate``, generated ones where it needs some.

    :raises InputError: if they cannot be read, or show too little.
    """
    from dense_perception.export.calibration import frames_from

    if args.calibration is None and not plan.quantised:
        return plan
    frames, source = frames_from(
        args.calibration, card, args.frames, args.topic, image_reader(args)
    )
    return replace(plan, frames=frames, source=source)


def add_camera_matrix(group: argparse._ActionsContainer) -> None:
    """Which matrix of a calibration describes the images."""
    group.add_argument(
        "--camera-matrix",
        choices=("auto", "K", "P"),
        default="auto",
        help="K for images as the camera took them, P for rectified ones; auto goes by the topic",
    )


def add_tolerance(group: argparse._ActionsContainer, default_ms: float) -> None:
    """How far stamps of what belongs together may be apart: :data:`JUDGED_MS` where models are
    judged by it, :data:`TRAINED_MS` where they learn from it."""
    group.add_argument(
        "--tolerance-ms",
        type=_not_below_zero,
        default=default_ms,
        metavar="MS",
        help="stamps of an image and its truth may differ by this much (%(default)g)",
    )


def image_reader(options: argparse.Namespace) -> ImageReader:
    """What :func:`add_reading` was given.

    :raises InputError: for bits that no camera has.
    """
    from dense_perception.imaging.messages import ImageReader

    limits = {
        name: value
        for name, value in (
            ("max_pixels", getattr(options, "max_pixels", None)),
            ("max_scans", getattr(options, "max_jpeg_scans", None)),
        )
        if value is not None
    }
    return ImageReader(options.bits, **limits)


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def add_stream(parser: argparse.ArgumentParser, *, model: str, seconds: float, rate: float) -> None:
    """The stream of a benchmark of nodes, with its own defaults; :func:`stream` reads it."""
    parser.add_argument("--model", default=model, help=f"name or ONNX file (default: {model})")
    parser.add_argument(
        "--seconds", type=above_zero, default=seconds, help=f"how long to stream ({seconds:g})"
    )
    parser.add_argument(
        "--rate", type=above_zero, default=rate, help=f"images per second and camera ({rate:g})"
    )
    parser.add_argument("--width", type=int, default=640, help="of the images (640)")
    parser.add_argument("--height", type=int, default=480, help="of the images (480)")
    parser.add_argument(
        "--parameter", nargs="+", default=[], metavar="NAME:=VALUE", help="parameters of the node"
    )
    parser.add_argument(
        "--transport-profile",
        default=None,
        metavar="XML",
        help="Fast DDS profile; default the package's, '' for none",
    )
    add_json(parser)


def stream(options: argparse.Namespace) -> StreamOptions:
    """What :func:`add_stream` was given."""
    from dense_perception.benchmarks.session import StreamOptions

    return StreamOptions(
        model=options.model,
        seconds=options.seconds,
        rate=options.rate,
        width=options.width,
        height=options.height,
        parameters=tuple(options.parameter),
        transport_profile=options.transport_profile,
    )


def image_size(text: str) -> tuple[int, int]:
    """``640x480`` as width and height above 0; the ``type`` of an option."""
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is no size, expected e.g. 640x480")
    return int(width), int(height)


def above_zero(text: str) -> float:
    """The ``type`` of an option that takes any number above 0."""
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _not_below_zero(text: str) -> float:
    """The ``type`` of an option that takes any number from 0 on."""
    value = float(text)
    if not 0 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def add_unit(group: argparse._ActionsContainer) -> None:
    """What a step of the depth images in a folder is."""
    group.add_argument(
        "--unit",
        type=above_zero,
        default=0.001,
        metavar="M",
        help="metres a step of the depth images in a folder (%(default)s)",
    )


def at_least_one(text: str) -> int:
    """The ``type`` of an option that counts."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value
