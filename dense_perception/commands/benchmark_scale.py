"""``dense-perception benchmark scale``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dense_perception.commands.arguments import add_json
from dense_perception.commands.output import show

if TYPE_CHECKING:
    from dense_perception.benchmarks.scale import ScaleRow

HELP = """\
Makes the exact depth of a generated corpus relative, with a scale and shift drawn at random and
a smooth error of 2 %, and asks each scale source for the metres. The error is that of the frame's
median depth; answered are the frames whose fit a node would use."""
EXAMPLES = """\
examples:
  dense-perception benchmark scale corpora/rooms_val
  dense-perception benchmark scale corpora/rooms_val --points 20 --outliers 0.4 --json
  dense-perception benchmark scale corpora/rooms_val --pitch-noise 0
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "corpus", type=Path, help="folder of `dense-perception data synthesize rooms`"
    )
    parser.add_argument("--points", type=int, default=50, help="known depths a frame (50)")
    parser.add_argument("--outliers", type=float, default=0.3, help="share of wrong ones (0.3)")
    parser.add_argument(
        "--pitch-noise",
        type=float,
        default=0.5,
        metavar="DEGREES",
        help="standard error of the camera's pitch (0.5)",
    )
    parser.add_argument("--frames", type=int, default=0, help="at most so many (0: all)")
    parser.add_argument("--seed", type=int, default=0)
    add_json(parser)


def main(options: argparse.Namespace) -> int:
    from dense_perception.benchmarks.scale import measure_scale_sources

    rows = measure_scale_sources(
        options.corpus,
        points=options.points,
        outliers=options.outliers,
        pitch_noise_deg=options.pitch_noise,
        limit=options.frames or None,
        seed=options.seed,
    )
    show(rows, table, options.json)
    return 0


def table(rows: list[ScaleRow]) -> str:
    """A Markdown table, a row per source and kind of depth."""
    header = "| source | depth | frames | answered | median | p95 | within 3 % | within 5 % |"
    lines = [header, "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        source, depth, frames, *shares = row.values()
        text = " | ".join(f"{100 * float(str(share)):.1f} %" for share in shares)
        lines.append(f"| {source} | {depth} | {frames} | {text} |")
    return "\n".join(lines)
