"""``dense-perception data info``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dense_perception.commands.arguments import add_json
from dense_perception.commands.output import show

if TYPE_CHECKING:
    from dense_perception.data.summary import CorpusSummary

HELP = "Show what is in a corpus: its size and source, how deep it is, and its classes."
EXAMPLES = """\
examples:
  dense-perception data info corpora/rooms
  dense-perception data info corpora/rooms --json

Reads every frame. Depth is in metres. Quantiles are over the pixels that have depth; the histogram
and the shares of the classes are over all pixels.
"""
_BAR = 40


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("corpus", type=Path, help="folder with a corpus.json")
    add_json(parser)


def main(options: argparse.Namespace) -> int:
    from dense_perception.data.corpus import Corpus
    from dense_perception.data.summary import summarise

    show(summarise(Corpus(options.corpus)), table, options.json)
    return 0


def table(summary: CorpusSummary) -> str:
    """The table for a terminal."""
    from dense_perception.data.summary import EDGES_M

    lines = [
        f"{summary.name}: {summary.frames} frames of {summary.width}x{summary.height}",
        *(
            f"  {key}: {value}"
            for key, value in summary.source.items()
            if isinstance(value, (str, int, float))
        ),
        "",
        f"pixels without depth  {100 * summary.without_depth:.2f} %",
    ]
    if summary.depth_m:
        shares = "".join(f"{100 * float(quantile):>8g} %" for quantile in summary.depth_m)
        metres = "".join(f"{value:>8.2f} m" for value in summary.depth_m.values())
        lines += [f"quantiles  {shares}", f"depth      {metres}", ""]
    fullest = max(summary.histogram) or 1.0
    for index, share in enumerate(summary.histogram):
        last = index + 1 == len(EDGES_M)
        to = "    up" if last else f"{EDGES_M[index + 1]:6g}"
        bar = "#" * round(_BAR * share / fullest)
        lines.append(f"{EDGES_M[index]:6g} -{to} m {100 * share:6.2f} % {bar}".rstrip())
    if summary.classes:
        wide = max(map(len, summary.classes))
        lines += ["", "classes"]
        lines += [f"  {name:<{wide}}  {100 * v:6.2f} %" for name, v in summary.classes.items()]
    return "\n".join(lines)
