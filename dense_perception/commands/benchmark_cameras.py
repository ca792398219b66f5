"""``dense-perception benchmark cameras``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from dense_perception.commands.arguments import add_stream, stream
from dense_perception.commands.output import show

if TYPE_CHECKING:
    from dense_perception.benchmarks.cameras import CamerasResult

HELP = "measure several cameras in one depth_node against a node for each"
EXAMPLES = """examples:
  dense-perception benchmark cameras
  dense-perception benchmark cameras --cameras 2 --rate 30 --seconds 120 --json

The exit code is 1 if one node answered less than 95 % of a camera's newest frames, if the cameras
that stayed were answered less often while the other was gone or back, or if that one was not
answered again."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_stream(parser, model="dpt_tiny_indoor", seconds=60, rate=15)
    parser.add_argument("--cameras", type=int, default=4, help="how many, 2 to 16 (default: 4)")


def main(options: argparse.Namespace) -> int:
    """Returns 0, or 1 if one node did not serve all cameras as promised in ``--help``."""
    from dense_perception.benchmarks.cameras import measure_cameras

    result = measure_cameras(stream(options), options.cameras)
    show(result, table, options.json)
    met = result.worst_newest_percent >= 95 and result.others_kept >= 0.95
    return int(not (met and result.killed_came_back))


def table(result: CamerasResult) -> str:
    """The table for a terminal."""
    lines = [f"{result.model}, {result.stream}, {result.seconds:g} s"]
    for layout in (result.one_node, result.separate_nodes):
        lines += [
            "",
            f"{layout.nodes} node{'s' if layout.nodes > 1 else ''}: {layout.answers_hz:.1f} "
            f"answers a second, {layout.cpu_percent:.0f} % CPU, {layout.cpu_ms_an_answer:.1f} ms "
            f"of it an answer, {layout.memory_mb:.0f} MB",
            f"{'':10}{'newest answered':>17}{'of sent':>10}{'Hz before, gone, back':>24}"
            f"{'longest gap':>14}",
        ]
        for each in layout.cameras:
            rates = ", ".join(f"{rate:.1f}" for rate in each.answers_hz)
            share = "" if each.sent_percent is None else f"{each.sent_percent:.1f} %"
            lines.append(
                f"{each.camera:10}{each.newest_percent:>15.2f} %{share:>10}{rates:>24}"
                f"{each.longest_gap_ms:>11.0f} ms"
            )
        if layout.last_error:
            lines.append(f"last error: {layout.last_error}")
    lines += [
        "",
        f"separate nodes to one: CPU an answer {result.cpu_ratio:.2f}, memory "
        f"{result.memory_ratio:.2f}",
        f"worst newest answered {result.worst_newest_percent:.2f} %; those that stayed kept "
        f"{100 * result.others_kept:.1f} % of their rate; the killed one came back: "
        f"{'yes' if result.killed_came_back else 'no'}",
    ]
    return "\n".join(lines)
