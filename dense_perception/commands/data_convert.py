"""``dense-perception data convert``: a folder of colour and depth images as a corpus."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "turn a folder of colour images with depth beside them into a corpus"
EXAMPLES = """examples:
  dense-perception data convert recording/ --out corpora/office --licence MIT

recording/ holds color/KEY.jpg, depth/KEY.png (16 bit, registered to colour, 0 for none) and
frames.json with fx, fy, cx and cy in pixels by KEY."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("folder", type=Path, help="folder with color/, depth/ and frames.json")
    parser.add_argument("--out", type=Path, required=True, help="folder of the corpus")
    parser.add_argument(
        "--unit", type=float, default=0.001, metavar="M", help="metres per step (%(default)s)"
    )
    parser.add_argument(
        "--licence", default="unknown", help="of the recording, for model cards (%(default)s)"
    )


def main(args: argparse.Namespace) -> int:
    """Convert the whole folder."""
    from dense_perception.data.folder_pairs import convert

    count = convert(args.folder, args.out, args.licence, args.unit)
    print(f"{args.out}: {count} frames")
    return 0
