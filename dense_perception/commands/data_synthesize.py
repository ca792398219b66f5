"""``dense-perception data synthesize``: generated corpora with exact depth, and recordings."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import threading
from pathlib import Path

from dense_perception.commands.output import complain, say
from dense_perception.core.errors import InputError
from dense_perception.core.printable import counted
from dense_perception.core.storage import cache_dir

HELP = (
    "generate images with exact metric depth (furnished rooms, Doom maps), or a robot's recording"
)
EXAMPLES = """examples:
  dense-perception data synthesize rooms --out corpora/rooms --frames 12000 --workers 2
  dense-perception data synthesize rooms --out corpora/val --frames 600 --seed 9001 --split val
  dense-perception data synthesize rooms --out corpora/tables --frames 3000 --views tables
  dense-perception data synthesize rooms --out corpora/near --frames 3000 --views near
  dense-perception data synthesize doom --out corpora/doom --frames 4000
  dense-perception data synthesize drive --out recordings/monday --frames 400 --size 640x400 \\
      --hfov 95 --camera-height 0.25 --pitch 5 --rooms hall --rooms storage --split val

A corpus that was stopped goes on where it ended; more --frames enlarge it. `drive` records what a
robot sees that drives through the rooms, as a rosbag2 bag for extract, run, evaluate and the nodes:
JPEG colour, depth in millimetres with a sensor's noise, calibrations, /tf; 5 Hz, 25 a room. It
keeps the rooms that are done in OUT.rooms until the bag is whole, and goes on with them."""


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; expected e.g. 320x240") from None
    if not (16 <= width <= 4096 and 16 <= height <= 4096):
        raise argparse.ArgumentTypeError(f"{text} is out of range, expected 16x16 to 4096x4096")
    return width, height


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("generator", choices=("rooms", "doom", "drive"), help="what to generate")
    parser.add_argument("--out", type=Path, required=True, help="folder of the corpus or the bag")
    parser.add_argument("--frames", type=int, default=2000, help="number of frames (%(default)s)")
    parser.add_argument("--size", type=_size, default=(320, 240), help="WxH (320x240)")
    parser.add_argument("--seed", type=int, default=1, help="what is drawn (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes (%(default)s)")
    parser.add_argument(
        "--split",
        choices=("train", "val", "all"),
        default="train",
        help="which fifth of models and textures is held out (%(default)s)",
    )
    parser.add_argument(
        "--views",
        choices=("mixed", "tables", "near"),
        default="mixed",
        help="rooms: cameras anywhere, looking down on tables and their clutter, or close to "
        "tables, floors and walls (%(default)s)",
    )
    parser.add_argument(
        "--furniture",
        type=Path,
        default=None,
        help="folder of .sh3f libraries (Debian: sweethome3d-furniture)",
    )
    parser.add_argument("--cache", type=Path, default=None, help="folder for converted assets")
    drive = parser.add_argument_group("drive")
    drive.add_argument(
        "--hfov",
        type=float,
        default=70.0,
        metavar="DEG",
        help="horizontal field of view (%(default)s)",
    )
    drive.add_argument(
        "--camera-height",
        type=float,
        default=0.3,
        metavar="M",
        help="above the floor (%(default)s)",
    )
    drive.add_argument(
        "--pitch", type=float, default=0.0, metavar="DEG", help="up is positive (%(default)s)"
    )
    drive.add_argument(
        "--depth",
        choices=("beside", "aligned", "none"),
        default="beside",
        help="from a depth camera beside the colour camera, aligned with colour, or none "
        "(%(default)s)",
    )
    drive.add_argument(
        "--rooms",
        action="append",
        default=[],
        metavar="KIND",
        help="office, living, bedroom, kitchen, bathroom, corridor, hall or storage; repeats "
        "(default: any)",
    )


def main(args: argparse.Namespace) -> int:
    """Generate what is missing of the corpus; a second run goes on where the first ended."""
    from dense_perception.synthetic import generate

    # SIGTERM unwinds as Ctrl-C does: engines that render are processes, and end with their block.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    if args.frames < 1:
        raise InputError(f"--frames is {args.frames}, expected at least 1")
    cache = args.cache or cache_dir() / "synthetic"
    if args.generator == "drive":
        return _drive(args, cache)
    source: generate.Generator
    if args.generator == "rooms":
        from dense_perception.synthetic.rooms import RoomGenerator

        source = RoomGenerator.prepare(cache, args.furniture, args.split, args.views)
    else:
        from dense_perception.synthetic.doom import DoomGenerator

        source = DoomGenerator.prepare(args.split)
    command = shlex.join(["dense-perception", *sys.argv[1:]])
    workers = max(1, args.workers)
    generate.corpus(source, args.out, args.frames, args.size, args.seed, workers, command)
    say(f"{args.out}: {counted(args.frames, 'frame')}")
    return 0


def _drive(args: argparse.Namespace, cache: Path) -> int:
    from dense_perception.synthetic.drive import Robot, record_drive
    from dense_perception.synthetic.rooms import RoomGenerator
    from dense_perception.synthetic.shell import THEMES

    unknown = [kind for kind in args.rooms if kind not in THEMES]
    if unknown:
        raise InputError(f"--rooms is {unknown[0]!r}, expected one of {', '.join(THEMES)}")
    width, height = args.size
    robot = Robot(width, height, args.hfov, args.camera_height, args.pitch, args.depth)
    if args.out.exists():
        raise InputError(f"{args.out} exists: move it away or choose another folder")
    source = RoomGenerator.prepare(cache, args.furniture, args.split)
    workers = max(1, args.workers)
    try:
        record_drive(source, robot, args.out, args.frames, args.seed, tuple(args.rooms), workers)
    except KeyboardInterrupt:
        complain(f"the same command goes on with the rooms that are done ({args.out}.rooms)")
        raise
    say(f"{args.out}: {args.frames} images")
    return 0
