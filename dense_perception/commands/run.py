"""``dense-perception run``: the perceiver without ROS."""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path

from dense_perception.commands.arguments import (
    add_camera_matrix,
    add_model,
    add_model_options,
    add_reading,
    at_least_one,
    image_reader,
    model_options,
)
from dense_perception.commands.output import json_text, print_json, print_problems, say

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
normals/ (float32), normals_color/, edges/, keypoints/ and reshading/ (8 bit), of a model of things
instances/ (JSON: class, score, box and id), instance_ids/ and instances_overlay/;
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
    add_camera_matrix(camera)
    add_reading(camera)
    camera.add_argument(
        "--hfov",
        type=float,
        default=60.0,
        metavar="DEG",
        help="horizontal field of view where there is no calibration (default: 60)",
    )
    add_model_options(parser)
    parser.add_argument(
        "--every", type=at_least_one, default=1, metavar="N", help="take each Nth frame"
    )
    parser.add_argument("--limit", type=at_least_one, metavar="N", help="stop after N frames")
    parser.add_argument(
        "--size", choices=("input", "network"), default="input", help="size of the depth maps"
    )
    parser.add_argument(
        "--max-side", type=int, default=1280, metavar="PX", help="longest side of the depth maps"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def main(options: argparse.Namespace) -> int:
    """Returns 0, 1 if a frame could not be answered, 2 if none could, 130 if interrupted."""
    from dense_perception.core.storage import atomic_write_text
    from dense_perception.media.calibration_file import read_calibration
    from dense_perception.media.sinks import open_sink, refuse_input_as_output
    from dense_perception.media.sources import open_source
    from dense_perception.runtime.offline import answer_source
    from dense_perception.runtime.perceiver import Perceiver

    refuse_input_as_output(options.input, options.output)
    calibration = read_calibration(options.camera_info) if options.camera_info else None
    source = open_source(
        options.input,
        calibration=calibration,
        topic=options.topic,
        info_topic=options.camera_info_topic,
        reader=image_reader(options),
        matrix=options.camera_matrix,
    )
    with (
        closing(source),
        Perceiver.load(
            options.model,
            **model_options(options),
            default_hfov_deg=options.hfov,
            output_size=options.size,
            max_output_side=options.max_side,
        ) as perceiver,
    ):
        sink = open_sink(
            options.output,
            perceiver.card,
            bag=options.bag,
            points=options.ply,
            previews=not options.no_pictures,
            overwrite=options.overwrite,
        )
        summary = answer_source(
            perceiver,
            source,
            sink,
            every=options.every,
            limit=options.limit,
            progress=not options.quiet,
        )
    record = {"input": options.input, "output": options.output, **vars(summary)}
    atomic_write_text(options.output / "run.json", json_text(record, indent=2) + "\n")
    print_problems(summary.problems)
    if options.json:
        print_json(record)
    else:
        say(summary.text(options.hfov, options.max_side))
        say(f"written to {options.output}")
    if summary.interrupted:
        return 130
    return (1 if summary.answered else 2) if summary.problems else 0
