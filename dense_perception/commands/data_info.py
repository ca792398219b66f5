"""``dense-perception data info``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dense_perception.commands.arguments import add_json
from dense_perception.commands.output import print_problems, show
from dense_perception.core.printable import counted

if TYPE_CHECKING:
    from dense_perception.data.summary import CorpusSummary

HELP = "Show what is in a corpus: size, source, depth, classes, copies, and what looks wrong."
EXAMPLES = """\
examples:
  dense-perception data info corpora/rooms
  dense-perception data info corpora/rooms --sheet rooms.png --verify
  dense-perception data info corpora/rooms corpora/office --json

Reads every frame. Depth is in metres. Quantiles are over the pixels that have depth; the histogram
and the shares of the classes are over all pixels. What looks wrong goes to stderr, and the exit
code is 1: millimetres, mixed units, frames without truth, pictures of one colour, NaN, labels above
the classes, depth that does not fit its picture, many copies, damaged frames. Of several corpora
the lists of classes are compared.
"""
_BAR = 40
_SHOWN = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("corpus", type=Path, nargs="+", help="folder with a corpus.json")
    parser.add_argument(
        "--sheet", type=Path, metavar="FILE", help="write a contact sheet of the first corpus (PNG)"
    )
    parser.add_argument("--verify", action="store_true", help="compare the shards' SHA-256")
    add_json(parser)


def main(options: argparse.Namespace) -> int:
    """Returns 0, or 1 if something looks wrong."""
    from dense_perception.data.contact_sheet import write_contact_sheet
    from dense_perception.data.corpus import Corpus
    from dense_perception.data.summary import differing_classes, summarise

    corpora = [Corpus(path) for path in options.corpus]
    if options.sheet is not None:
        write_contact_sheet(corpora[0], options.sheet)
    summaries = [summarise(corpus, verify=options.verify) for corpus in corpora]
    if len(summaries) == 1:
        show(summaries[0], table, options.json)
    else:
        show(summaries, lambda found: "\n\n".join(map(table, found)), options.json)
    problems = [f"{found.name}: {doubt}" for found in summaries for doubt in found.doubts]
    problems += differing_classes(corpora)
    print_problems(problems)
    return 1 if problems else 0


def table(summary: CorpusSummary) -> str:
    """The table for a terminal."""
    from dense_perception.data.summary import EDGES_M

    sizes = ", ".join(
        size if len(summary.sizes) == 1 else f"{size} ({count})"
        for size, count in list(summary.sizes.items())[:_SHOWN]
    )
    lines = [
        f"{summary.name}: {counted(summary.frames, 'frame')} of {sizes}",
        *(
            f"  {key}: {value}"
            for key, value in summary.source.items()
            if isinstance(value, (str, int, float))
        ),
        *(
            f"  recording {name}: {counted(count, 'frame')}"
            for name, count in list(summary.recordings.items())[:_SHOWN]
        ),
        "",
        f"pixels without depth  {100 * summary.without_depth:.2f} %",
        f"frames like another   {summary.duplicates}",
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
    if summary.things:
        wide = max(map(len, summary.things))
        lines += ["", "things, over all frames"]
        lines += [f"  {name:<{wide}}  {count:6}" for name, count in summary.things.items()]
    return "\n".join(lines)
