"""``dense-perception extract``: recordings to a corpus."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dense_perception.commands.arguments import (
    TRAINED_MS,
    add_camera_matrix,
    add_json,
    add_reading,
    add_tolerance,
    image_reader,
)
from dense_perception.commands.output import print_problems, show

if TYPE_CHECKING:
    from dense_perception.data.extraction.extract import Extracted

HELP = "Turn recordings (bags) into a corpus: images with registered depth, points and labels."
EXAMPLES = """\
examples:
  dense-perception extract recording/ --out corpora/office --licence MIT
  dense-perception extract monday/ tuesday/ --out corpora/yard --validation corpora/yard_val
  dense-perception extract recording/ --out corpora/yard --points-topic /lidar/points \\
      --tolerance-ms 60
  dense-perception extract recording/ --out corpora/unlabelled --depth-topic none

Depth from another place than the colour camera's is registered through both calibrations and /tf.
Images are undistorted. Frames in which nothing moved are dropped. With --validation, whole
recordings are held out, or the last part of each where there are few. Whatever was stopped goes on
where it ended when the same command is given again.
"""


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) > 15 and int(height) > 15):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; expected e.g. 320x240")
    return int(width), int(height)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bags", type=Path, nargs="+", metavar="BAG", help="bag folders or files")
    parser.add_argument("--out", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--validation", type=Path, metavar="DIR", help="corpus of what is held out")
    parser.add_argument(
        "--held-out", type=float, default=0.15, metavar="SHARE", help="of the data (%(default)s)"
    )
    parser.add_argument(
        "--gap", type=int, default=30, metavar="N", help="images left out before it (%(default)s)"
    )
    parser.add_argument("--topic", help="colour topic (default: the only one)")
    parser.add_argument("--depth-topic", help="depth topic (default: the only one); none for none")
    parser.add_argument(
        "--points-topic",
        action="append",
        default=[],
        metavar="TOPIC",
        help="PointCloud2 or LaserScan to project; can be repeated",
    )
    parser.add_argument("--label-topic", help="label images aligned with colour, 255 is void")
    parser.add_argument("--classes", type=Path, metavar="FILE", help="names of the labels from 0")
    add_tolerance(parser, TRAINED_MS)
    parser.add_argument("--size", type=_size, metavar="WxH", help="of the frames (as recorded)")
    parser.add_argument("--rate", type=float, default=0.0, metavar="HZ", help="frames a second")
    parser.add_argument(
        "--still",
        type=float,
        default=1.5,
        metavar="LEVELS",
        help="drop frames that differ less from the last, 0 takes all (%(default)s)",
    )
    parser.add_argument("--world", default="", metavar="FRAME", help="frame of /tf for poses")
    add_camera_matrix(parser)
    add_reading(parser)
    parser.add_argument("--hfov", type=float, metavar="DEG", help="where there is no calibration")
    parser.add_argument("--licence", default="unknown", help="of the recordings (%(default)s)")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="cores to use (%(default)s)"
    )
    add_json(parser)


def main(options: argparse.Namespace) -> int:
    """Returns 0, or 1 if something could not be read."""
    from dense_perception.data.extraction.extract import ExtractOptions, extract
    from dense_perception.data.extraction.recording import Settings
    from dense_perception.data.extraction.topics import TopicNames

    names = TopicNames(
        options.topic, options.depth_topic, tuple(options.points_topic), options.label_topic
    )
    reader = image_reader(options)
    settings = Settings(
        names,
        options.tolerance_ms,
        options.still,
        options.rate,
        options.size,
        options.hfov,
        options.world,
        options.camera_matrix,
        reader.bits.bits,
        reader.max_pixels,
        reader.max_scans,
    )
    extracted = extract(
        ExtractOptions(
            tuple(options.bags),
            options.out,
            settings,
            options.validation,
            options.held_out,
            options.gap,
            options.classes,
            options.licence,
            options.workers,
            shlex.join(["dense-perception", *sys.argv[1:]]),
        )
    )
    problems = [f"{row.recording}: {problem}" for row in extracted.rows for problem in row.problems]
    print_problems(problems)
    show(extracted, _table, options.json)
    return 1 if problems else 0


def _table(extracted: Extracted) -> str:
    lines = [f"{'recording':24}{'corpus':16}{'images':>8}{'still':>8}{'frames':>8}  with"]
    for row in extracted.rows:
        partners = ", ".join(f"{name} {count}" for name, count in row.partners.items()) or "-"
        lines.append(
            f"{row.recording:24}{row.corpus:16}{row.images:>8}{row.still:>8}{row.frames:>8}  "
            f"{partners}"
        )
    return "\n".join(lines)
