"""``dense-perception run``: the perceiver without ROS."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dense_perception.commands.arguments import add_model, add_model_options, model_options
from dense_perception.commands.output import json_text, print_json, print_problems

if TYPE_CHECKING:
    from dense_perception.media.sources import Source
    from dense_perception.runtime.perceiver import Perceiver

HELP = "Depth, labels and normals of pictures, folders, videos, a camera or a bag, without ROS."
EXAMPLES = """\
examples:
  dense-perception run dpt_tiny_indoor --input photo.jpg --output answers --ply
  dense-perception run dpt_tiny_indoor --input frames/ --output answers --hfov 69
  dense-perception run dpt_tiny_indoor --input walk.mp4 --output answers --limit 300
  dense-perception run dpt_tiny_indoor --input 0 --output answers --limit 30
  dense-perception run dpt_tiny_indoor --input recording/ --output answers --bag --ply

writes, one file per frame:
  depth/NAME.png         16 bit, millimetres, 0 where there is no depth
  depth/NAME.npy         float32 metres, NaN where there is no depth; of a model with relative depth
                         its own numbers, which run.json names (no metres, so no PNG and no cloud)
  color/NAME.png         near is red, far is blue, none is black
  side_by_side/NAME.jpg  the picture beside its depth, with a legend (in metres if the depth is)
  points/NAME.ply        with --ply
