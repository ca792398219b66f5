"""``dense-perception data synthesize``: generated corpora with exact depth."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import threading
from pathlib import Path

from dense_perception.commands.output import say
from dense_perception.core.errors import InputError
from dense_perception.core.storage import cache_dir

HELP = "generate training images with exact metric depth (furnished rooms, Doom maps)"
EXAMPLES = """examples:
  dense-perception data synthesize rooms --out corpora/rooms --frames 12000 --workers 2
  dense-perception data synthesize rooms --out corpora/val --frames 600 --seed 9001 --split val
  dense-perception data synthesize rooms --out corpora/tables --frames 3000 --views tables
  dense-perception data synthesize rooms --out corpora/near --frames 3000 --views near
  dense-perception data synthesize doom --out corpora/doom --frames 4000

A run that was stopped goes on where it ended; more --frames enlarge a corpus."""


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
    parser.add_argument("generator", choices=("rooms", "doom"), help="what to generate")
    parser.add_argument("--out", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--frames", type=int, default=2000, help="number of frames (%(default)s)")
    parser.add_argument("--size", type=_size, default=(320, 240), help="WxH (320x240)")
    parser.add_argument("--seed", type=int, default=1, help="corpus seed (%(default)s)")
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


def main(args: argparse.Namespace) -> int:
    """Generate what is missing of the corpus; a second run goes on where the first ended."""
    from dense_perception.synthetic import generate

    # SIGTERM unwinds as Ctrl-C does: engines that render are processes, and end with their block.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    if args.frames < 1:
        raise InputError(f"--frames is {args.frames}, expected at least 1")
    cache = args.cache or cache_dir() / "synthetic"
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
    say(f"{args.out}: {args.frames} frames")
    return 0
