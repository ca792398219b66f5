"""``dense-perception data convert``: a folder of colour and depth images as a corpus."""

from __future__ import annotations

import argparse
from pathlib import Path

from dense_perception.commands.arguments import add_unit
from dense_perception.commands.output import print_problems, say
from dense_perception.core.printable import counted

HELP = "turn images with depth or labels, or a corpus in the earlier layout, into a corpus"
EXAMPLES = """examples:
  dense-perception data convert recording/ --out corpora/office --licence MIT
  dense-perception data convert corpora/of_an_earlier_version --out corpora/rooms
  dense-perception data convert nyu:nyu_depth_v2_labeled.mat --out corpora/nyu
  dense-perception data convert kitti:/data/kitti --out corpora/kitti

recording/ holds color/KEY.jpg, depth/KEY.png (16 bit, registered to colour, 0 for none),
labels/KEY.png (8 bit, 0 for void) or both, and frames.json with fx, fy, cx and cy in pixels by KEY.
Public data sets in their own layout are named as SET:PATH (docs/data.md lists them).
A conversion that was stopped goes on where it ended."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("source", help="folder with frames.json or corpus.json, or SET:PATH")
    parser.add_argument("--out", type=Path, required=True, help="folder of the corpus")
    add_unit(parser)
    parser.add_argument(
        "--licence", default=None, help="of the recording, for model cards (unknown)"
    )


def main(args: argparse.Namespace) -> int:
    """Convert the whole source, or what is left of it."""
    from dense_perception.data.sources import convert_source

    count = convert_source(
        args.source,
        args.out,
        licence=args.licence,
        unit_m=args.unit,
        on_problem=lambda problem: print_problems([problem]),
    )
    say(f"{args.out}: {counted(count, 'frame')}")
    return 0