of a model with labels also labels/, confidence/, labels_color/ and overlay/, of a multitask model
normals/ (float32), normals_color/, edges/, keypoints/ and reshading/ (8 bit);
or, with --bag, one ROS 2 bag with depth/image, depth/camera_info, depth/color (and points with
--ply) under /depth_node, stamped like the input.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--input", required=True, help="picture, folder, video, camera number, bag")
    parser.add_argument("--output", required=True, type=Path, help="folder to write to")
    parser.add_argument("--overwrite", action="store_true", help="replace files of the same name")
    parser.add_argument("--ply", action="store_true", help="write coloured point clouds too")
    parser.add_argument("--bag", action="store_true", help="write a ROS 2 bag instead of files")
    parser.add_argument("--no-pictures", action="store_true", help="write depth only, no previews")
    camera = parser.add_argument_group("camera")
    camera.add_argument("--topic", help="image topic of a bag (default: the only one)")
    camera.add_argument("--camera-info-topic", help="calibration topic (default: beside the image)")
    camera.add_argument(
        "--camera-info",
        type=Path,
        metavar="YAML",
        help="calibration file of camera_calibration, OpenCV or ros2 topic echo",
    )
    camera.add_argument(
        "--bits",
        type=int,
        default=0,
        metavar="N",
        help="bits that 16-bit pictures use, 10 or 12 for many cameras (default: all 16)",
    )
    camera.add_argument(
        "--hfov",
        type=float,
        default=60.0,
        metavar="DEG",
        help="horizontal field of view where there is no calibration (default: 60)",
    )
    add_model_options(parser)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take each Nth frame")
    parser.add_argument("--limit", type=int, metavar="N", help="stop after N frames")
    parser.add_argument(
        "--size", choices=("input", "network"), default="input", help="size of the depth maps"
    )
    parser.add_argument(
        "--max-side", type=int, default=1280, metavar="PX", help="longest side of the depth maps"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def main(options: argparse.Namespace) -> int:
    from dense_perception.core.errors import InputError
    from dense_perception.media.calibration_file import read_calibration
    from dense_perception.media.sources import open_source
    from dense_perception.runtime.perceiver import Perceiver

    if options.every < 1 or (options.limit is not None and options.limit < 1):
        raise InputError(f"got --every {options.every} --limit {options.limit}, expected 1 or more")
    calibration = read_calibration(options.camera_info) if options.camera_info else None
    source = open_source(
        options.input,
        calibration=calibration,
        topic=options.topic,
        info_topic=options.camera_info_topic,
        bits=options.bits,
    )
    try:
        with Perceiver.load(
            options.model,
            **model_options(options),
            default_hfov_deg=options.hfov,
            output_size=options.size,
            max_output_side=options.max_side,
        ) as perceiver:
            summary = _answer_all(perceiver, source, options)
    finally:
        source.close()
    _report(summary, options)
    return 130 if summary["interrupted"] else int(bool(summary["problems"]))


def _answer_all(
    perceiver: Perceiver, source: Source, options: argparse.Namespace
) -> dict[str, Any]:
    import itertools

    from tqdm import tqdm

    from dense_perception.core.errors import BackendError, InputError
    from dense_perception.runtime.mailbox import StageTimer

    _refuse_input_as_output(options.input, options.output)
    sink = _open_sink(perceiver, options)
    timer = StageTimer(window=1_000_000)
    problems: list[str] = []
    answered = assumed = scaled_down = 0
    interrupted = False
    total = None if source.total is None else -(-source.total // options.every)
    if options.limit is not None:
        total = options.limit if total is None else min(total, options.limit)
    items = itertools.islice(source, 0, None, options.every)
    start = time.perf_counter()
    bar = tqdm(total=total, unit="frame", disable=options.quiet or None, file=sys.stderr)
    try:
        for item in itertools.islice(items, options.limit):
            try:
                prediction = perceiver(item.frame)
            except (InputError, BackendError) as error:
                problems.append(f"{item.name}: {error}")
                continue
            sink.write(item, prediction)
            timer.add_all(prediction.timings_ms)
            assumed += prediction.intrinsics_assumed
            scaled_down += max(item.frame.width, item.frame.height) > options.max_side
            answered += 1
            bar.update()
    except KeyboardInterrupt:
        interrupted = True
    finally:
        bar.close()
        sink.close()
    problems = [*source.problems, *problems]
    if interrupted:
        problems.append("interrupted; what was answered is written")
    if answered == 0 and not problems:
        problems.append("there was no frame to answer")
    stages = {
        stage: {"median_ms": round(value.median_ms, 2), "p95_ms": round(value.p95_ms, 2)}
        for stage, value in timer.summary().items()
    }
    summary = {
        "model": perceiver.card.name,
        "backend": perceiver.backend.description,
        "selection": perceiver.selection.summary(),
        "input": options.input,
        "output": str(options.output),
        "answered": answered,
        "depth": _MEANING[perceiver.card.depth.kind.value] if perceiver.card.depth else None,
        "intrinsics_assumed": assumed if _uses_camera(perceiver, options) else 0,
        "scaled_down": scaled_down,
        "seconds": round(time.perf_counter() - start, 2),
        "stages": stages,
        "problems": problems,
        "interrupted": interrupted,
    }
    _keep(summary, options.output)
    return summary


def _refuse_input_as_output(text: str, output: Path) -> None:
    """
    :raises InputError: if answers could be written over what they are made from.
    """
    from dense_perception.core.errors import InputError

    given, folder = Path(text).expanduser().resolve(), output.expanduser().resolve()
    if not given.exists():
        return  # a camera's number
    inside = given.is_relative_to(folder)
    is_plain_file = given.parent == folder and not given.is_dir()
    if (inside and not is_plain_file) or (folder.is_relative_to(given) and _is_recording(given)):
        raise InputError(
            f"--output {output} would write over --input {text}: choose a folder elsewhere"
        )


def _is_recording(path: Path) -> bool:
    from dense_perception.media.bag_reader import is_bag

    return path.is_dir() and is_bag(path)


def _open_sink(perceiver: Perceiver, options: argparse.Namespace) -> Any:
    from dense_perception.core.errors import InputError
    from dense_perception.core.prediction import DepthKind
    from dense_perception.media.bag_sink import BagSink
    from dense_perception.media.sinks import FolderSink

    depth = perceiver.card.depth
    if depth is None and (options.bag or options.ply):
        raise InputError(
            f"model {perceiver.card.name} gives {' and '.join(perceiver.card.outputs)}, no depth: "
            "leave --bag and --ply out, or choose a depth model"
        )
    kind = depth.kind if depth else DepthKind.METRIC
    if options.ply and kind is not DepthKind.METRIC:
        raise InputError(
            f"model {perceiver.card.name} gives {kind.value} depth, which has no metres to make a "
            "cloud of: leave --ply out, or choose a metric model"
        )
    if options.bag:
        return BagSink(options.output, points=options.ply, kind=kind, overwrite=options.overwrite)
    forms = ["png", "npy"]
    if not options.no_pictures:
        forms += ["color", "side_by_side"]
    if options.ply:
        forms.append("ply")
    return FolderSink(options.output, tuple(forms), kind=kind, overwrite=options.overwrite)


_MEANING = {
    "metric": "metres",
    "relative_inverse": "inverse depth up to scale and shift, not metres",
    "relative": "depth up to scale, not metres",
}


def _uses_camera(perceiver: Perceiver, options: argparse.Namespace) -> bool:
    """Whether the field of view changes anything that is written."""
    return bool(perceiver.card.input.focal or options.ply or options.bag)


def _keep(summary: dict[str, Any], folder: Path) -> None:
    from dense_perception.core.storage import atomic_write_text

    atomic_write_text(folder / "run.json", json_text(summary, indent=2) + "\n")


def _report(summary: dict[str, Any], options: argparse.Namespace) -> None:
    print_problems(summary["problems"])
    if options.json:
        print_json(summary)
        return
    times = ", ".join(f"{k} {v['median_ms']:.1f} ms" for k, v in summary["stages"].items())
    print(f"{summary['answered']} frames answered in {summary['seconds']} s ({times})")
    print(f"model {summary['model']}: {summary['selection']}")
    if summary["intrinsics_assumed"]:
        print(
            f"{summary['intrinsics_assumed']} frames had no calibration: a horizontal field of "
            f"view of {options.hfov:g} degrees was assumed, and metres scale with it"
        )
    if summary["scaled_down"] and options.size == "input":
        print(
            f"{summary['scaled_down']} answers were scaled down to {options.max_side} pixels on "
            "their longest side: --max-side allows more"
        )
    if summary["depth"] not in (None, "metres"):
        print(f"depth/*.npy holds {summary['depth']}")
    print(f"written to {summary['output']}")
